"""A second look at some files of a source: as people see them, rebuilt, and with the place that is odd."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from anomaly_ae.autoencoders.inference import batch_size
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.regions import Heat, Region, Size
from anomaly_ae.images.decode import INSIDE, Pixels, Target, put_back, size_inside
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.decode_worker import Records
from anomaly_ae.images.listing import Listing, Source
from anomaly_ae.images.preprocessing import Preprocessed
from anomaly_ae.scoring.rows import Bools, Positions

PICTURES_AT_A_TIME = 16  # pictures, so that they do not fill the memory
DIMMED = 3  # times darker is what is not looked at


@dataclass(frozen=True, eq=False)
class Preview:
    """One file, looked at again.

    position: in the list
    picture:  in colour, uint8 (H', W', 3), darker where it is not looked at
    rebuilt:  its reconstruction in [0, 1], float32 (C, H, W)
    heat:     its heat map over the picture, float32 (H', W'), or None where the scorer has none
    size:     width and height of the whole picture
    regions:  the anomalous ones; above: the pixels of the detector that are in such, (H, W), None without a heat map
    """

    position: int
    picture: Pixels
    rebuilt: npt.NDArray[np.float32]
    heat: Heat | None
    size: Size
    regions: list[Region]
    above: Bools | None


def load_previews(
    detector: Detector, source: Source, listing: Listing, positions: Positions, side: int, workers: int | None = None
) -> Iterator[Preview]:
    """Looks at the files at some positions, pictures at most `side` pixels high and wide; files that are gone or
    damaged by now are left out.
    """
    with looking(detector, source, side, workers) as decoders:
        yield from look_at(detector, decoders, listing, positions)


@contextmanager
def looking(
    detector: Detector, source: Source, side: int, workers: int | None = None
) -> Iterator[tuple[Decoders, Decoders]]:
    """Decoders to what the detector sees, and to pictures at most `side` pixels high and wide."""
    with (
        detector.preprocessing.decoders(source, workers) as small,
        picture_decoders(detector, source, side, workers) as large,
    ):
        yield small, large


def picture_decoders(detector: Detector, source: Source, side: int, workers: int | None = None) -> Decoders:
    """Decoders to pictures as people see them, in colour, at most `side` pixels high and wide."""
    return Decoders(source, Target((3, side, side), INSIDE, detector.preprocessing.intensity), workers)


def picture_of(record: Records) -> Pixels:
    """The picture in a record of such decoders, (H', W', 3), without what was added to make it square."""
    size = int(record["width"]), int(record["height"])
    width, height = size_inside(size, record["pixels"].shape[1:])
    picture: Pixels = record["pixels"][:, :height, :width].transpose(1, 2, 0)
    return picture


def look_at(
    detector: Detector, decoders: tuple[Decoders, Decoders], listing: Listing, positions: Positions
) -> Iterator[Preview]:
    """The same as `load_previews`, with decoders that are there already."""
    parts, (small, large) = _split(positions, batch_size(*detector.preprocessing.shape[1:])), decoders
    finder, target = detector.region_finder, detector.preprocessing.target
    views = itertools.chain.from_iterable(large.map(map(listing.at, _split(positions, PICTURES_AT_A_TIME))))
    for part, records in zip(parts, small.map(map(listing.at, parts)), strict=True):
        images = Preprocessed(torch.from_numpy(records["pixels"].copy()))
        maps, rebuilt = detector.anomaly_map(images), detector.reconstruct(images).numpy()
        for i, position in enumerate(part.tolist()):
            view = next(views)
            if records[i]["error"] or view["error"]:
                continue
            size, picture = (int(view["width"]), int(view["height"])), picture_of(view)
            height, width = picture.shape[:2]
            if target.roi:
                looked_at = target.roi.mask((width, height))[..., None]
                picture = np.where(looked_at, picture, picture // DIMMED)
            if maps is None or finder is None:
                yield Preview(position, picture, rebuilt[i], None, size, [], None)
                continue
            heat = maps[i].numpy()
            (regions,), over = finder.find(heat[None], [size]), put_back(heat, (width, height), target)
            yield Preview(position, picture, rebuilt[i], over, size, regions, heat > finder.level)


def _split(positions: Positions, size: int) -> list[Positions]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]
