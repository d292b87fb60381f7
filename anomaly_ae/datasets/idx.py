"""Reading IDX files, packed with gzip or not, as the MNIST family is published.

Format: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit number, then the values (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.errors import DataDamaged, StorageError

UNSIGNED_BYTE = 8
GZIP_MOST = 1032  # deflate never packs tighter than 1032 to 1


def find_idx(folder: Path, name: str) -> Path | None:
    """The file `name` in `folder`, unpacked or else with `.gz`; None if neither is there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of unsigned bytes as a uint8 tensor of its own shape.

    Raises `DataDamaged` when the header is not that of such a file with `dimensions` dimensions or the
    values are fewer or more than it says, `StorageError` when it cannot be read.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        most = path.stat().st_size * (GZIP_MOST if path.suffix == ".gz" else 1)
        with opened(path, "rb") as file:
            shape = _read_header(file, path, dimensions, most)  # type: ignore[arg-type]
            values = bytearray(file.read(math.prod(shape)))
            surplus = file.read(1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataDamaged(f"{path} is cut short or damaged ({error}); get it again") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; it must be a readable file") from error
    if len(values) != math.prod(shape) or surplus:
        found = "more" if surplus else f"{len(values):,}"
        raise DataDamaged(f"{path} should hold {math.prod(shape):,} values and holds {found}; get it again")
    return torch.from_numpy(np.frombuffer(values, np.uint8).reshape(shape))


def _read_header(file: BinaryIO, path: Path, dimensions: int, most: int) -> tuple[int, ...]:
    """The shape the header names, refused before anything of that size is allocated if it cannot be."""
    header = file.read(4 + 4 * dimensions)
    if header[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]) or len(header) < 4 + 4 * dimensions:
        raise DataDamaged(f"{path} is no IDX file of {dimensions} dimensions; get it again")
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", header[4:])
    if not 0 < math.prod(shape) <= most:
        raise DataDamaged(f"{path} says it holds {shape} values, which its size rules out; get it again")
    return shape
