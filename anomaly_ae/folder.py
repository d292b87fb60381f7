"""A detector at work on a folder of image files."""

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.data.files import find_images, image_sizes, read_image
from anomaly_ae.data.profile import size_difference
from anomaly_ae.detector import Detector
from anomaly_ae.errors import DataError, UsageError, one_line
from anomaly_ae.files import write_with
from anomaly_ae.progress import Display, display, say

if TYPE_CHECKING:
    import pyarrow as pa

SHARD = 512  # files read at a time
READERS = 8  # threads that read them
SAID = 5  # files that cannot be read, by name
LOOKED_AT, LOOKED_INTO = 64, 64  # images of a shard, and shards, to tell whether they look as those of the training


@dataclass(frozen=True)
class Encoded:
    """What became of a folder: images encoded, files that could not be read, and the Parquet file."""

    images: int
    failed: int
    latent_size: int
    output: str


def encode_folder(detector: Detector, folder: Path, output: Path) -> Encoded:
    """Write the latents of all images below a folder as Parquet: `path` (within it), `error`, `latent_0` and so on.

    A file that cannot be read is a row with an error and no latent. The output is written whole or not at all.
    Raises `DataMissing` when there is no image, `DataError` when not one can be read.
    """
    import pyarrow.parquet as pq

    check_output(output)
    paths, errors = find_images(folder), list[str]()

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, _schema(detector)) as writer, display(len(paths)) as shown:
            for table in _tables(detector, folder, paths, shown):
                writer.write_table(table)
                errors.extend(table["error"].drop_null().to_pylist())
        if len(errors) == len(paths):
            raise DataError(f"not one of the {len(paths)} files in {folder} can be read; the first {errors[0]}")

    write_with(output, write)
    return Encoded(len(paths) - len(errors), len(errors), detector.network.latent_size, str(output))


def check_output(output: Path) -> None:
    """Raise `UsageError` when the output is not called as Parquet files are, or is a folder."""
    if output.suffix.lower() not in (".parquet", ".pq") or output.is_dir():
        raise UsageError(
            f"latents are written as Parquet, and {output} was named; name a file, as in latents.parquet"
        )


@dataclass(frozen=True)
class Scored:
    """What the images of a folder score, float32 (N,); files that could not be read, with the reason; and how the
    images look unlike those of the training.
    """

    scores: Tensor
    errors: list[str]
    differences: list[str]


def score_images(detector: Detector, folder: Path) -> Scored:
    """Score all images below a folder; files that cannot be read are left out and said.

    Raises `DataMissing` when there is no image, `DataError` when not one can be read.
    """
    paths, scores, errors, shown_images = find_images(folder), list[Tensor](), list[str](), list[Tensor]()
    with display(len(paths)) as shown:
        for shard in _read_shards(detector, paths):
            scores.append(detector.score(shard.images))
            if len(scores) <= LOOKED_INTO:
                shown_images.append(shard.images[:LOOKED_AT])
            errors += [f"{path}: {error}" for path, error in zip(shard.paths, shard.errors, strict=True) if error]
            shown.advance(len(shard.paths), f"{sum(map(len, scores)):,} of {len(paths):,} files")
    if len(errors) == len(paths):
        raise DataError(f"not one of the {len(paths)} files in {folder} can be read; the first {errors[0]}")
    for error in errors[:SAID]:
        say(f"left out: {error}")
    if len(errors) > SAID:
        say(f"left out: {len(errors) - SAID:,} files more that cannot be read")
    differences = detector.profile.differences(torch.cat(shown_images))
    return Scored(torch.cat(scores), errors, [*_size_difference(detector, paths), *differences])


def _size_difference(detector: Detector, paths: Sequence[Path]) -> list[str]:
    """A word on the size of the files, if it is needed: that of the one in the middle."""
    sizes = sorted(image_sizes(paths[:LOOKED_AT]))
    said = size_difference(sizes[len(sizes) // 2], detector.preprocessing.shape[1:]) if sizes else None
    return [said] if said else []


@dataclass(frozen=True)
class Shard:
    """Some files: the images of those that can be read, uint8 (M, C, H, W), and what is wrong with each, or None."""

    paths: Sequence[Path]
    images: Tensor
    errors: list[str | None]


def _read_shards(detector: Detector, paths: Sequence[Path]) -> Iterator[Shard]:
    """Read files, `SHARD` at a time."""
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(paths), SHARD):
            shard = paths[start : start + SHARD]
            read = list(readers.map(_read, shard, itertools.repeat(detector)))
            good = [image for image in read if isinstance(image, Tensor)]
            images = torch.stack(good) if good else torch.zeros(0, *detector.preprocessing.shape, dtype=torch.uint8)
            yield Shard(shard, images, [None if isinstance(image, Tensor) else image for image in read])


def _tables(detector: Detector, folder: Path, paths: Sequence[Path], shown: Display) -> Iterator["pa.Table"]:
    """A table for each shard of files."""
    import pyarrow as pa

    schema, done = _schema(detector), 0
    for shard in _read_shards(detector, paths):
        good = np.array([error is None for error in shard.errors])
        latents = np.zeros((len(good), detector.network.latent_size), np.float32)
        latents[good] = detector.encode(shard.images).numpy()
        names = [_name(path.relative_to(folder)) for path in shard.paths]
        columns = [pa.array(column, mask=~good) for column in latents.T]
        yield pa.table([names, shard.errors, *columns], schema=schema)
        done += len(good)
        shown.advance(len(good), f"{done:,} of {len(paths):,} files")


def _name(path: Path) -> str:
    """A path as text, also where its bytes are no UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _read(path: Path, detector: Detector) -> Tensor | str:
    """The image, or what is wrong with it."""
    try:
        return read_image(path, detector.preprocessing)
    except DataError as error:
        return one_line(error)


def _schema(detector: Detector) -> "pa.Schema":
    import pyarrow as pa

    latents = [(f"latent_{i}", pa.float32()) for i in range(detector.network.latent_size)]
    return pa.schema([("path", pa.string()), ("error", pa.string()), *latents])
