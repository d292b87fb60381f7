"""The rows that scoring makes: one a file, a score or an error; of batches that are fixed by position in the list,
whoever decodes them and in whatever order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly_ae.autoencoders.inference import batch_size
from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.regions import regions_text
from anomaly_ae.escaping import shown, times
from anomaly_ae.images.decode import further_words
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.decode_worker import Records
from anomaly_ae.images.intensity import intensity_differences
from anomaly_ae.images.listing import Listing, Source
from anomaly_ae.images.preprocessing import Preprocessed
from anomaly_ae.images.sources import open_source
from anomaly_ae.images.statistics import brightness_contrast, is_gray, size_difference
from anomaly_ae.runtime.progress import display
from anomaly_ae.scoring.row_paths import bytes_beside

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Bools = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]  # in a listing

# In place of a file's size, where no size is: not looked at yet; not to be had, so that another try may go better.
UNSCORED, UNREAD = -2, -3

# What is known of a file before any threshold; one that could not be scored has no score, size or shape.
RESULT = np.dtype(
    [
        ("bytes", "<i8"),  # size and time of the file when it was scored, as in its listing; or one of the above
        ("time", "<i8"),
        ("score", "<f4"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("brightness", "<f4"),  # by which it is told whether a folder looks unlike the training altogether
        ("contrast", "<f4"),
        ("gray", "<i4"),  # whether it has no colour, where the detector sees in colour
        ("kind", "<i4"),  # of its values, and the share of them beyond black and white
        ("clipped", "<f4"),
        ("further", "<i4"),  # whether there are further pages or frames
        ("error", "O"),  # str, or None
        ("regions", "O"),  # as `regions_text` has them, or None without a score or a map
    ]
)
Results = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some files that lie in one batch of the network.

    positions: in the listing, (M,), ascending
    records:   what became of each when it was decoded, (M,)
    images:    uint8 (B, C, H, W), each at its place in the batch, zeros elsewhere; whole, or up to the last file
    slots:     of the M files in the batch
    """

    positions: Positions
    records: Records
    images: Tensor
    slots: Positions

    @property
    def good(self) -> Bools:
        """Which files could be decoded, (M,)."""
        return np.asarray(self.records["error"] == b"", np.bool_)


def read_batches(
    decoders: Decoders, detector: Detector, listing: Listing, wanted: Positions | None = None, *, few: bool = False
) -> Iterator[Batch]:
    """The files at `wanted` positions, ascending, all by default, as batches in the order of the list.

    few: whether the list is all there is, so that the last batch may be smaller, and not a folder, whose rows are the
    same bit for bit however many come after them
    """
    size = batch_size(*detector.preprocessing.shape[1:])
    wanted = np.arange(len(listing)) if wanted is None else wanted
    parts = split_by_batch(wanted, size)
    for part, records in zip(parts, decoders.map(map(listing.at, parts)), strict=True):
        slots = part % size
        images = np.zeros((int(slots[-1]) + 1 if few else size, *detector.preprocessing.shape), np.uint8)
        images[slots] = records["pixels"]
        yield Batch(part, records, torch.from_numpy(images), slots)


def with_progress(batches: Iterator[Batch], files: int, done: int = 0) -> Iterator[Batch]:
    """The batches of so many files, with a display of how many are done when the next one is asked for."""
    with display(files, done) as progress:
        for batch in batches:
            yield batch
            done += len(batch.positions)
            state = f"{done:,} of {files:,} files"
            progress.advance(len(batch.positions), state)
            progress.line(state, last=done == files)


def split_by_batch(positions: Positions, size: int) -> list[Positions]:
    """Ascending positions in parts, each within `size` of them that begin at a multiple of it."""
    return np.split(positions, np.flatnonzero(np.diff(positions // size)) + 1) if len(positions) else []


def score_batch(detector: Detector, listing: Listing, batch: Batch) -> Results:
    """What becomes of the files of a batch, (M,)."""
    results = np.zeros(len(batch.positions), RESULT)
    results["bytes"] = np.where(batch.records["missing"], UNREAD, listing.sizes[batch.positions])
    results["time"] = listing.times[batch.positions]
    all_scores, maps = detector.score_and_map(Preprocessed(batch.images))
    scores = all_scores.numpy()[batch.slots]
    good = batch.good & np.isfinite(scores)
    results["score"] = np.where(good, scores, np.nan)
    for name in ("width", "height", "kind", "clipped", "further"):
        results[name] = batch.records[name]
    results["brightness"], results["contrast"] = (
        values[batch.slots].numpy() for values in brightness_contrast(batch.images)
    )
    results["gray"] = is_gray(batch.images)[batch.slots].numpy()
    results["error"] = [error.decode() or None for error in batch.records["error"]]
    results["error"][batch.good & ~good] = "its score is no finite number"
    results["regions"] = None
    if maps is not None and (finder := detector.region_finder):
        sizes = list(zip(*(results[name][good].tolist() for name in ("width", "height")), strict=True))
        found = finder.find(maps.numpy()[batch.slots[good]], sizes)
        results["regions"][good] = [regions_text(regions) for regions in found]
    return results


def find_differences(detector: Detector, results: Results) -> list[str]:
    """How images look unlike those of the training altogether, in words; of their sizes the middle one is told. And
    how many files hold more than what was scored.
    """
    good = results[is_scored(results)]
    if not len(good):
        return []
    preprocessing = detector.preprocessing
    size = preprocessing.part_size(_middle_size(good))
    stretched = size_difference(size, preprocessing.shape[1:], preprocessing.resize_mode)
    brightness, contrast = (torch.tensor(good[name]) for name in ("brightness", "contrast"))
    return [
        *([stretched] if stretched else []),
        *intensity_differences(preprocessing.intensity, good["kind"], good["clipped"]),
        *detector.profile.compare(brightness, contrast),
        *detector.without_colour(torch.tensor(good["gray"] > 0)),
        *further_words(int(good["further"].sum())),
    ]


def seen_words(detector: Detector, results: Results) -> str | None:
    """At what size, and whether in gray, the detector sees images, and what size they have; None without any."""
    good = results[is_scored(results)]
    if not len(good):
        return None
    channels, *seen = detector.preprocessing.shape
    median = " at the median" if len(np.unique(good[["height", "width"]])) > 1 else ""
    images = f"the {'image has' if len(good) == 1 else 'images have'} {times(_middle_size(good))}{median}"
    return f"{times(seen)} {'in gray' if channels == 1 else 'in colour'}; {images}"


def _middle_size(good: Results) -> tuple[int, int]:
    """Height and width of the image that is in the middle by its size, of one at the least."""
    middle = np.argsort(good["height"].astype(np.int64) * good["width"], kind="stable")[len(good) // 2]
    return int(good["height"][middle]), int(good["width"][middle])


def is_scored(results: Results) -> Bools:
    """Which of them have a score."""
    return np.isfinite(np.asarray(results["score"], np.float32))


def make_table(
    paths: list[bytes], results: Results, calibration: Calibration, discovered: Bools | None = None
) -> "pa.Table":
    """The rows as users get them."""
    import pyarrow as pa

    none = ~is_scored(results)
    scores, p_values = results["score"], np.zeros(len(results))
    p_values[~none] = calibration.p_values(torch.tensor(scores[~none])).numpy()
    columns = {
        "path": pa.array(map(shown, paths), pa.string()),
        "score": pa.array(scores, mask=none),
        "p_value": pa.array(p_values, mask=none),
        "threshold": pa.array(np.full(len(scores), calibration.threshold, np.float32), mask=none),
        "is_anomaly": pa.array(scores > calibration.threshold, mask=none),
    }
    if discovered is not None:
        columns["is_discovery"] = pa.array(discovered, mask=none)
    columns["width"], columns["height"] = (pa.array(results[name], mask=none) for name in ("width", "height"))
    columns["error"] = pa.array(results["error"], pa.string())
    columns["regions"] = pa.array(results["regions"], pa.string())
    columns["path_bytes"] = pa.array(map(bytes_beside, paths), pa.binary())
    return pa.table(columns)


@dataclass(frozen=True, eq=False, repr=False)
class FolderScores:
    """The images of a source as a detector scores them, anew each time they are asked for; `len` says how many.

    Examples:
        >>> import anomaly_ae
        >>> detector = anomaly_ae.load("latest")
        >>> rows = anomaly_ae.score_folder(detector, "pictures")
        >>> rows
        FolderScores(10 images of .../pictures)
        >>> rows.to_pandas().columns.to_list()
        ['path', 'score', 'p_value', 'threshold', 'is_anomaly', 'width', 'height', 'error', 'regions', 'path_bytes']
    """

    detector: Detector
    source: Source
    listing: Listing
    workers: int | None = None

    def __len__(self) -> int:
        return len(self.listing)

    def __repr__(self) -> str:
        return f"FolderScores({len(self):,} images of {self.source.name})"

    def __iter__(self) -> "Iterator[dict[str, Any]]":
        """Rows as dictionaries: path, score, p_value, threshold, is_anomaly, width, height, error, regions (a JSON
        text), path_bytes. Where there is an error, the rest but the path is None.
        """
        for table in self.tables():
            yield from table.to_pylist()

    def to_pandas(self) -> "pd.DataFrame":
        """All rows as a frame with nullable columns."""
        import pandas as pd
        import pyarrow as pa

        types = {
            pa.string(): pd.StringDtype(),
            pa.float32(): pd.Float32Dtype(),
            pa.float64(): pd.Float64Dtype(),
            pa.bool_(): pd.BooleanDtype(),
            pa.int32(): pd.Int32Dtype(),
        }
        frame: pd.DataFrame = pa.concat_tables(self.tables()).to_pandas(types_mapper=types.get)
        return frame

    def tables(self) -> "Iterator[pa.Table]":
        """A table for each batch."""
        with self.detector.preprocessing.decoders(self.source, self.workers) as decoders:
            for batch in read_batches(decoders, self.detector, self.listing):
                results = score_batch(self.detector, self.listing, batch)
                yield make_table(self.listing.at(batch.positions)[0], results, self.detector.calibration)


def score_folder(detector: Detector, place: str | Path, *, workers: int | None = None) -> FolderScores:
    """Score the images of a folder, a text file of paths, or an address: rows to iterate over, or a pandas frame.

    Args:
        detector: what scores them
        place: the folder, file or address
        workers: processes that decode, by default one for each core

    Raises:
        DataMissing: there is no image

    Examples:
        >>> import anomaly_ae
        >>> detector = anomaly_ae.load("latest")
        >>> for row in anomaly_ae.score_folder(detector, "pictures"):
        ...     print(row["path"], row["is_anomaly"])
        0.png False
        1.png False
        2.png False
        3.png True
        ...
    """
    source = open_source(place)
    return FolderScores(detector, source, source.pictures(), workers)
