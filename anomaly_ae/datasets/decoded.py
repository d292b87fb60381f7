"""Pictures decoded once, and kept in memory, or on the disk where they are too many for that."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from anomaly_ae.errors import DataError
from anomaly_ae.images.decode import Pixels, Target
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.decode_worker import Records
from anomaly_ae.images.intensity import Intensity, intensity_differences
from anomaly_ae.images.listing import Integers, Listing, Source
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.runtime.progress import display
from anomaly_ae.storage.atomic import cache_folder, sha256, write_folder, write_json
from anomaly_ae.storage.memmap import fits_in_memory

FILES_AT_ONCE, BYTES_AT_ONCE = 256, 2**22  # files that are decoded together, and their bytes when they are
CACHE_FORMAT = 3  # to be counted up when decoding gives other pixels
PIXELS_FILE, ABOUT_FILE = "pixels.npy", "about.json"


@dataclass(frozen=True, eq=False)
class Decoded:
    """Files as pixels.

    pixels:  uint8 (M, C, H, W), of those that can be read
    errors:  of each file one, or nothing
    notes:   what to say of their brightness
    further: how many have further pages or frames
    passing: whether there is an error that may be gone another time
    """

    pixels: Tensor
    errors: list[str]
    notes: list[str]
    further: int
    passing: bool


def decode_pictures(source: Source, listing: Listing, indices: Integers, preprocessing: Preprocessing) -> Decoded:
    """What a detector sees of the files at some indices of a listing."""
    shape = (len(indices), *preprocessing.shape)
    if fits_in_memory(shape):
        records = decode_files(source, listing, indices, preprocessing.target)
        return _fill(np.zeros(shape, np.uint8), records, preprocessing.intensity)
    # Another file, or one that has changed, gives another key
    names = b"\0".join(listing.paths[i] for i in indices)
    stats = listing.sizes[indices].tobytes(), listing.times[indices].tobytes()
    about = repr((CACHE_FORMAT, PIL.__version__, source.identity, preprocessing))
    folder = cache_folder() / sha256(about.encode("utf-8", "surrogateescape"), names, *stats)
    if (kept := _read_cache(folder)) is None:
        records = decode_files(source, listing, indices, preprocessing.target)
        write_folder(folder, lambda new: _fill_file(new, shape, records, preprocessing.intensity))
        kept = _read_cache(folder, passing=True)
    if kept is None:
        raise DataError(f"what was decoded to {folder} cannot be read again; free space, or set ANOMALY_AE_CACHE")
    return kept


def decode_files(
    source: Source, listing: Listing, indices: Integers, target: Target, what: str = "decoded"
) -> Iterator[Records]:
    """What became of the files at some indices of a listing, with a display where they are many."""
    size = max(1, min(FILES_AT_ONCE, BYTES_AT_ONCE // math.prod(target.shape)))
    parts = np.split(indices, range(size, len(indices), size))
    with Decoders(source, target) as decoders, display(len(indices)) as progress:
        for done, records in enumerate(decoders.map(map(listing.at, parts)), start=1):
            yield records
            progress.advance(len(records), f"{min(done * size, len(indices)):,} pictures {what}")


def _fill(pixels: Pixels, parts: Iterable[Records], intensity: Intensity | None) -> Decoded:
    """Put what could be decoded into pixels (N, C, H, W), the first M of them."""
    count, errors, further, passing = 0, list[str](), 0, False
    kinds, clipped = np.zeros(len(pixels), np.uint8), np.zeros(len(pixels), np.float32)
    for records in parts:
        good = records[records["error"] == b""]
        for kept, name in ((pixels, "pixels"), (kinds, "kind"), (clipped, "clipped")):
            kept[count : count + len(good)] = good[name]
        count += len(good)
        errors += [error.decode() for error in records["error"]]
        further += int(records["further"].sum())
        passing = passing or bool(records["missing"].any())
    notes = intensity_differences(intensity, kinds[:count], clipped[:count])
    return Decoded(torch.from_numpy(pixels[:count]), errors, notes, further, passing)


def _read_cache(folder: Path, passing: bool = False) -> Decoded | None:
    """What `_fill_file` wrote, read from the disk as needed; None if it is not there or damaged.

    passing: whether it is taken, too, if it has errors that may be gone another time
    """
    try:
        about = json.loads((folder / ABOUT_FILE).read_text())
        if about["passing"] and not passing:
            return None
        mapped = np.load(folder / PIXELS_FILE, mmap_mode="c")  # what is changed in memory is not written back
        return Decoded(torch.from_numpy(mapped)[: about["errors"].count("")], **about)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fill_file(folder: Path, shape: tuple[int, ...], parts: Iterable[Records], intensity: Intensity | None) -> None:
    pixels = np.lib.format.open_memmap(folder / PIXELS_FILE, "w+", np.uint8, shape)
    decoded = _fill(pixels, parts, intensity)
    pixels.flush()
    about = {name: getattr(decoded, name) for name in ("errors", "notes", "further", "passing")}
    write_json(folder / ABOUT_FILE, about)
