"""Rows of numbers, as scikit-learn has them, read as images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly_ae.errors import DataError
from anomaly_ae.storage.schema import Side

Rows = npt.NDArray[Any]
COLOURS = (1, 3, 4)  # gray, RGB, RGBA: how many channels an image has, where they come last
PICTURE = 8  # pixels a side, from which rows are a picture; below that, each value is a feature by itself
UNIT_END = 16  # a value that is none of a picture with values in [0, 1]
LIT = 0.05  # of the values of a picture of whole numbers, above 1, with which it is none of these either
FARTHEST = 1e3  # from [0, 1], beyond which values make no difference, so that their squares stay finite


@dataclass(frozen=True)
class RowLayout:
    """Which value of a row is which pixel.

    shape:         channels, height, width
    channels_last: whether a row lists H×W×C values, as an array of scikit-image does, and not C×H×W
    """

    shape: tuple[Side, Side, Side]
    channels_last: bool = False

    @classmethod
    def of(cls, shape: Sequence[int]) -> "RowLayout":
        """The layout of what is (D,), a square image if D is a square and else a line; (H, W); (C, H, W) or
        (H, W, C), the latter where 1, 3 or 4 comes last and not first. Raises `DataError` for what is no such shape.
        """
        sizes = np.atleast_1d(np.asarray(shape))
        match sizes.tolist() if sizes.dtype.kind in "iu" and (sizes > 0).all() else []:
            case [size]:
                side = math.isqrt(size)
                return cls((1, side, side) if side * side == size else (1, 1, size))
            case [height, width]:
                return cls((1, height, width))
            case [height, width, channels] if channels in COLOURS and height not in COLOURS:
                return cls((channels, height, width), channels > 1)
            case [channels, height, width]:
                return cls((channels, height, width))
        raise DataError(f"the shape of an image is (H, W), (C, H, W) or (H, W, C), and was given as {shape}")

    @property
    def is_picture(self) -> bool:
        """Whether it is large enough for convolutions, and all its pixels are of one kind."""
        return min(self.shape[1:]) >= PICTURE

    @property
    def given(self) -> tuple[int, int, int]:
        """The shape in the order of a row."""
        channels, height, width = self.shape
        return (height, width, channels) if self.channels_last else self.shape

    def images(self, rows: Rows) -> Tensor:
        """Rows (N, D) as images (N, C, H, W) of the same type."""
        images = torch.from_numpy(np.array(rows)).reshape(-1, *self.given)  # a copy: read-only ones are taken too
        return images.permute(0, 3, 1, 2).contiguous() if self.channels_last else images


@dataclass(frozen=True, eq=False)
class Scale:
    """What becomes 0 and what becomes 1 of the values of a row, float64 (D,), or (1,) for all alike.

    Values outside become less than 0 or more than 1, in proportion, and so stay as unusual as they are.
    """

    low: Rows
    high: Rows

    @classmethod
    def of(cls, rows: Rows, picture: bool) -> "Scale":
        """The scale of rows (N, D): of uint8, 0 to 255; of a picture, all pixels alike, [0, 1] if they lie within,
        else from their least to their greatest value; of features, the same for each by itself.
        """
        if rows.dtype == np.uint8:
            return cls.between(0, 255)
        if picture and rows.min() >= 0 and rows.max() <= 1:
            return cls.between(0, 1)
        axis = None if picture else 0
        return cls.between(rows.min(axis=axis), rows.max(axis=axis))

    @classmethod
    def between(cls, low: Any, high: Any) -> "Scale":
        return cls(np.atleast_1d(np.asarray(low, np.float64)), np.atleast_1d(np.asarray(high, np.float64)))

    def apply(self, rows: Rows) -> Rows:
        """Rows (N, D) as float32, what they were fitted to in [0, 1]; uint8 stay what they are if 255 means 1.

        A feature that was always the same becomes its difference from that. Raises `DataError` when rows are uint8,
        or lie in [0, 1], and the others were not so, or those of pictures did and these go far beyond.
        """
        is_bytes, is_unit = self._is_between(0, 255), self._is_between(0, 1)
        if is_bytes and rows.dtype == np.uint8:
            return rows
        is_beyond = is_unit and (rows.dtype == np.uint8 or (rows.shape[1] > 1 and _are_brighter(rows)))
        if is_beyond or (is_bytes and rows.dtype.kind == "f" and 0 < rows.max() <= 1):
            raise DataError(
                f"these images are {rows.dtype} up to {rows.max():g}, and those to fit had values from 0 to "
                f"{self.high[0]:g}; give them as in fit"
            )
        span = np.where(self.high > self.low, self.high - self.low, 1.0)
        scaled = (rows.astype(np.float64) - self.low) / span
        return scaled.clip(-FARTHEST, FARTHEST).astype(np.float32)

    def _is_between(self, low: float, high: float) -> bool:
        """Whether it goes from `low` to `high` for all values alike."""
        return (self.low.tolist(), self.high.tolist()) == ([low], [high])


def _are_brighter(rows: Rows) -> bool:
    """Whether most of rows (N, D) look like pictures of another unit than [0, 1], and not like unusual ones of it."""
    whole = (rows == np.floor(rows)).all(axis=1) & (rows.max(axis=1) >= UNIT_END) & ((rows > 1).mean(axis=1) > LIT)
    return bool(np.mean(whole | (np.median(rows, axis=1) > UNIT_END)) > 0.5)
