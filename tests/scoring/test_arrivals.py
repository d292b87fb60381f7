import errno
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from anomaly_ae.images.sources import Folder
from anomaly_ae.scoring import arrivals
from anomaly_ae.scoring.arrivals import GIVEN_UP, SETTLED, Arrivals, File, Waiting


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "in").mkdir()
    return Folder(str(tmp_path / "in"))


def put(folder: Folder, name: str, content: bytes = b"image") -> File:
    path = Path(folder.name) / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    return os.fsencode(name), len(content), path.stat().st_mtime_ns


def taken(source: Arrivals, *paths: bytes) -> set[File]:
    """All files that come until these have come, or much longer than that should take."""
    files, end = set[File](), time.monotonic() + 60
    while not {path for path, *_ in files}.issuperset(paths):
        assert time.monotonic() < end, f"of {paths} only these came: {files}"
        source.wait(0.05)
        files.update(source.take(100))
    return files


def test_files_without_a_row_are_listed_the_oldest_first_so_many_at_a_time(folder: Folder) -> None:
    files = [put(folder, name) for name in ("c.png", "a.png", "sub/b.png", "d.png")]
    for second, (path, *_) in enumerate(files):
        os.utime(folder.locate(path), (second, second))
    source = Arrivals(folder, known={(b"a.png", 5, 10**9)})
    source.look()
    assert source.take(-3) == []  # as where more files that could not be read have changed than are tried at a time
    assert [path for path, *_ in source.take(2)] == [b"c.png", b"sub/b.png"]
    assert [path for path, *_ in source.take(2)] == [b"d.png"]
    assert source.take(2) == []


def test_a_file_that_got_its_row_since_it_was_listed_or_told_does_not_come_again(folder: Folder) -> None:
    known = set[File]()
    source = Arrivals(folder, known)
    files = [put(folder, name) for name in ("a.png", "b.png")]
    source.look()
    source._tell([f"{folder.name}/a.png"])
    known.add(files[0])
    assert source.take(9) == [files[1]]


def test_an_empty_folder_and_one_that_is_gone_have_no_files(folder: Folder) -> None:
    source = Arrivals(folder, known=())
    assert len(source.look()) == 0
    Path(folder.name).rmdir()
    assert len(source.look()) == 0
    assert source.take(1) == []


def test_events_bring_new_files_of_new_folders_and_odd_names_and_no_others(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "LEAST_PAUSE", 0.1)
    monkeypatch.setattr(arrivals, "RELISTED", 600.0)  # so that no listing finds what no event told
    put(folder, "sub/first.png")
    (Path(folder.name) / "link").symlink_to("sub")
    source = Arrivals(folder, known=())
    with closing(source):
        source.start()
        assert {path for path, *_ in taken(source, b"sub/first.png")} == {b"sub/first.png"}
        names = ("a.png", "sub/b.png", "new/deep/c.png", "line\nbreak.png", os.fsdecode(b"caf\xe9.png"))
        files = {put(folder, name) for name in names}
        for name in (".hidden.png", ".part/d.png", "notes.txt"):
            put(folder, name)
        os.mkfifo(Path(folder.name) / "pipe.png")
        (Path(folder.name) / "e.part").write_bytes(b"image")
        (Path(folder.name) / "e.part").rename(Path(folder.name) / "e.png")
        expected = {*(path for path, *_ in files), b"e.png"}
        found = {path for path, *_ in taken(source, *expected)}
        found |= {path for path, *_ in taken(source, put(folder, "last.png")[0])}
        assert found - {b"sub/first.png", b"last.png"} == expected


@pytest.mark.parametrize("absent", [0, 0.5])
def test_a_folder_that_went_and_came_again_is_listened_to(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, absent: float
) -> None:
    """However short the time that it was gone, after which it often has the same inode."""
    monkeypatch.setattr(arrivals, "LEAST_PAUSE", 0.1)
    monkeypatch.setattr(arrivals, "RELISTED", 600.0)  # so that no listing finds what no event told
    source = Arrivals(folder, known=())
    with closing(source):
        source.start()
        Path(folder.name).rmdir()
        time.sleep(absent)
        put(folder, "a.png")
        taken(source, b"a.png")
        put(folder, "b.png")
        taken(source, b"b.png")


def test_where_events_do_not_come_the_folder_is_listed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any, **__: Any) -> Iterator[Any]:
        raise OSError(errno.ENOSPC, "OS file watch limit reached")

    monkeypatch.setattr(arrivals, "POLLED", 0.2)
    monkeypatch.setattr(arrivals, "LEAST_PAUSE", 0.1)
    monkeypatch.setattr(watchfiles, "watch", refused)
    for poll in (None, 0.1):
        source = Arrivals(folder, known=(), poll=poll)
        with closing(source):
            source.start()
            put(folder, f"{poll}.png")
            taken(source, f"{poll}.png".encode())
    assert capsys.readouterr().err.count("no events can be had") == 1


def test_what_an_event_did_not_tell_is_found_by_listing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "RELISTED", 0.3)
    monkeypatch.setattr(arrivals, "LEAST_PAUSE", 0.1)
    monkeypatch.setattr(Arrivals, "_tell", lambda *_: None)
    source = Arrivals(folder, known=())
    with closing(source):
        source.start()
        put(folder, "a.png")
        assert {path for path, *_ in taken(source, b"a.png")} == {b"a.png"}


def test_a_file_is_due_when_it_has_not_changed_for_a_while(folder: Folder) -> None:
    waiting, file = Waiting(folder), put(folder, "a.png")
    waiting.add(file, 100.0)
    assert waiting.due(100.0 + SETTLED / 2, 9) == []
    changed = put(folder, "a.png", b"a longer image")
    assert waiting.due(100.0 + SETTLED, 9) == []  # which has seen that it changed, and waits anew
    assert waiting.due(100.0 + 1.9 * SETTLED, 9) == []
    assert waiting.due(100.0 + 2 * SETTLED, 9) == [changed]
    waiting.add(changed, 200.0)  # told once more
    assert waiting.finish(changed[0]) == 100.0 + SETTLED
    assert len(waiting) == 0


def test_a_file_that_cannot_be_read_gets_a_second_chance_and_any_more_where_it_changes(folder: Folder) -> None:
    waiting, file = Waiting(folder), put(folder, "a.png")
    waiting.add(file, 100.0)
    assert not waiting.fail(b"a.png", 101.0)
    assert waiting.untried() == 0
    assert waiting.due(100.9 + GIVEN_UP, 9) == []
    assert waiting.due(101.0 + GIVEN_UP, 9) == [file]
    changed = put(folder, "a.png", b"whole")
    assert not waiting.is_same(file, 105.0)
    assert not waiting.fail(b"a.png", 106.0)
    assert waiting.fail(b"a.png", 110.0)
    assert waiting.is_same(changed, 110.0)


def test_a_file_that_goes_is_counted_and_waited_for_no_more(folder: Folder) -> None:
    waiting, file = Waiting(folder), put(folder, "a.png")
    waiting.add(file, 100.0)
    (Path(folder.name) / "a.png").unlink()
    assert waiting.due(101.0, 9) == []
    assert (len(waiting), waiting.gone, waiting.next_due()) == (0, 1, float("inf"))
