"""The latents of image files, and the scores of a folder of normal or of anomalous ones."""

import itertools
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.datasets.layout_texts import say_left_out_of
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DataError, UsageError
from anomaly_ae.escaping import counted, shown
from anomaly_ae.images.listing import Listing, Source
from anomaly_ae.images.preprocessing import Preprocessed
from anomaly_ae.images.sources import open_source
from anomaly_ae.runtime.messages import report_skipped
from anomaly_ae.scoring.rows import (
    Batch,
    Results,
    find_differences,
    is_scored,
    read_batches,
    score_batch,
    with_progress,
)
from anomaly_ae.scoring.scoring_results import Encoded
from anomaly_ae.scoring.writers import PARQUET_ENDINGS, ParquetWriter
from anomaly_ae.storage.atomic import expand, write_with
from anomaly_ae.storage.memmap import room_for, take_rows

if TYPE_CHECKING:
    import pyarrow as pa


def encode_folder(detector: Detector, place: str | Path, output: Path) -> Encoded:
    """Write the latents of all images of a source as Parquet: `path` (within it), `error`, `latent_0` and so on.

    A file that cannot be read is a row with an error and no latent. The output is written whole or not at all.
    Raises `DataMissing` when there is no image, `DataError` when not one can be read.
    """
    output = expand(output)
    check_latents_file(output)
    source = open_source(place)
    listing, errors = source.pictures(), list[str]()
    say_left_out_of(listing)

    def write(temporary: Path) -> None:
        with detector.preprocessing.decoders(source) as decoders, closing(ParquetWriter(temporary)) as writer:
            for batch in with_progress(read_batches(decoders, detector, listing), len(listing)):
                writer.write(_latents(detector, listing, batch))
                errors.extend(_errors(listing, batch))
        _require_one(listing, errors, source.name)

    write_with(output, write)
    return Encoded(len(listing), len(errors), detector.network.latent_size, str(output))


def check_latents_file(output: Path) -> None:
    """Raise `UsageError` when the output is not called as Parquet files are, or is a folder."""
    if output.suffix.lower() not in PARQUET_ENDINGS or output.is_dir():
        raise UsageError(
            f"latents are written as Parquet, and {output} was named; name a file, as in latents.parquet"
        )


@dataclass(frozen=True)
class Scored:
    """What the images of a source score, float32 (N,), the images, uint8 (N, C, H, W), and their names; files that
    could not be read, with the reason; and how the images look unlike those of the training.
    """

    scores: Tensor
    images: Tensor
    names: tuple[bytes, ...]
    errors: list[str]
    differences: list[str]


def score_images(detector: Detector, source: Source, listing: Listing) -> Scored:
    """Score some images that a source lists; files that cannot be read are left out and said.

    Raises `DataError` when not one can be read.
    """
    parts, errors = list[Results](), list[str]()
    images = room_for((len(listing), *detector.preprocessing.shape))
    with detector.preprocessing.decoders(source) as decoders:
        for batch in with_progress(read_batches(decoders, detector, listing), len(listing)):
            parts.append(score_batch(detector, listing, batch))
            images[batch.positions] = batch.images[batch.slots]
            errors += _errors(listing, batch)
    _require_one(listing, errors, source.name)
    report_skipped(errors)
    results = np.concatenate(parts)
    scored = is_scored(results)
    images = take_rows(images, torch.from_numpy(scored.nonzero()[0]))
    names = tuple(itertools.compress(listing.paths, scored))
    return Scored(torch.tensor(results["score"][scored]), images, names, errors, find_differences(detector, results))


def _errors(listing: Listing, batch: Batch) -> list[str]:
    """The files of a batch that could not be read, each with the reason."""
    bad = ~batch.good
    pairs = zip(batch.positions[bad], batch.records["error"][bad], strict=True)
    return [f"{shown(listing.paths[i])}: {error.decode()}" for i, error in pairs]


def _require_one(listing: Listing, errors: list[str], name: str) -> None:
    if len(errors) == len(listing):
        raise DataError(f"not one of {counted(len(listing), 'file')} in {name} can be read; the first {errors[0]}")


def _latents(detector: Detector, listing: Listing, batch: Batch) -> "pa.Table":
    import pyarrow as pa

    bad = ~batch.good
    latents = detector.encode(Preprocessed(batch.images)).numpy()[batch.slots]  # (M, D)
    names = [shown(listing.paths[i]) for i in batch.positions]
    errors = [error.decode() or None for error in batch.records["error"]]
    columns = {f"latent_{i}": pa.array(column, mask=bad) for i, column in enumerate(np.ascontiguousarray(latents.T))}
    return pa.table({"path": pa.array(names, pa.string()), "error": pa.array(errors, pa.string())} | columns)
