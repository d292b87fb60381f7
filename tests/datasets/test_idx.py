import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from anomaly_ae.datasets.idx import find_idx, read_idx
from anomaly_ae.errors import DataDamaged, StorageError


def idx_bytes(values: np.ndarray) -> bytes:
    return (
        struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    )


VALUES = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_values_come_back_packed_or_not(tmp_path: Path, packed: bool) -> None:
    content = idx_bytes(VALUES)
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert find_idx(tmp_path, "a") == path
    np.testing.assert_array_equal(read_idx(path, 3).numpy(), VALUES)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("keep", [0, 10, 30])
def test_a_file_cut_short_is_said_to_be(tmp_path: Path, packed: bool, keep: int) -> None:
    content = idx_bytes(VALUES)
    content = (gzip.compress(content) if packed else content)[:keep]
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match="get it again"):
        read_idx(path, 3)


def test_values_beyond_what_the_header_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(idx_bytes(VALUES) + b"x")
    with pytest.raises(DataDamaged, match="holds more"):
        read_idx(tmp_path / "a", 3)


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_a_header_that_claims_terabytes_is_refused_before_any_is_allocated(tmp_path: Path, name: str) -> None:
    content = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 2**10, 2**10) + bytes(100)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(DataDamaged, match="rules out"):
        read_idx(tmp_path / name, 3)


def test_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataDamaged, match="no IDX file"):
        read_idx(tmp_path / "a", 3)
    (tmp_path / "b.gz").write_bytes(b"not gzip")
    with pytest.raises(DataDamaged, match="damaged"):
        read_idx(tmp_path / "b.gz", 3)


def test_a_folder_where_a_file_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="must be a readable file"):
        read_idx(tmp_path, 3)
