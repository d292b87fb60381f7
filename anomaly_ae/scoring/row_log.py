"""The rows of a folder that is watched: JSON lines at once, and Parquet shards by time. What lies on the disk says
which files have a row, so that after any kill each has one.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import RunBusy, StorageError, UsageError
from anomaly_ae.escaping import shown
from anomaly_ae.images.listing import Listing
from anomaly_ae.images.sources import Folder
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scoring.arrivals import File
from anomaly_ae.scoring.row_paths import bytes_beside, path_of
from anomaly_ae.scoring.rows import RESULT, Results, make_table
from anomaly_ae.scoring.writers import ParquetWriter, json_line, json_rows
from anomaly_ae.storage.atomic import flush, require_writable, storage_errors, sweep_top, write_json, write_with

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]  # as `rows.jsonl` has it

WATCH_FORMAT = 1
WATCH_FILE, WATCH_LOCK, CURRENT, SHARDS = "watch.json", "lock", "rows.jsonl", "shards"
SEGMENT_ROWS, SEGMENT_NS = 50_000, 3_600 * 10**9  # of a shard at the most
ROWS_AT_A_TIME = 4_096  # in memory, when a shard is made
IDENTITY = ["path", "path_bytes", "bytes", "time"]  # columns


class KnownFiles:
    """Files that have a row, each as eight bytes of a digest, so that many millions fit into the memory."""

    def __init__(self) -> None:
        self._sorted, self._recent = np.zeros(0, np.uint64), set[int]()

    def add(self, file: File) -> None:
        self._recent.add(_digest(file))
        if len(self._recent) >= SEGMENT_ROWS:
            recent = np.array([*self._recent], np.uint64)
            self._sorted = np.sort(np.concatenate([self._sorted, recent]), kind="stable")
            self._recent = set()

    def __contains__(self, file: object) -> bool:
        digest = _digest(file)  # type: ignore[arg-type] # a container is asked for anything
        place = int(np.searchsorted(self._sorted, np.uint64(digest)))
        return digest in self._recent or (place < len(self._sorted) and int(self._sorted[place]) == digest)


def _digest(file: File) -> int:
    path, size, changed = file
    return int.from_bytes(blake2b(b"%d %d %b" % (size, changed, path), digest_size=8).digest(), "little")


class RowLog:
    """A folder of rows: those of now in `rows.jsonl`, those of before in `shards/`.

    A full segment is renamed, then written as Parquet in one step, then removed: a kill between leaves it to be
    written, or to be removed, by the next one that opens the folder.
    """

    def __init__(self, folder: Path, detector: Detector) -> None:
        self.folder, self.detector, self.known = folder, detector, KnownFiles()
        self._current: IO[bytes] | None = None
        self._count, self._begun = 0, 0  # rows of the segment, and when its first one was scored, in ns

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, detector: Detector, source: Folder) -> Iterator["RowLog"]:
        """The rows in a folder, which nobody else writes meanwhile.

        Raises `UsageError` when they are of another detector or of other images, `RunBusy`, `StorageError`.
        """
        require_writable(folder)
        try:
            with FileLock(folder / WATCH_LOCK, timeout=0):
                log = cls(folder, detector)
                log._check(source)
                with storage_errors(f"read and write {folder}"):
                    log._recover()
                try:
                    yield log
                finally:
                    log._close()
        except Timeout as error:
            raise RunBusy(f"another process is watching with the same output ({folder}); name another one") from error

    def rows(self, listing: Listing, results: Results) -> list[Row]:
        """The rows of files that were scored just now, as JSON has them."""
        return json_rows(self._table(listing, results, time.time_ns()))

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows, which are on the disk then. Raises `StorageError`."""
        with storage_errors(f"write {self.folder / CURRENT}", "the rows before are kept, and the same call goes on"):
            file = self._current or self._begin(rows[0]["scored_at"])
            file.writelines(map(json_line, rows))
            file.flush()
            os.fsync(file.fileno())
        for row in rows:
            self.known.add(_file_of(row))
        self._count += len(rows)

    def finish_segment(self) -> None:
        """Make a shard of the rows of now, if they are many or old enough."""
        full = self._count >= SEGMENT_ROWS or time.time_ns() - self._begun >= SEGMENT_NS
        if self._current and self._count and full:
            self._close()
            begun = datetime.fromtimestamp(self._begun / 1e9, UTC)
            segment = self.folder / f"rows-{begun:%Y%m%dT%H%M%S.%fZ}.jsonl"
            with storage_errors(f"write {segment}"):
                (self.folder / CURRENT).rename(segment)
                self._make_shard(segment)

    def _close(self) -> None:
        if self._current:
            with suppress(OSError):  # again, of rows that could not be written
                self._current.close()
        self._current, self._count = None, 0

    def _table(self, listing: Listing, results: Results, now: int) -> "pa.Table":
        """Rows as `score` has them, and of the file as it was: bytes, time of its last change; when it was scored."""
        import pyarrow as pa

        table = make_table(listing.paths, results, self.detector.calibration)
        columns = {"bytes": listing.sizes, "time": listing.times, "scored_at": np.full(len(results), now)}
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values, pa.int64()))
        return table

    def _begin(self, now: int) -> IO[bytes]:
        self._current, self._begun = (self.folder / CURRENT).open("ab"), now
        flush(self.folder)
        return self._current

    def _check(self, source: Folder) -> None:
        """Say whose rows these are to be, or that they are someone else's."""
        path, current, name = self.folder / WATCH_FILE, self.folder / CURRENT, shown(os.fsencode(source.name))
        if not path.exists():
            if current.exists():
                raise UsageError(f"{current} was not written by a watch; name another {setting('output')}")
            own = {"digest": self.detector.digest, "detector": self.detector.name, "folder": name}
            write_json(path, {"format": WATCH_FORMAT} | own)
        try:
            kept = json.loads(path.read_bytes())
            version, digest, detector, folder = (kept[key] for key in ("format", "digest", "detector", "folder"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} is damaged; name another {setting('output')}") from error
        if version != WATCH_FORMAT:
            raise UsageError(f"{path} is of another version of anomaly-ae; name another {setting('output')}")
        if folder != name:
            raise UsageError(f"{self.folder} holds rows of {folder}; name another {setting('output')}")
        if digest != self.detector.digest:
            raise UsageError(
                f"{self.folder} holds rows of another detector ({detector}); name that one with "
                f"{setting('model')}, or another {setting('output')}"
            )

    def _recover(self) -> None:
        """Do what a kill has left undone, and learn which files have a row."""
        shards = self.folder / SHARDS
        shards.mkdir(exist_ok=True)
        sweep_top(shards)
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            self._make_shard(path)
        for path in sorted(shards.glob("*.parquet")):
            for row in _read_shard(path):
                self.known.add(_file_of(row))
        if (self.folder / CURRENT).exists():
            self._read_current()

    def _read_current(self) -> None:
        """Learn of the rows of now, and cut away what a kill or a power cut has left half written."""
        path, whole = self.folder / CURRENT, 0
        for line, row in _whole_lines(path):
            whole += len(line)
            self._begun = self._begun or row["scored_at"]
            self._count += 1
            self.known.add(_file_of(row))
        if cut := path.stat().st_size - whole:
            logger.info(f"{cut:,} bytes of a row that was not finished are cut off {path}")
            os.truncate(path, whole)
        self._current = path.open("ab")
        self._begun = self._begun or time.time_ns()

    def _make_shard(self, segment: Path) -> None:
        """Parquet of a full segment, unless it is there already."""
        shard = self.folder / SHARDS / f"{segment.stem}.parquet"
        if not shard.exists():
            write_with(shard, lambda temporary: self._write_parquet(segment, temporary))
        segment.unlink()

    def _write_parquet(self, segment: Path, path: Path) -> None:
        import pyarrow as pa

        schema = self._table(Listing.of(()), np.zeros(0, RESULT), 0).schema
        rows, writer = (row for _, row in _whole_lines(segment)), ParquetWriter(path)
        while part := list(islice(rows, ROWS_AT_A_TIME)):
            for row in part:
                row["path_bytes"] = bytes_beside(path_of(row["path"], row["path_bytes"]))  # no longer in hexadecimal
            writer.write(pa.Table.from_pylist(part, schema))
        writer.close()


def _whole_lines(path: Path) -> Iterator[tuple[bytes, Row]]:
    """Lines and rows up to the first line that is not whole. Raises `StorageError` for a row of something else."""
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                return
            if row is None:
                return
            if not isinstance(row, dict) or not {*IDENTITY, "scored_at"} <= row.keys():
                raise StorageError(f"{path} holds other rows than those of a watch; name another {setting('output')}")
            yield line, row


def _read_shard(path: Path) -> Iterator[Row]:
    """The columns that say which file a row is of. Raises `StorageError`."""
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:  # by ourselves, for pyarrow takes no names that are not UTF-8
            for batch in pq.ParquetFile(file).iter_batches(ROWS_AT_A_TIME, columns=IDENTITY, use_threads=False):
                yield from batch.to_pylist()
    except (ValueError, KeyError) as error:
        raise StorageError(f"{path} is damaged; move it away, and its files are scored again") from error


def _file_of(row: Row) -> File:
    return path_of(row["path"], row["path_bytes"]), row["bytes"], row["time"]
