import hashlib
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from anomaly_ae.errors import DataMissing, StorageError, UnknownName
from anomaly_ae.images.sources import Folder, open_source
from anomaly_ae.scoring.marks import Mark, MarkFile, read_marks

ODD = b"\xff \n.png"


@pytest.fixture
def source(tmp_path: Path) -> Folder:
    (tmp_path / "in").mkdir()
    for name in (b"a.png", b"b.png", ODD):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path / "in"), name))).write_bytes(name)  # noqa: PTH118 (bytes)
    return Folder(str(tmp_path / "in"))


@pytest.fixture
def marks(tmp_path: Path) -> MarkFile:
    return MarkFile.beside(tmp_path / "scores.csv")


def test_the_last_mark_on_a_file_counts_whatever_it_is_called(source: Folder, marks: MarkFile) -> None:
    for path, mark in ((b"a.png", "good"), (ODD, "bad"), (b"a.png", "bad"), (b"b.png", "good"), (b"b.png", "none")):
        marks.append(Mark.of(source, path, mark))
    assert marks.path.name == "scores.csv.marks.jsonl"
    again = read_marks(marks.path)
    assert {mark.file: mark.mark for mark in again} == {ODD: "bad", b"a.png": "bad"}
    assert all(mark.holds(source) for mark in again)
    assert again.places() == {source.name}
    assert len(marks.path.read_text().splitlines()) == 5


def test_who_marked_what_and_when_is_kept(source: Folder, marks: MarkFile) -> None:
    marks.append(Mark.of(source, b"a.png", "good"))
    line = json.loads(marks.path.read_text())
    assert line["sha256"] == hashlib.sha256(b"a.png").hexdigest()
    assert line["name"]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 60


def test_a_mark_holds_while_the_file_is_the_same_to_the_byte(source: Folder, marks: MarkFile) -> None:
    file = Path(source.name) / "a.png"
    mark = Mark.of(source, b"a.png", "good")
    assert mark.holds(source)
    about = file.stat()
    file.write_bytes(b"other")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert not mark.holds(source)
    file.write_bytes(b"a.png")
    assert mark.holds(source)
    file.unlink()
    assert not mark.holds(source)
    assert Mark.of(source, b"a.png", "none").mark == "none"  # what is gone can be taken back
    for path, name, error in ((b"a.png", "good", DataMissing), (b"b.png", "fine", UnknownName)):
        with pytest.raises(error):
            Mark.of(source, path, name)


def test_a_mark_is_of_one_folder_alone_and_of_what_was_in_it(
    source: Folder, marks: MarkFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(b"a.png")
    other, mark = Folder(str(tmp_path / "other")), Mark.of(source, b"a.png", "good")
    assert not mark.holds(other)
    marks.append(mark)
    marks.append(Mark.of(other, b"a.png", "bad"))
    assert [each.mark for each in marks] == ["good", "bad"]
    (tmp_path / "other" / "a.png").write_bytes(b"something else")
    (tmp_path / "in").rename(tmp_path / "moved")
    (tmp_path / "other").rename(tmp_path / "in")  # nothing in it was touched
    assert not mark.holds(source)
    monkeypatch.chdir(tmp_path / "moved")
    (tmp_path / "list.txt").write_text("a.png\n")
    relative = Mark.of(open_source(tmp_path / "list.txt"), b"a.png", "good")
    assert relative.holds(open_source(tmp_path / "list.txt"))
    monkeypatch.chdir(tmp_path / "in")
    assert not relative.holds(open_source(tmp_path / "list.txt"))


def test_a_file_that_is_replaced_or_gone_is_read_anew(source: Folder, marks: MarkFile) -> None:
    for path in (b"a.png", b"b.png"):
        marks.append(Mark.of(source, path, "good"))
    marks.path.unlink()
    assert marks.refresh()
    assert list(marks) == []
    marks.append(Mark.of(source, b"b.png", "bad"))
    assert [(mark.file, mark.mark) for mark in marks] == [(b"b.png", "bad")]


@pytest.mark.parametrize(
    "wrong", [{"time": "yesterday"}, {"time": 5}, {"sha256": None}, {"path": 3}, {"mark": "fine"}, {"more": 1}]
)
def test_a_line_that_is_no_mark_is_counted(source: Folder, marks: MarkFile, wrong: dict[str, object]) -> None:
    marks.append(Mark.of(source, b"a.png", "good"))
    with marks.path.open("a") as file:
        file.write(json.dumps(json.loads(marks.path.read_text()) | {"path": "b.png"} | wrong) + "\n")
    marks.refresh()
    assert (len(list(marks)), marks.damaged) == (1, 1)


def test_a_last_line_without_an_end_counts_where_nobody_writes(source: Folder, marks: MarkFile) -> None:
    for path in (b"a.png", b"b.png"):
        marks.append(Mark.of(source, path, "good"))
    marks.path.write_text(marks.path.read_text().rstrip("\n"))
    assert len(list(read_marks(marks.path))) == 2
    marks.path.write_text(marks.path.read_text()[:-5])
    cut = read_marks(marks.path)
    assert (len(list(cut)), cut.damaged) == (1, 1)


def test_half_a_line_of_a_killed_process_costs_nothing_else(source: Folder, marks: MarkFile) -> None:
    marks.append(Mark.of(source, b"a.png", "good"))
    with marks.path.open("ab") as file:
        file.write(b'{"path": "b.p')
    assert not marks.refresh()  # it may still be at work on it
    marks.append(Mark.of(source, b"b.png", "bad"))
    again = read_marks(marks.path)
    assert {mark.file: mark.mark for mark in again} == {b"a.png": "good", b"b.png": "bad"}
    assert again.damaged == marks.damaged == 1


def test_two_that_append_at_once_lose_nothing(source: Folder, marks: MarkFile) -> None:
    code = (
        "import sys; from pathlib import Path; from anomaly_ae.images.sources import Folder;"
        "from anomaly_ae.scoring.marks import *; marks = MarkFile(Path(sys.argv[1]));"
        "[marks.append(Mark.of(Folder(sys.argv[2]), b'a.png', m)) for m in ['good', 'bad'] * 50]"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(marks.path), source.name]) for _ in range(2)]
    assert [each.wait(200) for each in both] == [0, 0]
    assert read_marks(marks.path).damaged == 0
    written = [line for line in marks.path.read_text().splitlines() if line]  # who sees another at work begins a line
    assert len(written) == 200


def test_what_is_said_to_be_marked_survives_a_kill(source: Folder, marks: MarkFile) -> None:
    code = (
        "import sys; from pathlib import Path; from anomaly_ae.images.sources import Folder;"
        "from anomaly_ae.scoring.marks import *; marks = MarkFile(Path(sys.argv[1]));\n"
        "while True:\n marks.append(Mark.of(Folder(sys.argv[2]), b'a.png', 'good')); print('kept', flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(marks.path), source.name], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    said = 20 + len(process.stdout.read().splitlines())
    marks.refresh()
    assert len([line for line in marks.path.read_bytes().split(b"\n") if line.endswith(b"}")]) >= said


def test_no_marks_are_an_error_in_a_line(tmp_path: Path, marks: MarkFile, source: Folder) -> None:
    with pytest.raises(DataMissing, match="there are no marks in"):
        read_marks(marks.path)
    marks.path.write_text("{}\n[]\nnull\n")
    with pytest.raises(DataMissing, match="holds no marks"):
        read_marks(marks.path)
    with pytest.raises(StorageError, match="cannot write"):
        MarkFile(tmp_path / "nowhere" / "x.marks.jsonl").append(Mark.of(source, b"a.png", "good"))
