"""What a scoring job has done, kept beside its output, so that it can go on after any kill."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from anomaly_ae.autoencoders.inference import batch_size
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import RunBusy, StorageError, UsageError
from anomaly_ae.images.listing import NOT_KNOWN, Listing, Source
from anomaly_ae.images.sources import Folder
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scoring.rows import RESULT, UNSCORED, Positions, Results
from anomaly_ae.storage.atomic import require_writable, sha256, storage_errors, write_bytes, write_json

if TYPE_CHECKING:
    import pyarrow as pa

LEDGER_FORMAT = 5
SHARD = 4_096  # files at the most
JOB_FILE, LISTING_FILE, LOCK_FILE = "job.json", "listing", "lock"
DIGEST = 32  # bytes


@dataclass(frozen=True)
class Changes:
    """What is other than when the job began: files that are new, that have changed, and that are gone."""

    new: int = 0
    changed: int = 0
    gone: int = 0


@dataclass(frozen=True)
class ScoredBy:
    """Which detector, by its digest and by what to load it by, scored what is at some place; texts are empty where
    that is not known.
    """

    detector: str = ""
    model: str = ""
    source: str = ""
    place: str = ""

    @classmethod
    def read(cls, output: Path) -> "ScoredBy":
        """By what an output was scored, as its ledger has it; nothing where there is none."""
        try:
            job = json.loads((ledger_folder(output) / JOB_FILE).read_text())
            return cls(**{field.name: str(job.get(field.name, "")) for field in fields(cls)})
        except (OSError, ValueError, AttributeError):
            return cls()


def ledger_folder(output: Path) -> Path:
    """Where the ledger of an output lies."""
    return output.with_name(f".{output.name}.ledger")


@dataclass(frozen=True)
class Ledger:
    """A folder: what the job is, the list of files, and a file of results for each shard of them.

    List and shards begin with a digest. A row of a shard counts for the file whose path stands in it, and for the
    detector that made it, wherever the shard comes from; what is damaged is as if it had never been written.

    shard:    how many files that is, whole batches of the network
    detector: the digest of what scores
    """

    folder: Path
    shard: int
    detector: str

    @classmethod
    def beside(cls, output: Path, detector: Detector) -> "Ledger":
        batch = batch_size(*detector.preprocessing.shape[1:])
        return cls(ledger_folder(output), SHARD // batch * batch, detector.digest)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from working on the same output. Raises `RunBusy`, `StorageError`."""
        require_writable(self.folder)
        try:
            with FileLock(self.folder / LOCK_FILE, timeout=0):
                yield
        except Timeout as error:
            raise RunBusy(
                f"another process is scoring to the same output ({self.folder}); name another one"
            ) from error

    def begin(self, source: Source, listing: Listing, model: str = "") -> Listing:
        """Start anew, with nothing scored."""
        with storage_errors(f"write {self.folder}"):
            _remove(self.folder / JOB_FILE)  # first, so that what is half gone is no job
            for path in self.folder.iterdir():
                if path.name != LOCK_FILE:
                    _remove(path)
        self._write_listing(listing)
        about = {"detector": self.detector, "source": source.identity, "place": source.name, "model": model}
        write_json(self.folder / JOB_FILE, {"format": LEDGER_FORMAT} | about)
        return listing

    def source(self) -> str | None:
        """What the job of before was of; None where that is not known."""
        with suppress(StorageError, UsageError):
            return self._job()[1]
        return None

    def files_in(self, source: Source, *others: Path) -> int:
        """How many files of the ledger, and `others` of the job, lie in the folder that is scored."""
        folder = Path(source.name)
        files = [path.resolve() for path in (*others, *self.folder.glob("*")) if path.is_file()]
        return sum(path.is_relative_to(folder) for path in files) if isinstance(source, Folder) else 0

    def kept(self) -> int:
        """How many shards there are."""
        return len(list(self.folder.glob("shard-*")))

    def is_begun(self) -> bool:
        return (self.folder / JOB_FILE).is_file()

    def resume(self, source: str, now: Listing) -> tuple[Listing, Changes]:
        """The list the job began with, files that are new now at its end, and what has changed.

        Raises `UsageError` when the job was of another detector or another source.
        """
        detector, begun_source = self._job()
        if detector != self.detector:
            raise UsageError(
                f"the job to resume was scored by another detector; name that one with {setting('model')}, or leave "
                f"{setting('resume')} out"
            )
        if begun_source != source:
            raise UsageError(
                f"the job to resume is of {begun_source}, not of {source}; name another {setting('output')}"
            )
        for temporary in self.folder.glob(".*.tmp"):
            temporary.unlink(missing_ok=True)
        try:
            table = self._read_table(self.folder / LISTING_FILE)
        except (OSError, ValueError) as error:
            raise self._damaged() from error
        begun = Listing(table["path"].to_pylist(), table["bytes"].to_numpy(), table["time"].to_numpy())
        listing, changes = _merge(begun, now)
        self._write_listing(listing)
        return listing, changes

    def shards(self, listing: Listing) -> Iterator[slice]:
        """Where each shard lies in the list."""
        for start in range(0, len(listing), self.shard):
            yield self.around(start, listing)

    def around(self, position: int, listing: Listing) -> slice:
        """Where the shard lies that a position is in."""
        start = position // self.shard * self.shard
        return slice(start, min(start + self.shard, len(listing)))

    def missing(self, listing: Listing) -> Iterator[Positions]:
        """For each shard that lacks something, the positions to be scored."""
        for where in self.shards(listing):
            results = self.read_shard(where, listing)
            stale = (results["bytes"] != listing.sizes[where]) | (results["time"] != listing.times[where])
            if stale.any():
                yield where.start + np.flatnonzero(stale)

    def read_shard(self, where: slice, listing: Listing) -> Results:
        """What is known of its files; one that is yet to be scored has the size `UNSCORED`."""
        paths, results = listing.paths[where], np.zeros(where.stop - where.start, RESULT)
        results["bytes"], results["score"], results["error"], results["regions"] = UNSCORED, np.nan, None, None
        with suppress(OSError, ValueError):
            table = self._read_table(self._path(where))
            kept = table["path"].to_pylist()
            same = np.array([old == new for old, new in zip(kept, paths, strict=False)], bool)
            for name in RESULT.names or ():
                results[name][: len(same)][same] = table[name].to_numpy()[: len(same)][same]
        return results

    def write_shard(self, where: slice, listing: Listing, results: Results) -> None:
        """Keep what is known of a shard, whole or not at all."""
        import pyarrow as pa

        columns = {name: pa.array(results[name]) for name in RESULT.names or ()}
        self._write_table(self._path(where), {"path": pa.array(listing.paths[where], pa.binary())} | columns)

    def _path(self, where: slice) -> Path:
        return self.folder / f"shard-{where.start // self.shard:06}"

    def _job(self) -> tuple[str, str]:
        """The detector and the source of the job that was begun."""
        try:
            job = json.loads((self.folder / JOB_FILE).read_text())
            if job["format"] == LEDGER_FORMAT:
                return str(job["detector"]), str(job["source"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged() from error
        raise UsageError(
            f"{self.folder} is of another version of anomaly-ae; leave {setting('resume')} out to start over"
        )

    def _damaged(self) -> StorageError:
        return StorageError(f"{self.folder} is damaged; leave {setting('resume')} out to start over")

    def _write_listing(self, listing: Listing) -> None:
        import pyarrow as pa

        paths = pa.array(listing.paths, pa.binary())
        self._write_table(self.folder / LISTING_FILE, {"path": paths, "bytes": listing.sizes, "time": listing.times})

    def _write_table(self, path: Path, columns: dict[str, Any]) -> None:
        """A digest, then the columns as Parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), file)
        content = file.getvalue().to_pybytes()
        if path.is_dir():
            shutil.rmtree(path)
        write_bytes(path, self._digest(path, content) + content)

    def _read_table(self, path: Path) -> "pa.Table":
        """Raises `OSError` when it cannot be read, `ValueError` when it is not what was written."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sealed = path.read_bytes()
        digest, content = sealed[:DIGEST], sealed[DIGEST:]
        if digest != self._digest(path, content):
            raise ValueError(f"{path} is damaged")
        # In this thread alone: one of pyarrow's own that was at work when Python ends would abort the process.
        return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)

    def _digest(self, path: Path, content: bytes) -> bytes:
        return bytes.fromhex(sha256(f"{self.detector} {path.name} ".encode(), content))


def _merge(before: Listing, now: Listing) -> tuple[Listing, Changes]:
    """The files of both, those from before at their places; what is gone is as it was."""
    import pyarrow as pa
    import pyarrow.compute as pc

    paths = pa.array(now.paths, pa.binary())
    places = pc.index_in(pa.array(before.paths, pa.binary()), paths).fill_null(-1).to_numpy()
    there = (places >= 0) & (now.sizes[places] != NOT_KNOWN)
    sizes, times = before.sizes.copy(), before.times.copy()
    sizes[there], times[there] = now.sizes[places[there]], now.times[places[there]]
    changed = (sizes != before.sizes) | (times != before.times)
    new = np.setdiff1d(np.arange(len(now)), places)
    merged = Listing(
        before.paths + [now.paths[i] for i in new],
        np.concatenate([sizes, now.sizes[new]]),
        np.concatenate([times, now.times[new]]),
        now.skipped,
        now.unread,
        now.left_out,
    )
    gone = ~there & (before.sizes != NOT_KNOWN)
    return merged, Changes(len(new), int(changed.sum()), int(gone.sum()))


def _remove(path: Path) -> None:
    """Whatever it is, if it is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
