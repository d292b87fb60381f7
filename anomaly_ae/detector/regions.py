"""Where an image is anomalous: the connected parts of its anomaly map that lie above the map's level."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ae.errors import DataDamaged, one_line
from anomaly_ae.images.decode import Fitted, Target, place_in_whole
from anomaly_ae.images.masks import cover

Heat = npt.NDArray[np.float32]
Size = tuple[int, int]  # width, height, of a picture
Box = tuple[float, float, float, float]  # left, top, width, height, in shares of a picture
MOST_REGIONS = 20  # of an image
NONE_FOUND = "[]"  # as JSON
SHARE_DIGITS = 6  # of a share


@dataclass(frozen=True)
class Region:
    """A connected part of an anomaly map above its level, in shares of the whole picture.

    Attributes:
        box: around it: left, top, width and height
        area: in (0, 1]
        peak: the highest value of the map in it
        p: how often the map of a normal image peaks at least so high: (1 + c) / (n + 1), for the c of n calibration
            images of which it does
        more: how many regions of the image, with lower peaks, are left out after this one, its last; 0 elsewhere

    Examples:
        >>> import anomaly_ae
        >>> from sklearn.datasets import load_digits
        >>> images = load_digits().images[3:5, None] / 16  # a 3 and a 4
        >>> regions = anomaly_ae.load("latest").regions(images)  # of a detector of 0, 1 and 2
        >>> regions[1][0]  # of the second image the region with the highest peak
        Region(box=(...), area=..., peak=..., p=..., more=0)
    """

    box: Box
    area: float
    peak: float
    p: float
    more: int = 0


@dataclass(frozen=True, eq=False)
class RegionFinder:
    """Finds regions in the anomaly maps of a detector.

    level:  of the map
    peaks:  the highest values of the maps of n calibration images, float32 (n,), ascending
    target: what pictures were made that the detector saw
    """

    level: float
    peaks: Heat
    target: Target

    def find(self, maps: Heat, sizes: Sequence[Size]) -> list[list[Region]]:
        """The regions of each map, (N, H, W), the highest peak first, `MOST_REGIONS` at the most; sizes: of the
        pictures. A map that is nowhere above the level costs no more than its maximum.
        """
        above = maps.max(axis=(1, 2), initial=-np.inf) > self.level
        return [
            list(self._in_map(heat, size)) if odd else []
            for heat, size, odd in zip(maps, sizes, above.tolist(), strict=True)
        ]

    def _in_map(self, heat: Heat, size: Size) -> Iterator[Region]:
        """Those of one map, (H, W). Pixels that touch at a corner are connected; what the resize mode added around
        the picture is no part of it, nor is what is not looked at.
        """
        from scipy.ndimage import find_objects, label, maximum  # here, for it takes a while to load

        placed = place_in_whole(size, self.target)
        left, top, width, height = placed.at
        seen = heat[top : top + height, left : left + width]
        above = seen > self.level
        if self.target.roi:
            above &= cover(self.target.roi.mask(size), placed.seen, (width, height))
        parts, count = label(above, np.ones((3, 3)))
        peaks = np.asarray(maximum(seen, parts, np.arange(1, count + 1)), np.float32)
        pixels, slices = np.bincount(parts.ravel()), find_objects(parts)
        highest = np.argsort(-peaks, kind="stable")[:MOST_REGIONS]
        for i in highest.tolist():
            more = count - len(highest) if i == highest[-1] else 0
            box, area = _shares(slices[i], int(pixels[i + 1]), placed, size)
            at_least = len(self.peaks) - int(np.searchsorted(self.peaks, peaks[i]))
            p = (1 + at_least) / (len(self.peaks) + 1)
            yield Region(box, area, float(str(peaks[i])), p, more)


def _shares(part: tuple[slice, slice], pixels: int, placed: Fitted, size: Size) -> tuple[Box, float]:
    """Box and area, in shares of a picture, of a part of what is seen of it."""
    rows, columns = part
    left, top, right, bottom = placed.seen
    across = (right - left) / placed.at[2] / size[0]  # of the picture, by pixel of the map
    down = (bottom - top) / placed.at[3] / size[1]
    x, y = left / size[0] + columns.start * across, top / size[1] + rows.start * down
    width, height = (columns.stop - columns.start) * across, (rows.stop - rows.start) * down
    short = [float(f"{share:.{SHARE_DIGITS}g}") for share in (x, y, width, height, pixels * across * down)]
    return (short[0], short[1], short[2], short[3]), short[4]


def regions_text(regions: Sequence[Region]) -> str:
    """Regions as a JSON list of objects: box, area, peak, p, and of the last one `more`, if there are."""
    shown = [{name: value for name, value in asdict(region).items() if name != "more" or value} for region in regions]
    return json.dumps(shown) if shown else NONE_FOUND


def read_regions(text: str | None) -> list[Region]:
    """What `regions_text` wrote; none where there is no text. Raises `DataDamaged`."""
    try:
        return [_read_region(each) for each in json.loads(text or NONE_FOUND)]
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataDamaged(f"regions cannot be read ({one_line(error)}); score the folder again") from error


def _read_region(about: dict[str, Any]) -> Region:
    x, y, width, height = map(float, about.pop("box"))
    return Region((x, y, width, height), **about)
