"""Masks of defects: every pixel that is not background is defective, and no defect is lost where a mask is made
smaller. Needs NumPy and Pillow alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ae.errors import DataError
from anomaly_ae.images.deep import DeepImage, kind_of
from anomaly_ae.images.intensity import EIGHT

LOSSY = ("JPEG", "WEBP")  # formats that may leave traces where there was nothing,
TRACES = 0.25  # up to this share of the highest value
NEARLY = 1e-6  # of a pixel, by which a computed edge may be off
ASPECT = 0.02  # by which the proportions of a mask and its picture may differ, beside one pixel
BLACK_AND_WHITE = 0x000000, 0xFFFFFF  # of which one is background where no other colour is said to be

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MaskColours:
    """What colours of a mask, 0xRRGGBB, stand for, where that is said.

    defects:    those of what is defective
    background: those of what is not
    """

    defects: tuple[int, ...]
    background: tuple[int, ...] = ()


def find_defects(image: Image.Image) -> Bools:
    """Which pixels of a mask, opened with Pillow, are defective, (H, W): all but the background.

    That is 0, black or transparent; of a palette the index 0 where that is black or where nothing is; where all that
    is not transparent is black, what is transparent alone; in a lossy file also what has less than a quarter of the
    highest value.
    Raises `DataError` where all of the border is defective, as it is in an inverted mask.
    """
    if kind_of(image) != EIGHT:
        deep = DeepImage.of(image)
        marked = np.nan_to_num(deep.values).any(axis=2)
        defective: Any = marked if deep.alpha is None else marked & (deep.alpha > 0)
    else:
        image.load()
        plain = image.convert("RGB") if image.mode in ("LAB", "CMYK") else image
        colours = np.asarray(plain.convert("RGBA"))
        alpha, values = colours[..., 3], colours[..., :3].max(axis=2) * (colours[..., 3] > 0)
        values = values if values.any() or alpha.all() else alpha
        defective = values > (TRACES * float(values.max()) if image.format in LOSSY else 0)
        if image.mode == "P" and (not any((image.getpalette("RGB") or [0])[:3]) or defective.all()):
            defective = np.asarray(image) > 0
    if all(edge.all() for edge in (defective[0], defective[-1], defective[:, 0], defective[:, -1])):
        raise DataError("is a mask with all of its border marked; the background is 0, or black: is it inverted?")
    return np.asarray(defective, np.bool_)


def find_named(image: Image.Image, colours: MaskColours) -> Bools:
    """The same of a mask whose colours are said to stand for something: what has that of a defect is defective.

    All the rest is transparent, or of one colour: that of the background, else black or white.
    Raises `DataError` where it has a colour of which nothing is said.
    """
    packed = np.ascontiguousarray(image.convert("RGBA")).view("<u4")[..., 0]  # 0xAABBGGRR
    seen, visible = (packed & 0xFF) << 16 | packed & 0xFF00 | packed >> 16 & 0xFF, packed >> 24 > 0
    defective = np.isin(seen, colours.defects) & visible
    rest = np.unique(seen[~defective & visible]).tolist()
    if unknown := [each for each in rest if each not in (*colours.background, *BLACK_AND_WHITE)] or rest[1:]:
        raise DataError(f"has pixels of #{unknown[0]:06x}, which is said to be neither a defect nor background")
    return np.asarray(defective, np.bool_)


def cover(defective: Bools, seen: tuple[float, float, float, float], size: tuple[int, int]) -> Bools:
    """The part `seen` (left, top, right, bottom) of a mask at another size (width, height), (height, width).

    A pixel is defective if any of those it covers is; where the mask is made larger, if the one in its middle is.
    """
    left, top, right, bottom = seen
    first_row, last_row = _covered(top, bottom, size[1], len(defective))
    first, last = _covered(left, right, size[0], defective.shape[1])
    sums = np.zeros((defective.shape[0] + 1, defective.shape[1] + 1), np.int64)  # of all above and to the left
    sums[1:, 1:] = defective.cumsum(axis=0).cumsum(axis=1)
    across = sums[:, last] - sums[:, first]
    return np.asarray(across[last_row] > across[first_row], np.bool_)


def check_size(mask: tuple[int, int], picture: tuple[int, int]) -> str | None:
    """What is wrong with a mask of another size (width, height) than its picture; nothing if proportions agree."""
    short, long = sorted((mask[0] * picture[1], mask[1] * picture[0]))
    one_pixel = 1 + 1 / max(1, min(*mask, *picture))
    if long <= short * max(one_pixel, 1 + ASPECT):
        return None
    return f"is a mask of {mask[0]}×{mask[1]} pixels, and its picture has {picture[0]}×{picture[1]}"


def _covered(start: float, end: float, count: int, limit: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The first pixel, and the one after the last, under each of `count` cells from `start` to `end`."""
    edges = start + (end - start) * np.arange(count + 1) / count
    if end - start < count:
        first = np.floor((edges[:-1] + edges[1:]) / 2).astype(np.int64).clip(0, limit - 1)
        return first, first + 1
    first = np.floor(edges[:-1] + NEARLY).astype(np.int64).clip(0, limit - 1)
    return first, np.maximum(np.ceil(edges[1:] - NEARLY).astype(np.int64).clip(0, limit), first + 1)
