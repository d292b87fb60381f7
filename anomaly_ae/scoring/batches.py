"""Files as batches for a detector: fixed by position in the list, whoever decodes them and in whatever order."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly_ae.autoencoders.inference import batch_size, padded_count
from anomaly_ae.detector.detector import Detector
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.decode_worker import Records
from anomaly_ae.images.sources import Listing
from anomaly_ae.runtime.progress import display

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some files that lie in one batch of the network.

    positions: in the listing, (M,), ascending
    records:   what became of each when it was decoded, (M,)
    images:    uint8 (B, C, H, W), a whole batch, each at its place in it, zeros elsewhere
    batch_slots: of the M files in the batch
    """

    positions: Positions
    records: Records
    images: Tensor
    batch_slots: Positions

    @property
    def good(self) -> npt.NDArray[np.bool_]:
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
        batch_slots = part % size
        whole = padded_count(int(batch_slots[-1]) + 1, *detector.preprocessing.shape[1:]) if few else size
        images = np.zeros((whole, *detector.preprocessing.shape), np.uint8)
        images[batch_slots] = records["pixels"]
        yield Batch(part, records, torch.from_numpy(images), batch_slots)


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
