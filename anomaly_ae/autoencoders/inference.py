"""Running a trained network over many images so that its numbers depend on nothing but the images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from anomaly_ae.autoencoders.base import Autoencoder, Outputs, Shape
from anomaly_ae.errors import UsageError

MOST_IMAGES, MOST_PIXELS = 256, 2**21  # of a batch
Read = Callable[[Tensor, Outputs], Tensor]  # images (B, C, H, W) and outputs -> a tensor (B, …)


def as_float(images: Tensor) -> Tensor:
    """uint8 0 to 255, or float already in [0, 1], to float32 in [0, 1], on the device where it is."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def as_bytes(images: Tensor) -> Tensor:
    """float32 in [0, 1] to uint8 0 to 255: the bytes that `as_float` made it of."""
    return images.mul(255).round().to(torch.uint8)


def batch_size(height: int, width: int) -> int:
    """Images per batch; it depends on their size alone, since a network's bits depend on the batch size."""
    return max(1, min(MOST_IMAGES, MOST_PIXELS // (height * width)))


def portions(values: Tensor, size: int) -> Sequence[Tensor]:
    """Rows of a tensor, `size` at a time; all at once in a graph that is being exported, for any number of them."""
    return [values] if torch.compiler.is_exporting() else torch.split(values, size)


@torch.inference_mode()
def map_images(network: Autoencoder, images: Tensor, read: Read, shape: tuple[int, ...]) -> Tensor:
    """What `read` makes of each batch, float32 (N, *shape), on the CPU; `read` sees padded batches too.

    An image's value does not depend on how many follow it. images: uint8 or float in [0, 1], (N, C, H, W).
    """
    parts = [read(batch, outputs)[:count].cpu() for batch, outputs, count in _padded_batches(network, images)]
    return torch.cat([torch.zeros(0, *shape), *parts])


@torch.inference_mode()
def map_latents(network: Autoencoder, latents: Tensor, shape: Shape) -> Tensor:
    """Images of `shape`, float32 (N, C, H, W) on the CPU, of latents, float (N, D)."""
    device = next(network.parameters()).device
    size = batch_size(*shape[-2:])
    network.eval()
    with exact_float32(device.type):
        parts = [network.decode(part.float().to(device)).cpu() for part in torch.split(latents, size)]
    return torch.cat([torch.zeros(0, *shape), *parts])


@torch.inference_mode()
def forward_batches(network: Autoencoder, images: Tensor) -> Iterator[tuple[Tensor, Outputs]]:
    """Batches of images, float (B, C, H, W), and what the network makes of them, on its device, in float32."""
    for batch, outputs, count in _padded_batches(network, images):
        yield batch[:count], outputs.first(count)


def _padded_batches(network: Autoencoder, images: Tensor) -> Iterator[tuple[Tensor, Outputs, int]]:
    """Batches fixed by position, the last padded to full size, with the number of images that are real."""
    device = next(network.parameters()).device
    size = batch_size(*images.shape[-2:])
    network.eval()
    with exact_float32(device.type):
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padded = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
            batch = as_float(padded.to(device))
            yield batch, network(batch), len(part)


@contextmanager
def exact_float32(device_type: str) -> Iterator[None]:
    """Within it, true float32 (no TF32, no autocast) and, on a GPU, the same algorithm every time."""
    precision = torch.get_float32_matmul_precision()
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        torch.set_float32_matmul_precision("highest")
        with exact, torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def pick_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes CUDA, else MPS, else the CPU.

    Raises `UsageError` when that device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, available in there.items() if available)
    if not there.get(name, False):
        usable = ", ".join(device for device, available in there.items() if available)
        raise UsageError(f"there is no device {name!r} on this machine; usable: auto, {usable}")
    return torch.device(name)
