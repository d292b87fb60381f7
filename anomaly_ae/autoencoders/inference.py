"""Running a trained network over many images so that its numbers depend on nothing but the images."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from anomaly_ae.autoencoders.base import Autoencoder, Outputs
from anomaly_ae.data.images import as_float
from anomaly_ae.errors import UsageError

MOST_IMAGES, MOST_PIXELS = 256, 2**21  # of a batch


def batch_size(height: int, width: int) -> int:
    """Images per batch; it depends on their size alone, since a network's bits depend on the batch size."""
    return max(1, min(MOST_IMAGES, MOST_PIXELS // (height * width)))


@torch.inference_mode()
def forward_batches(network: Autoencoder, images: Tensor) -> Iterator[tuple[Tensor, Outputs]]:
    """Batches of images, float (B, C, H, W), and what the network makes of them, on its device, in float32.

    Batches are fixed by position and the last is padded to full size, so that an image's outputs do not
    depend on how many follow it. images: uint8 or float in [0, 1], (N, C, H, W).
    """
    device = next(network.parameters()).device
    size = batch_size(*images.shape[-2:])
    network.eval()
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padded = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
        floats = as_float(padded.to(device))
        with exact_float32():
            outputs = network(floats)
        yield floats[: len(part)], outputs.first(len(part))


def exact_float32() -> AbstractContextManager[None]:
    """Within it, convolutions on a GPU use true float32 and the same algorithm every time."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


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
