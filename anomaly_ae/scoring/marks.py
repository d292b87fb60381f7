"""What people say of scored images: marks, appended to a file beside the rows, so that who has it has them."""

import getpass
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from anomaly_ae.errors import AnomalyAEError, DataMissing, UnknownName
from anomaly_ae.images.decode import read_file, reason
from anomaly_ae.images.sources import NOT_KNOWN, Source, shown
from anomaly_ae.storage.atomic import flush, sha256, storage_errors

GOOD, BAD, UNDECIDED, NONE = "good", "bad", "undecided", "none"  # NONE takes a mark back
MARKS = (GOOD, BAD, UNDECIDED, NONE)
MARKS_ENDING = ".marks.jsonl"
CLOCKS_DIFFER = 1.0  # seconds by which a file system's clock may be behind


@dataclass(frozen=True)
class Mark:
    """One person's word on one file.

    path, path_bytes: within the source, the second in hexadecimal, where the first is no UTF-8
    sha256: of what the file held; time: when it was looked at, ISO 8601, UTC; name: of who said so
    source: the folder, list or address that was scored
    """

    path: str
    mark: str
    sha256: str
    time: str
    name: str
    source: str
    path_bytes: str | None = None

    @classmethod
    def of(cls, source: Source, path: bytes, mark: str) -> "Mark":
        """What a person says now of a file. Raises `UnknownName`, and `DataMissing` when it cannot be read."""
        if mark not in MARKS:
            raise UnknownName("mark", mark, MARKS)
        time = datetime.now(UTC).isoformat()  # before it is read, so that what changes it comes later
        name = shown(path)
        return cls(name, mark, digest(source, path), time, _user(), source.name, _hex(name, path))

    @property
    def file(self) -> bytes:
        """The path as bytes."""
        return self.path.encode() if self.path_bytes is None else bytes.fromhex(self.path_bytes)

    def holds(self, source: Source) -> bool:
        """Whether the file is still what was marked: not touched since, or the same to the byte."""
        about = stat_of(source, self.file)
        # not by the time of the last change to its content, which copying and unpacking set to what they like
        if about and about.st_ctime < self._seconds - CLOCKS_DIFFER:
            return True
        with suppress(DataMissing):
            return digest(source, self.file) == self.sha256
        return False

    @property
    def _seconds(self) -> float:
        return datetime.fromisoformat(self.time).timestamp()


class MarkFile:
    """A file of marks, a JSON object a line; the last one on a file counts. Others may append to it at any time."""

    def __init__(self, path: Path) -> None:
        self.path, self.marks, self.damaged, self._read_to = path, dict[bytes, Mark](), 0, 0

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
                return False
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                whole, newline, _ = file.read().rpartition(b"\n")
        self._read_to += len(whole) + len(newline)
        for line in whole.split(b"\n") if whole else ():
            self._take(line)
        return bool(whole)

    def append(self, mark: Mark) -> None:
        """Write a mark; it is on the disk when this returns. Raises `StorageError`."""
        line = json.dumps(asdict(mark), ensure_ascii=True).encode() + b"\n"
        with storage_errors(f"write {self.path}"):
            is_new = not self.path.exists()
            with self.path.open("ab") as file:
                file.write((b"" if self._ends_whole() else b"\n") + line)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                flush(self.path.parent)
        self.refresh()

    def __iter__(self) -> Iterator[Mark]:
        """The marks that count."""
        return (mark for mark in self.marks.values() if mark.mark != NONE)

    def sources(self) -> Counter[str]:
        """What was scored, by how many marks are of it."""
        return Counter(mark.source for mark in self)

    def _take(self, line: bytes) -> None:
        try:
            mark = Mark(**json.loads(line))
            if mark.mark not in MARKS:
                raise ValueError(mark.mark)
            self.marks.pop(mark.file, None)  # so that the last one comes last
            self.marks[mark.file] = mark
        except (ValueError, TypeError, AttributeError):
            self.damaged += bool(line.strip())

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
    if not any(marks):
        raise DataMissing(f"{path} holds no marks")
    return marks


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


def _hex(name: str, path: bytes) -> str | None:
    return None if name.encode() == path else path.hex()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        return str(os.getuid())
