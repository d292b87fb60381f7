"""What images a detector takes, and how they become what its network sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.data.images import ImageSet
from anomaly_ae.errors import DataError

Images = Tensor | npt.NDArray[Any]

CHUNK = 4_096  # images resized at a time


@dataclass(frozen=True)
class Preprocessing:
    """Images of one size, `channels` × `height` × `width`; those of another height or width are resized to it."""

    channels: int
    height: int
    width: int

    @classmethod
    def for_shape(cls, shape: Sequence[int]) -> "Preprocessing":
        channels, height, width = shape
        return cls(channels, height, width)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def prepare(self, images: Images) -> Tensor:
        """Images, uint8 or float in [0, 1], (N, C, H', W'), as a tensor (N, C, H, W) of the same type.

        Raises `DataError`, saying what is wrong with them, when they are no such images.
        """
        return resize(self._check(images), (self.height, self.width))

    def prepare_set(self, images: ImageSet) -> ImageSet:
        """The same with labelled images."""
        return ImageSet(self.prepare(images.images), images.labels)

    def _check(self, images: Images) -> Tensor:
        """The images as a tensor, if they are what the detector takes but for their size."""
        if isinstance(images, np.ndarray) and images.dtype.kind in "uif":
            images = torch.from_numpy(
                np.array(images, order="C")
            )  # a copy: flipped and read-only views are taken too
        if not isinstance(images, Tensor):
            kind = f"array of {images.dtype}" if isinstance(images, np.ndarray) else type(images).__name__
            raise DataError(f"images are a torch tensor or a NumPy array of numbers, and these are: {kind}")
        if images.ndim != 4 or images.shape[1] != self.channels or 0 in images.shape[2:]:
            wanted, given = "×".join(map(str, self.shape)), "×".join(map(str, images.shape))
            raise DataError(f"the detector takes images N×{wanted} (N×C×H×W), and was given {given}")
        if images.dtype == torch.uint8:
            return images
        if not images.is_floating_point():
            raise DataError(f"images are uint8 from 0 to 255 or float from 0 to 1, and these are {images.dtype}")
        if len(images) and not bool(((images >= 0) & (images <= 1)).all()):  # a NaN fails both comparisons
            raise DataError("float images must lie in [0, 1], and some values do not; divide by 255 or clean them")
        return images


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, C, H', W') at `size`, by bilinear interpolation, smoothed where it shrinks; uint8 stays uint8."""
    if tuple(images.shape[-2:]) == size:
        return images
    if not len(images):
        return images.new_zeros(0, images.shape[1], *size)
    return torch.cat([_resize(part, size) for part in torch.split(images, CHUNK)])


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    resized = functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return resized.round().to(torch.uint8) if images.dtype == torch.uint8 else resized.clamp(0, 1)
