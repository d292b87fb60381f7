"""What people say of scored images: marks, appended to a file beside the rows, so that who has it has them."""

import getpass
import json
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from anomaly_ae.errors import AnomalyAEError, DataMissing, UnknownName
from anomaly_ae.escaping import shown
from anomaly_ae.images.decode import read_file, reason
from anomaly_ae.images.listing import NOT_KNOWN, Source
from anomaly_ae.scoring.row_paths import bytes_beside, path_of
from anomaly_ae.storage.atomic import flush, sha256, storage_errors

GOOD, BAD, UNDECIDED, NONE = "good", "bad", "undecided", "none"  # NONE takes a mark back
MARKS = (GOOD, BAD, UNDECIDED, NONE)
MARKS_ENDING = ".marks.jsonl"


@dataclass(frozen=True)
class Mark:
    """One person's word on one file.

    path, path_bytes: within the source, the second in hexadecimal, where the first is no UTF-8
    sha256: of what the file held; time: when it was looked at, ISO 8601, UTC; name: of who said so
    source: what tells the folder, list or address that was scored from others; place: where that is
    """

    path: str
    mark: str
    sha256: str
    time: str
    name: str
    source: str
    place: str
    path_bytes: str | None = None

    @classmethod
    def of(cls, source: Source, path: bytes, mark: str) -> "Mark":
        """What a person says now of a file. Raises `UnknownName`, and `DataMissing` when it cannot be read, unless
        its mark is taken back.
        """
        if mark not in MARKS:
            raise UnknownName("mark", mark, MARKS)
        time, name = datetime.now(UTC).isoformat(), shown(path)
        sha256 = "" if mark == NONE else digest(source, path)
        path_bytes = None if (beside := bytes_beside(path)) is None else beside.hex()
        return cls(name, mark, sha256, time, _user(), source.identity, source.name, path_bytes)

    @classmethod
    def read(cls, line: bytes) -> "Mark":
        """That of a line. Raises `ValueError` or `TypeError` for any other line."""
        mark = cls(**json.loads(line))
        datetime.fromisoformat(mark.time)
        texts = (mark.path, mark.sha256, mark.name, mark.source, mark.place, mark.path_bytes or "")
        if mark.mark not in MARKS or not all(isinstance(text, str) for text in texts):
            raise ValueError(mark.mark)
        return mark

    @property
    def line(self) -> bytes:
        """What `read` reads, and the end of the line."""
        return json.dumps(asdict(self), ensure_ascii=True).encode() + b"\n"

    @property
    def file(self) -> bytes:
        """The path as bytes."""
        return path_of(self.path, self.path_bytes)

    def holds(self, source: Source) -> bool:
        """Whether the file is still what was marked, to the byte."""
        with suppress(DataMissing):
            return source.identity == self.source and digest(source, self.file) == self.sha256
        return False


class MarkFile:
    """A file of marks, a JSON object a line; the last one on a file counts. Others may append to it at any time."""

    def __init__(self, path: Path) -> None:
        self.path, self._read_to, self._inode = path, 0, 0
        self.marks, self.damaged = dict[tuple[str, bytes], Mark](), 0

    @classmethod
    def beside(cls, output: Path) -> "MarkFile":
        """That of a scored output."""
        return cls(output.with_name(output.name + MARKS_ENDING))

    def refresh(self) -> bool:
        """Read what has been appended since the last time; whether that was anything.

        A line that is no mark, as the half of one that a killed process wrote, is counted in `damaged`.
        """
        with storage_errors(f"read {self.path}"):
            if not self.path.exists():
                return self._forget(0)
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                replaced = about.st_ino != self._inode or about.st_size < self._read_to
                is_other = replaced and self._forget(about.st_ino)
                file.seek(self._read_to)
                whole, newline, _ = file.read().rpartition(b"\n")
        self._read_to += len(whole) + len(newline)
        for line in whole.split(b"\n") if whole else ():
            self._take(line)
        return bool(whole) or is_other

    def _forget(self, inode: int) -> bool:
        """Begin anew with another file, or none; whether anything is forgotten."""
        had = bool(self.marks)
        self.marks, self.damaged, self._read_to, self._inode = {}, 0, 0, inode
        return had

    def append(self, mark: Mark) -> None:
        """Write a mark; it is on the disk when this returns. Raises `StorageError`."""
        with storage_errors(f"write {self.path}"):
            is_new = not self.path.exists()
            with self.path.open("ab") as file:
                file.write((b"" if self._ends_whole() else b"\n") + mark.line)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                flush(self.path.parent)
        self.refresh()

    def __iter__(self) -> Iterator[Mark]:
        """The marks that count."""
        return (mark for mark in self.marks.values() if mark.mark != NONE)

    def content(self) -> bytes:
        """A file with the marks that have been read, whatever has been appended since."""
        return b"".join(mark.line for mark in self)

    def places(self) -> set[str]:
        """Where that lies which was scored."""
        return {mark.place for mark in self}

    def _take(self, line: bytes) -> None:
        try:
            mark = Mark.read(line)
            self.marks.pop((mark.source, mark.file), None)  # so that the last one comes last
            self.marks[mark.source, mark.file] = mark
        except (ValueError, TypeError, AttributeError):
            self.damaged += bool(line.strip())

    def take_rest(self) -> None:
        """Take what follows the last line, of a file that nobody writes to, for a line, too."""
        with storage_errors(f"read {self.path}"), self.path.open("rb") as file:
            file.seek(self._read_to)
            rest = file.read()
        self._read_to += len(rest)
        self._take(rest)

    def _ends_whole(self) -> bool:
        """Whether the last line is whole, or there is none."""
        with self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            return file.read(1) in (b"", b"\n")


def read_marks(path: Path) -> MarkFile:
    """The marks in a file. Raises `DataMissing` where there is no such file, or no mark in it."""
    if not path.is_file():
        raise DataMissing(f"there are no marks in {path}; name a file that ends in {MARKS_ENDING}")
    marks = MarkFile(path)
    marks.refresh()
    marks.take_rest()
    if not any(marks):
        raise DataMissing(
            f"{path} holds no marks; those of a scored output are in a file that ends in {MARKS_ENDING}"
        )
    return marks


def contradicting(marks: Collection[Mark]) -> set[Mark]:
    """Those on copies of one image, to the byte, which is marked good here and bad there: nobody knows what it is."""
    good, bad = ({mark.sha256 for mark in marks if mark.mark == kind} for kind in (GOOD, BAD))
    return {mark for mark in marks if mark.mark in (GOOD, BAD) and mark.sha256 in good & bad}


def digest(source: Source, path: bytes) -> str:
    """The SHA-256 of what a file holds, in hexadecimal. Raises `DataMissing` when it cannot be read."""
    try:
        fetched = source.fetch([path], np.array([NOT_KNOWN]))
        content = read_file(source.locate(path)) if fetched is None else fetched[0]
    except (OSError, AnomalyAEError) as error:
        raise DataMissing(f"{shown(path)} {reason(error)}") from error
    if isinstance(content, Exception):
        raise DataMissing(f"{shown(path)} {reason(content)}")
    return sha256(content)


def stat_of(source: Source, path: bytes) -> os.stat_result | None:
    """What the file system says of a file; None where it is in none, or gone."""
    with suppress(OSError, ValueError):
        return Path(os.fsdecode(source.locate(path))).stat()
    return None


def state_of(source: Source, path: bytes) -> str:
    """What is another text whenever the file has been touched; nothing where no file system tells of that."""
    about = stat_of(source, path)
    return f"{about.st_dev:x}-{about.st_ino:x}-{about.st_ctime_ns:x}-{about.st_size:x}" if about else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        return str(os.getuid())
