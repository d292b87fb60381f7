import dataclasses
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ae.errors import Interrupted, UsageError
from anomaly_ae.images import decode_pool
from anomaly_ae.images.decode import Target
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.decode_worker import record_type, set_error
from anomaly_ae.images.listing import Contents, Integers, Listing, Source
from anomaly_ae.images.sources import open_source
from tests.decoding import decoded_in_processes

TARGET = Target((1, 4, 6))

# A decoder with two flaws of the kind that C code has. When it hangs, the time that it was given is soon over.
FLAWED = """
import os, signal, time
from anomaly_ae.images import decode, decode_worker
whole = decode.decode
def flawed(content, target):
    if b"crash" in content:
        os.abort()
    if b"hang" in content:
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        if 0 < left <= decode_worker.SECONDS:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(60)
        os._exit(1)
    return whole(content, target)
decode_worker.decode = flawed
decode_worker.answer()
"""


@pytest.fixture(autouse=True)
def _processes() -> Iterator[None]:
    with decoded_in_processes():
        yield


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i in range(12):
        Image.fromarray(np.full((4, 6), i, np.uint8)).save(tmp_path / "in" / f"{i:02}.png")
    return tmp_path / "in"


def decoded(folder: Path, size: int = 5, workers: int = 2) -> np.ndarray:
    source = open_source(folder)
    listing = source.list()
    parts = [slice(start, start + size) for start in range(0, len(listing), size)]
    with Decoders(source, TARGET, workers) as processes:
        return np.concatenate(list(processes.map((listing.paths[part], listing.sizes[part]) for part in parts)))


def test_records_come_in_order_with_pixels_and_sizes(pictures: Path) -> None:
    records = decoded(pictures)
    assert records["pixels"][:, 0, 0, 0].tolist() == list(range(12))
    assert set(records["width"].tolist()) == {6}
    assert set(records["error"].tolist()) == {b""}


def test_a_bad_file_has_an_error_and_says_whether_it_is_at_fault(pictures: Path) -> None:
    (pictures / "03.png").write_bytes(b"no image")
    (pictures / "05.png").unlink()
    (pictures / "05.png").symlink_to("nowhere")
    records = decoded(pictures)
    assert b"cannot be read as an image" in records["error"][3]
    assert b"No such file" in records["error"][5]
    assert records["missing"].nonzero()[0].tolist() == [5]
    assert (records["error"] != b"").sum() == 2


def test_a_decoder_that_crashes_or_hangs_costs_one_file(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "DECODE_COMMAND", [sys.executable, "-c", FLAWED])
    (pictures / "02.png").write_bytes(b"crash")
    (pictures / "09.png").write_bytes(b"hang")
    records = decoded(pictures)
    assert records["error"][2] == b"the decoder crashed on it (SIGABRT)"
    assert b"took longer" in records["error"][9]
    assert records["missing"].nonzero()[0].tolist() == [2, 9]  # worth another try
    good = records["error"] == b""
    assert records["pixels"][good, 0, 0, 0].tolist() == [i for i in range(12) if i not in (2, 9)]


def test_crashes_leave_nothing_open(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "DECODE_COMMAND", [sys.executable, "-c", FLAWED])
    for i in range(5):
        (pictures / f"{i:02}.png").write_bytes(b"crash")
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert (decoded(pictures)["error"] != b"").sum() == 5
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_error_is_cut_where_it_is_too_long() -> None:
    records = np.zeros(1, record_type(TARGET))
    set_error(records[0], "x" + "ä" * 300)
    assert records["error"][0].decode() == "x" + "ä" * 119


def test_fewer_than_one_process_is_refused(pictures: Path) -> None:
    with pytest.raises(UsageError, match="-1 were asked for"):
        Decoders(open_source(pictures), TARGET, -1)


def test_when_closed_it_decodes_no_more(pictures: Path) -> None:
    source = open_source(pictures)
    listing = source.list()
    processes = Decoders(source, TARGET, 1)
    processes.decode(listing.paths, listing.sizes)
    processes.close()
    with pytest.raises(Interrupted):
        processes.decode(listing.paths, listing.sizes)


def test_files_that_are_fetched_do_not_fill_the_memory() -> None:
    """Few are held at a time, however many and however large they are."""

    @dataclasses.dataclass(frozen=True)
    class Remote(Source):
        def list(self) -> Listing:
            raise NotImplementedError

        def locate(self, path: bytes) -> bytes:
            return path

        def fetch(self, paths: Sequence[bytes], sizes: Integers) -> Contents:
            assert len(paths) == 1 or sizes.sum() <= 2**24
            return [b"BM" + bytes(int(size) - 2) for size in sizes]

    sizes = np.array([3_000_000] * 12 + [20_000_000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Decoders(Remote("remote"), TARGET, 1) as processes:
        [records] = processes.map([([b"x"] * len(sizes), sizes)])
    assert all(b"cannot be read" in error for error in records["error"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB
