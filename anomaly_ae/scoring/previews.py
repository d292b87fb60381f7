"""A second look at some files of a source: as people see them, rebuilt, and with the place that is odd."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anomaly_ae.autoencoders.inference import batch_size
from anomaly_ae.detector.detector import Detector
from anomaly_ae.images.decode import INSIDE, Pixels, Target, put_back, size_inside
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.decode_worker import Records
from anomaly_ae.images.sources import Listing, Source
from anomaly_ae.scoring.batches import Positions

Heat = npt.NDArray[np.float32]
AT_A_TIME = 16  # pictures, so that they do not fill the memory


@dataclass(frozen=True, eq=False)
class Preview:
    """One file: its position in the list; the picture in colour, uint8 (H', W', 3); its reconstruction in [0, 1],
    float32 (C, H, W); and its heat map over the picture, float32 (H', W'), or None where the scorer has none.
    """

    position: int
    picture: Pixels
    rebuilt: npt.NDArray[np.float32]
    heat: Heat | None


def load_previews(
    detector: Detector, source: Source, listing: Listing, positions: Positions, side: int, workers: int | None = None
) -> Iterator[Preview]:
    """Looks at the files at some positions, pictures at most `side` pixels high and wide; files that are gone or
    damaged by now are left out.
    """
    parts = _split(positions, batch_size(*detector.preprocessing.shape[1:]))
    with (
        detector.preprocessing.decoders(source, workers) as small,
        Decoders(source, Target((3, side, side), INSIDE, detector.preprocessing.intensity), workers) as large,
    ):
        views = _one_by_one(large.map(map(listing.at, _split(positions, AT_A_TIME))))
        for part, records in zip(parts, small.map(map(listing.at, parts)), strict=True):
            images = torch.from_numpy(records["pixels"].copy())
            maps, rebuilt = detector.anomaly_map(images), detector.reconstruct(images).numpy()
            heat = [None] * len(part) if maps is None else list(maps.numpy())
            for i, position in enumerate(part.tolist()):
                view = next(views)
                if not records[i]["error"] and not view["error"]:
                    picture = _crop(view, side)
                    yield Preview(
                        position, picture, rebuilt[i], _over(picture, heat[i], detector.preprocessing.resize_mode)
                    )


def _over(picture: Pixels, heat: Heat | None, resize_mode: str) -> Heat | None:
    return None if heat is None else put_back(heat, picture.shape[0], picture.shape[1], resize_mode)


def _split(positions: Positions, size: int) -> list[Positions]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def _one_by_one(chunks: Iterator[Records]) -> Iterator[Any]:
    for records in chunks:
        yield from records


def _crop(view: Any, side: int) -> Pixels:
    """The picture in a record, (H', W', 3), without what it does not fill."""
    width, height = size_inside((int(view["width"]), int(view["height"])), (side, side))
    pixels: Pixels = view["pixels"][:, :height, :width].transpose(1, 2, 0)
    return pixels
