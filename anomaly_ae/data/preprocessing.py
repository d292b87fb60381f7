"""What images a detector takes, and how they become what its network sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly_ae.errors import DataError

Images = Tensor | npt.NDArray[Any]


@dataclass(frozen=True)
class Preprocessing:
    """Images of one size: `channels` × `height` × `width`."""

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

    def check(self, images: Images) -> Tensor:
        """Return `images`, `(N, C, H, W)`, uint8 or float in [0, 1], as a tensor if they are what the detector takes.

        Raises `DataError` otherwise, saying what is wrong with them.
        """
        if isinstance(images, np.ndarray) and images.dtype.kind in "uif":
            images = torch.from_numpy(
                np.array(images, order="C")
            )  # a copy: flipped and read-only views are taken too
        if not isinstance(images, Tensor):
            kind = f"array of {images.dtype}" if isinstance(images, np.ndarray) else type(images).__name__
            raise DataError(f"images are a torch tensor or a NumPy array of numbers, and these are: {kind}")
        wanted = "×".join(map(str, self.shape))
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            given = "×".join(map(str, images.shape))
            raise DataError(f"the detector takes images N×{wanted} (N×C×H×W), and was given {given}")
        if images.dtype == torch.uint8:
            return images
        if not images.is_floating_point():
            raise DataError(f"images are uint8 from 0 to 255 or float from 0 to 1, and these are {images.dtype}")
        if len(images) and not bool(((images >= 0) & (images <= 1)).all()):  # a NaN fails both comparisons
            raise DataError("float images must lie in [0, 1], and some values do not; divide by 255 or clean them")
        return images
