"""The region of interest: the parts of pictures that are looked at. Needs NumPy and Pillow alone, like `decode`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ae.config.boxes import are_boxes
from anomaly_ae.errors import UsageError
from anomaly_ae.storage.schema import Matching, Share

Mask = npt.NDArray[np.bool_]
Edges = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
Box = tuple[Share, Share, Share, Share]  # left, top, width, height, in shares of a picture

MASKS_KEPT = 4  # of so many sizes of pictures
MOST_BOXES = 10_000  # that the white of a mask is made up of


Boxes = Annotated[
    tuple[Box, ...], Matching("boxes of some size in shares of a picture, from 0 to 1, and within it", are_boxes)
]


@dataclass(frozen=True)
class RegionOfInterest:
    """The parts of pictures that are looked at, as boxes in shares of the picture as it is seen. What lies beyond all
    of them is cut off, and what lies between them is black, before anything else is done with the pixels.

    Edges are those of the nearest pixel, so that boxes that adjoin in shares do in pixels, and a mask is met to the
    pixel in pictures of its own size.
    """

    boxes: Boxes

    @classmethod
    def of_mask(cls, mask: Mask) -> "RegionOfInterest":
        """Where a mask (H, W) is true, which is somewhere. Raises `UsageError` where that needs too many boxes."""
        boxes = list(islice(_boxes_of(mask), MOST_BOXES + 1))
        if len(boxes) > MOST_BOXES:
            raise UsageError(
                f"its white is made up of so many boxes that they are too many; the most are {MOST_BOXES:,}; smooth "
                "its edges, or make it smaller"
            )
        height, width = mask.shape
        return cls(tuple((x / width, y / height, w / width, h / height) for x, y, w, h in boxes))

    @property
    def area(self) -> float:
        """The share of a picture that it is."""
        return float(self.mask((1000, 1000)).mean())

    def bounds(self, size: tuple[int, int]) -> Edges:
        """The box around all of it in a picture of `size`, (width, height): a pixel at the least."""
        left, top, right, bottom = self._extent
        x, y = min(_nearest(left, size[0]), size[0] - 1), min(_nearest(top, size[1]), size[1] - 1)
        return x, y, max(_nearest(right, size[0]), x + 1), max(_nearest(bottom, size[1]), y + 1)

    def part_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the box around all of it in a picture of `size`, height and width."""
        left, top, right, bottom = self.bounds(size[::-1])
        return bottom - top, right - left

    def mask(self, size: tuple[int, int]) -> Mask:
        """Which pixels of a picture of `size`, (width, height), belong to it, (H, W), one at the least; not to be
        written to.
        """
        if size not in self._masks:
            if len(self._masks) == MASKS_KEPT:
                self._masks.clear()
            self._masks[size] = self._drawn(size)
        return self._masks[size]

    def crop(self, planes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Mask]:
        """The box around all of it of pictures (..., H, W), and which of its pixels are looked at."""
        height, width = planes.shape[-2:]
        left, top, right, bottom = self.bounds((width, height))
        return planes[..., top:bottom, left:right], self.mask((width, height))[top:bottom, left:right]

    def cut(self, planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What is looked at of pictures (..., H, W), 0 where nothing is."""
        part, inside = self.crop(planes)
        return part if inside.all() else np.where(inside, part, np.zeros((), planes.dtype))

    def cut_image(self, image: Image.Image) -> Image.Image:
        """The same of an image of Pillow, gray or RGB."""
        edges = self.bounds(image.size)
        left, top, right, bottom = edges
        inside, part = self.mask(image.size)[top:bottom, left:right], image.crop(edges)
        if inside.all():
            return part
        black = Image.new(part.mode, part.size)
        black.paste(part, mask=Image.fromarray(inside))
        return black

    @cached_property
    def _extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of all of it, in shares."""
        left, top = (min(box[axis] for box in self.boxes) for axis in (0, 1))
        right, bottom = (max(box[axis] + box[axis + 2] for box in self.boxes) for axis in (0, 1))
        return left, top, right, bottom

    @cached_property
    def _masks(self) -> dict[tuple[int, int], Mask]:
        """Those of the sizes that were asked for last."""
        return {}

    def _drawn(self, size: tuple[int, int]) -> Mask:
        mask = np.zeros(size[::-1], np.bool_)
        for x, y, width, height in self.boxes:
            rows = slice(_nearest(y, size[1]), _nearest(y + height, size[1]))
            mask[rows, _nearest(x, size[0]) : _nearest(x + width, size[0])] = True
        if not mask.any():  # of a picture that is too small for it
            left, top, *_ = self.bounds(size)
            mask[top, left] = True
        mask.flags.writeable = False
        return mask


def _boxes_of(mask: Mask) -> Iterator[Edges]:
    """Boxes (x, y, w, h) that make up what is true of a mask (H, W), and do not overlap: runs of rows, together as
    long as the rows below have the same ones.
    """
    begun: dict[tuple[int, int], int] = {}  # the row in which a run began, by its ends
    for y, row in enumerate([*mask, np.zeros(mask.shape[1], np.bool_)]):
        ends = np.flatnonzero(np.diff(row, prepend=False, append=False)).reshape(-1, 2)
        runs = {(int(start), int(stop)) for start, stop in ends}
        for start, stop in [each for each in begun if each not in runs]:
            top = begun.pop((start, stop))
            yield start, top, stop - start, y - top
        begun |= {run: y for run in runs if run not in begun}


def _nearest(share: float, pixels: int) -> int:
    """The edge between pixels that is nearest to a share of them; of two the later, however the share is rounded."""
    return math.floor(round(share * pixels, 6) + 0.5)
