import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import RunBusy, StorageError, UsageError
from anomaly_ae.images.listing import Listing
from anomaly_ae.images.sources import Folder
from anomaly_ae.scoring import row_log
from anomaly_ae.scoring.arrivals import File
from anomaly_ae.scoring.row_log import KnownFiles, RowLog
from anomaly_ae.scoring.rows import RESULT
from tests.conftest import Trained

NAMES = [b"a.png", b"caf\xe9.png", b"line\nbreak.png", b"bad.png", "ä.png".encode()]
FILES: list[File] = [(name, 100 + i, 10**18 + i) for i, name in enumerate(sorted(NAMES))]


@pytest.fixture
def detector(trained: Trained) -> Detector:
    return trained.detector()


def write(folder: Path, detector: Detector, files: list[File], finish: bool = False) -> None:
    """Rows of files, those called bad with an error."""
    with RowLog.opened(folder, detector, Folder("/in")) as log:
        if files:
            results = np.zeros(len(files), RESULT)
            results["score"] = [
                np.nan if b"bad" in path else np.float32(0.1) + i for i, (path, *_) in enumerate(files)
            ]
            results["error"] = ["is bad" if b"bad" in path else None for path, *_ in files]
            results["regions"] = [None if b"bad" in path else "[]" for path, *_ in files]
            log.append(log.rows(Listing.of(files), results))
        if finish:
            log.finish_segment()


def known(folder: Path, detector: Detector, files: list[File] = FILES) -> int:
    """How many of the files have a row, as one sees who opens the folder."""
    with RowLog.opened(folder, detector, Folder("/in")) as log:
        return sum(file in log.known for file in files)


def rows(folder: Path) -> pd.DataFrame:
    """All rows, as people read them."""
    lines = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    shards = [pd.read_parquet(path) for path in sorted((folder / "shards").glob("*.parquet"))]
    return pd.concat([*shards, pd.DataFrame(lines)] if lines else shards, ignore_index=True)


def test_rows_are_there_at_once_and_known_to_whoever_comes_after(tmp_path: Path, detector: Detector) -> None:
    write(tmp_path / "out", detector, FILES)
    table = rows(tmp_path / "out")
    assert sorted(table["bytes"]) == [100, 101, 102, 103, 104]
    assert set(table.path) == {"a.png", r"caf\xe9.png", "line\nbreak.png", "bad.png", "ä.png"}
    assert table[table.error.notna()].path.tolist() == ["bad.png"]
    assert known(tmp_path / "out", detector) == 5
    others = [(b"a.png", 100, 1), (b"a.png", 1, 10**18), (b"b.png", 100, 10**18)]
    assert known(tmp_path / "out", detector, others) == 0


def test_rows_that_cannot_be_written_are_said_and_those_before_are_kept(tmp_path: Path, detector: Detector) -> None:
    resource = pytest.importorskip("resource")
    write(tmp_path / "out", detector, FILES)
    size, limits = (tmp_path / "out" / "rows.jsonl").stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limits[1]))  # as if the disk were full then
    try:
        with pytest.raises(StorageError, match=r"rows.jsonl: .*; the rows before are kept, and the same call goes"):
            write(tmp_path / "out", detector, [(b"new.png", 1, 1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert known(tmp_path / "out", detector, [*FILES, (b"new.png", 1, 1)]) == 5
    write(tmp_path / "out", detector, [(b"new.png", 1, 1)])
    assert len(rows(tmp_path / "out")) == 6


def test_a_full_segment_becomes_a_shard_with_the_same_rows(
    tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", detector, FILES, finish=True)
    before = rows(tmp_path / "out").set_index("bytes").sort_index()
    monkeypatch.setattr(row_log, "SEGMENT_ROWS", 5)
    monkeypatch.setattr(row_log, "ROWS_AT_A_TIME", 2)
    assert not list((tmp_path / "out" / "shards").iterdir())  # five rows were few
    write(tmp_path / "out", detector, [], finish=True)
    assert not (tmp_path / "out" / "rows.jsonl").exists()
    (shard,) = (tmp_path / "out" / "shards").iterdir()
    after = pd.read_parquet(shard).set_index("bytes").sort_index()
    assert after.score.dtype == np.float32
    for name in ("path", "score", "p_value", "is_anomaly", "error", "time", "scored_at"):
        left, right = after[name].tolist(), before[name].tolist()
        assert [x == y or (pd.isna(x) and pd.isna(y)) for x, y in zip(left, right, strict=True)] == [True] * 5
    assert after.path_bytes.dropna().tolist() == [b"caf\xe9.png"]
    assert known(tmp_path / "out", detector) == 5
    write(tmp_path / "out", detector, [(b"new.png", 1, 1)])
    assert len(rows(tmp_path / "out")) == 6


def test_segments_end_by_time_too(tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out", detector, FILES)
    monkeypatch.setattr(row_log, "SEGMENT_NS", 0)
    write(tmp_path / "out", detector, [], finish=True)
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 1


def killed_after_the_rename(out: Path, _: Path) -> None:
    (out / "rows.jsonl").rename(out / "rows-20260101T000000.000000Z.jsonl")


def killed_while_the_shard_was_written(out: Path, shard: Path) -> None:
    killed_after_the_rename(out, shard)
    (out / "shards" / ".rows-20260101T000000.000000Z.parquet.999999999.tmp").write_bytes(shard.read_bytes()[:50])


def killed_before_the_segment_was_removed(out: Path, shard: Path) -> None:
    killed_after_the_rename(out, shard)
    shutil.copy(shard, out / "shards" / "rows-20260101T000000.000000Z.parquet")


@pytest.mark.parametrize(
    "kill", [killed_after_the_rename, killed_while_the_shard_was_written, killed_before_the_segment_was_removed]
)
def test_a_kill_between_segment_and_shard_loses_and_doubles_no_row(
    tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch, kill: Callable[[Path, Path], None]
) -> None:
    out = tmp_path / "out"
    write(out, detector, FILES)
    with monkeypatch.context() as patch:
        patch.setattr(row_log, "SEGMENT_ROWS", 5)
        shutil.copytree(out, tmp_path / "copy")
        write(tmp_path / "copy", detector, [], finish=True)
    (shard,) = (tmp_path / "copy" / "shards").iterdir()
    kill(out, shard)
    assert known(out, detector) == 5
    assert sorted(rows(out)["bytes"]) == [100, 101, 102, 103, 104]
    assert [path.name for path in (out / "shards").iterdir()] == ["rows-20260101T000000.000000Z.parquet"]
    assert not list(out.glob("*.jsonl"))


@pytest.mark.parametrize("end", [b'{"path": "half.p', b"\0" * 100, b'{"path": "half.p\n\0\0'])
def test_half_a_row_at_the_end_is_cut_off(
    tmp_path: Path, detector: Detector, end: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "out", detector, FILES)
    whole = (tmp_path / "out" / "rows.jsonl").read_bytes()
    (tmp_path / "out" / "rows.jsonl").write_bytes(whole + end)
    write(tmp_path / "out", detector, [(b"new.png", 1, 1)])
    assert (tmp_path / "out" / "rows.jsonl").read_bytes().startswith(whole + b'{"path": "new.png"')
    assert f"{len(end)} bytes" in capsys.readouterr().err


def test_the_rows_of_others_are_not_touched(tmp_path: Path, detector: Detector) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "rows.jsonl").write_text('{"path": "a.png", "score": 1.0}\nno JSON')
    with pytest.raises(UsageError, match="not written by a watch"):
        known(out, detector)
    (out / "rows.jsonl").rename(tmp_path / "others")
    write(out, detector, FILES)
    (tmp_path / "others").rename(out / "rows.jsonl")
    with pytest.raises(StorageError, match="holds other rows"):
        known(out, detector)
    assert (out / "rows.jsonl").read_text().endswith("no JSON")


def test_a_folder_is_of_one_detector_one_folder_and_one_process(tmp_path: Path, trained: Trained) -> None:
    out, detector = tmp_path / "out", trained.detector()
    with (
        RowLog.opened(out, detector, Folder("/in")),
        pytest.raises(RunBusy, match="another process is watching"),
        RowLog.opened(out, detector, Folder("/in")),
    ):
        pass
    with (
        pytest.raises(UsageError, match="holds rows of /in; name another output"),
        RowLog.opened(out, detector, Folder("/elsewhere")),
    ):
        pass
    about = json.loads((out / "watch.json").read_text())
    (out / "watch.json").write_text(json.dumps(about | {"digest": "another"}))
    with pytest.raises(UsageError, match="another detector \\(digits 0,1,2"):
        known(out, detector)
    (out / "watch.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(UsageError, match="another version"):
        known(out, detector)
    (out / "watch.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        known(out, detector)


def test_a_damaged_shard_is_said(tmp_path: Path, detector: Detector) -> None:
    write(tmp_path / "out", detector, FILES)
    (tmp_path / "out" / "shards" / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(StorageError, match=r"x\.parquet is damaged"):
        known(tmp_path / "out", detector)


def test_many_known_files_take_eight_bytes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_log, "SEGMENT_ROWS", 1_000)
    files, seen = [(os.fsencode(f"{i}.png"), i, i) for i in range(10_500)], KnownFiles()
    for file in files[::2]:
        assert file not in seen
        seen.add(file)
    assert [file in seen for file in files] == [True, False] * 5_250
    assert seen._sorted.nbytes == 8 * 5_000
    assert len(seen._recent) == 250
