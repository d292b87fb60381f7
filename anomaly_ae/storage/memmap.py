"""Room for many images: in memory, or in a file that the system reads from and writes to as if it were memory."""

import math
import os
import tempfile
from collections.abc import Sequence
from typing import IO

import torch
from torch import Tensor

from anomaly_ae.runtime.machine import usable_memory
from anomaly_ae.storage.atomic import cache_folder, storage_errors

SHARE = 4  # of the memory there is, that one set of images may take
COPIED = 2**26  # bytes copied at a time


def memory_budget() -> int:
    """Bytes of images that are kept in memory; more lie in a file."""
    return usable_memory() // SHARE


def fits_in_memory(shape: Sequence[int]) -> bool:
    """Whether uint8 images of `shape` (N, C, H, W) are kept in memory."""
    return math.prod(shape) <= memory_budget()


def room_for(shape: Sequence[int]) -> Tensor:
    """Zeros, uint8 of `shape` (N, C, H, W); in a nameless file where they are too many for the memory."""
    return torch.zeros(*shape, dtype=torch.uint8) if fits_in_memory(shape) else _anonymous_memmap(shape)


def take_rows(images: Tensor, indices: Tensor) -> Tensor:
    """`images[indices]`, of their type, (M, …); in a nameless file where they are too many for the memory."""
    shape = (len(indices), *images.shape[1:-1], images.shape[-1] * images.element_size())
    if fits_in_memory(shape):
        return images[indices]
    content = images.contiguous().view(torch.uint8)  # of other types the bytes
    taken = _anonymous_memmap(shape)
    rows = max(1, COPIED // math.prod(shape[1:]))
    for start in range(0, len(indices), rows):
        taken[start : start + rows] = content[indices[start : start + rows]]
    return taken.view(images.dtype)


def _anonymous_memmap(shape: Sequence[int]) -> Tensor:
    """Zeros, uint8 of `shape`, in a file that is gone when nobody uses it any more, however the process ends."""
    folder = cache_folder()
    with storage_errors(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            _reserve(file, math.prod(shape))  # a full disk says so now, not by a crash later
            mapped = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=torch.uint8)
    return mapped.view(*shape)


def _reserve(file: IO[bytes], size: int) -> None:
    """Have a file take so many bytes of the disk; where they cannot be reserved, as on a Mac, by writing them."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, COPIED):
        file.write(bytes(min(COPIED, size - start)))
    file.flush()
