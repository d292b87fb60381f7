"""Running a trained network over images, exactly and in batches of few sizes, so that the same ones give the same."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Outputs, Shape
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.torch_state import thread_map
from anomaly_ae.storage.memmap import room_for
from anomaly_ae.storage.pixel_values import as_float

BATCH_IMAGES, BATCH_PIXELS = 256, 2**21  # of a batch
PERCEIVED_AT_ONCE = 16  # images
BATCHES_AT_ONCE = 4  # on the CPU: as much memory as they need, and no more, on machines of many cores
Read = Callable[[Tensor, Outputs], Tensor]  # images (B, C, H, W) and outputs -> a tensor (B, …)
JointRead = Callable[[Tensor, Outputs], Sequence[Tensor]]  # the same, several tensors


def batch_size(height: int, width: int) -> int:
    """Images per batch; it depends on their size alone, since a network's bits depend on the batch size."""
    return max(1, min(BATCH_IMAGES, BATCH_PIXELS // (height * width)))


def padded_count(count: int, height: int, width: int) -> int:
    """The size of the batch in which up to a batch of images is seen: the next of 1, 4, 16, 64 …, so that one image
    costs about one image, and bits depend on few sizes.
    """
    padded = 1
    while padded < count:
        padded *= 4
    return min(padded, batch_size(height, width))


def part_counts(count: int, height: int, width: int) -> list[int]:
    """How many of so many images each batch has: whole ones, and then not one that would be padded to twice as many
    or more, but several smaller ones; one of none, which has the shapes of what is made of it, where there are none.
    """
    size = batch_size(height, width)
    counts, rest = [size] * (count // size), count % size
    while rest:
        is_full = 2 * rest > padded_count(rest, height, width)
        counts.append(rest if is_full else padded_count(math.ceil(rest / 4), height, width))
        rest -= counts[-1]
    return counts or [0]


def split_batches(values: Tensor, size: int) -> Sequence[Tensor]:
    """Rows of a tensor, `size` at a time; all at once in a graph that is being exported, for any number of them."""
    return [values] if torch.compiler.is_exporting() else torch.split(values, size)


def map_images(
    network: Autoencoder, images: Tensor, read: Read, *, whole: bool = False, decoded: bool = True
) -> Tensor:
    """What `read` makes of each batch, (N, …), on the CPU; see `map_jointly`."""
    [values] = map_jointly(network, images, lambda *batch: [read(*batch)], whole=whole, decoded=decoded)
    return values


def map_jointly(
    network: Autoencoder, images: Tensor, read: JointRead, *, whole: bool = False, decoded: bool = True
) -> list[Tensor]:
    """What `read` makes of each batch, several tensors, (N, …) each, on the CPU; `read` sees padded batches too.

    images: uint8 or float in [0, 1], (N, C, H, W). In whole batches an image's value depends on its place in one
    alone; how many images come after the last whole one changes no value by more than 1e-5 of it, or of how much such
    values differ, and with `whole`, which pads these as well to a whole batch, by nothing.
    decoded: whether `read` reads reconstructions, see `Autoencoder.undecoded`
    """
    look = network if decoded else network.undecoded
    device, size = _made_ready(network, images.shape)

    @torch.inference_mode()
    def values(part: Tensor) -> list[Tensor]:
        batch = _padded(part.to(device), size if whole else padded_count(len(part), *images.shape[-2:]))
        with exact_float32(device.type):
            return [each[: len(part)].cpu() for each in read(batch, look(batch))]

    batches = torch.split(images, size if whole else part_counts(len(images), *images.shape[-2:]))
    at_once = max(1, min(BATCHES_AT_ONCE, torch.get_num_threads())) if device.type == "cpu" else 1
    side_by_side = len(images) // size // at_once * at_once  # the others have all threads, which would wait for them
    with thread_map(at_once) as run:
        many = list(run(values, batches[:side_by_side]))
    return [torch.cat(parts) for parts in zip(*many, *map(values, batches[side_by_side:]), strict=True)]


@torch.inference_mode()
def map_latents(network: Autoencoder, latents: Tensor, shape: Shape) -> Tensor:
    """Images of `shape`, float32 (N, C, H, W) on the CPU, of latents, float (N, D)."""
    device, size = _made_ready(network, shape)
    with exact_float32(device.type):
        parts = [network.decode(part.float().to(device)).cpu() for part in torch.split(latents, size)]
    return torch.cat([torch.zeros(0, *shape), *parts])


def draw_latents(latents: Tensor, count: int, seed: int = 0) -> Tensor:
    """Draws (count, D) from the Gaussian with mean and covariance of the latents (N, D).

    Normal weights on the centred latents have that covariance exactly, so that no D×D matrix is needed.
    """
    mean = latents.mean(dim=0)
    weights = torch.randn(count, len(latents), generator=torch.Generator().manual_seed(seed))
    spread = torch.tensor(max(1.0, len(latents) - 1.0)).sqrt()
    return mean + weights @ (latents - mean) / spread


def interpolate_latents(first: Tensor, last: Tensor, count: int) -> Tensor:
    """`count` latents (count, D) in equal steps from `first` (D,) to `last` (D,), both included."""
    share = torch.linspace(0, 1, count)[:, None]
    return (1 - share) * first + share * last


@torch.no_grad()
def perceive_all(network: Autoencoder, images: Tensor, look: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """What a network perceives of images, uint8 or float (N, C, H, W): float16
    (N, *perceived_shape), or the images themselves where it goes by them as they are.

    look: in place of `Autoencoder.perceive`, of a batch, float (B, C, H, W) in [0, 1], (B, …)
    """
    if network.perceived_shape is None:
        return images
    device, look = next(network.parameters()).device, look or network.perceive
    room = torch.zeros(0, *network.perceived_shape, dtype=torch.float16)
    for start in range(0, len(images), PERCEIVED_AT_ONCE):
        seen = look(as_float(images[start : start + PERCEIVED_AT_ONCE].to(device)))
        if not start:
            room = room_for((len(images), *seen.shape[1:-1], 2 * seen.shape[-1])).view(torch.float16)
        room[start : start + len(seen)] = seen
    return room


@torch.inference_mode()
def forward_batches(
    network: Autoencoder, images: Tensor, perceived: Tensor | None = None, decoded: bool = True
) -> Iterator[tuple[Tensor, Outputs]]:
    """Batches of images, float (B, C, H, W), and what the network makes of them, on its device, in float32.

    perceived: what `perceive_all` gave of the images, where it is at hand
    decoded:   whether anybody reads reconstructions, see `Autoencoder.undecoded`
    """
    look = network if decoded else network.undecoded
    device, size = _made_ready(network, images.shape)
    given = [images] if perceived is None or perceived is images else [images, perceived]
    for parts in zip(*(torch.split(each, size) for each in given), strict=True) if len(images) else ():
        count = padded_count(len(parts[0]), *images.shape[-2:])
        batches = [_padded(part.to(device), count) for part in parts]
        with exact_float32(device.type):  # ends before the batch is handed out: who has it does as he likes
            outputs = look(batches[-1])
        yield batches[0][: len(parts[0])], outputs.first(len(parts[0]))


def _made_ready(network: Autoencoder, shape: Sequence[int]) -> tuple[torch.device, int]:
    """The device of a network that is to look at images (…, H, W), no longer to learn, and how many at a time."""
    network.eval()
    return next(network.parameters()).device, batch_size(*shape[-2:])


def _padded(images: Tensor, count: int) -> Tensor:
    """Images, uint8 or float (N, C, H, W), as floats, with black ones after them up to so many."""
    return as_float(torch.cat([images, images.new_zeros(count - len(images), *images.shape[1:])]))


_passes, _changed, _lock = 0, ExitStack(), threading.Lock()


@contextmanager
def exact_float32(device_type: str) -> Iterator[None]:
    """Within it, true float32 (no TF32, no autocast) and, on a GPU, the same algorithm every time.

    torch's flags for it are the whole process's: the first of several passes at a time, in whatever threads, sets
    them, and the last one puts them back.
    """
    global _passes
    with _lock:
        if not _passes:
            for owner, flag, value in _exact_flags():
                _changed.callback(setattr, owner, flag, getattr(owner, flag))
                setattr(owner, flag, value)
        _passes += 1
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        with _lock:
            _passes -= 1
            if not _passes:
                _changed.close()


def _exact_flags() -> list[tuple[Any, str, Any]]:
    """What is set where. torch refuses to be asked by its older names for what a user has set by the newer ones."""
    backends: Any = torch.backends  # what its type hints lack is there
    cudnn, mkldnn, matmul = backends.cudnn, backends.mkldnn, backends.cuda.matmul
    steady = [(cudnn, "enabled", True), (cudnn, "benchmark", False), (cudnn, "deterministic", True)]
    places = matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn
    with suppress(RuntimeError):  # by its older name too, which torch itself asks for in an export
        steady += [(cudnn, "allow_tf32", False)] if cudnn.allow_tf32 else []
    return [*steady, *((place, "fp32_precision", "ieee") for place in places)]


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
