"""Where runs are kept, and how one is found there."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from anomaly_ae.errors import ModelError, ModelNotFound, UsageError, one_line
from anomaly_ae.runs.location import place_settings, runs_root
from anomaly_ae.runs.record import FAILED, FINISHED, KILLED, RUNNING, RunRecord
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runtime.messages import warn_once
from anomaly_ae.runtime.spelling import command, setting

LATEST = "latest"
STORE_LOCK_WAIT = 20.0  # seconds to wait for a store that nobody has written to meanwhile
STORE_LOCKS: dict[str, FileLock] = {}  # one for each file, for who has it may take it again
SHORTEST_ID = 4  # characters of a run id that may stand for the whole


@dataclass(frozen=True)
class RunStore:
    """Where runs are kept: `root` holds the run folders, `tracking_uri` is MLflow's store."""

    root: Path
    tracking_uri: str

    @classmethod
    def find(cls, mlruns: str | None = None) -> "RunStore":
        """`mlruns` if given, else ANOMALY_AE_MLRUNS, else the server at MLFLOW_TRACKING_URI, else ./mlruns."""
        named = mlruns or os.environ.get("ANOMALY_AE_MLRUNS")
        root = runs_root(mlruns)
        if set(str(root)) & set("%?#"):
            raise UsageError(
                f"MLflow cannot keep runs in a path with %, ? or #, as in {root}; name another with "
                f"{setting('mlruns')}"
            )
        if root.exists() and not root.is_dir():
            raise UsageError(
                f"runs are kept in a folder, and {root} is a file; name a folder with {setting('mlruns')}"
            )
        server = None if named else os.environ.get("MLFLOW_TRACKING_URI")
        return cls(root, server or f"sqlite:///{root / 'mlflow.db'}")

    @property
    def is_local(self) -> bool:
        """Whether MLflow's store is the database in `root`."""
        return self.tracking_uri == f"sqlite:///{self.database}"

    @property
    def database(self) -> Path:
        """MLflow's store, where that is local."""
        return self.root / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """Where MLflow keeps the files of runs, where its store is local."""
        return self.root / "artifacts"

    @property
    def store_file(self) -> Path | None:
        """The SQLite file that MLflow's store is, here or elsewhere; None where it is a server."""
        scheme, _, path = self.tracking_uri.partition(":///")
        return Path(path) if scheme == "sqlite" and path else None

    def has_no_store(self) -> bool:
        """Whether the store is a SQLite database that is not there yet."""
        return self.store_file is not None and not self.store_file.exists()

    def store_lock(self) -> FileLock:
        """For whoever changes the database. It may be taken again by who has it, and is given up on in the end, for a
        process that hangs must not stop the others.
        """
        folder = self.store_file.parent if self.store_file else self.root
        file = str((folder / "mlflow.lock").absolute())
        # ours to keep: filelock's own singleton stays unusable after a Ctrl-C while it is made
        return STORE_LOCKS.get(file) or STORE_LOCKS.setdefault(file, FileLock(file, timeout=STORE_LOCK_WAIT))

    def command(self, *words: str, **settings: Any) -> str:
        """A command with what it needs to find the runs that are here."""
        return command(*words, **settings, **place_settings(self.root))

    def runs(self) -> "list[RunFolder]":
        """All run folders, the newest first."""
        return list(self.records())

    def records(self) -> "dict[RunFolder, RunRecord]":
        """All run folders, the newest first, with their records; what is damaged is said and left out."""
        records = {}
        for path in (self.root / "runs").glob("[!.]*/run.json"):
            try:
                records[RunFolder(path.parent)] = RunFolder(path.parent).record
            except ModelError as error:
                if path.exists():  # or it has got another name, or is gone
                    warn_once(f"{one_line(error)}, so this run is left out")
        newest_first = sorted(records, key=lambda run: (records[run].started, records[run].id), reverse=True)
        return {run: records[run] for run in newest_first}

    def dead_runs(self) -> "list[RunFolder]":
        """Runs still called RUNNING whose process is gone, those of pipeline files before their cells."""
        records = self.records()
        dead = [run for run, record in records.items() if record.status == RUNNING and not run.is_locked()]
        return sorted(dead, key=lambda run: records[run].parent is not None)

    def find_run(self, name: str) -> "RunFolder":
        """The run called `name`: an id or a unique beginning of one. Raises `ModelNotFound`."""
        records = self.records()
        exact = [run for run, record in records.items() if name in (record.id, record.mlflow_run_id)]
        begins = [run for run, record in records.items() if len(name) >= SHORTEST_ID and record.id.startswith(name)]
        matches = exact or begins
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UsageError(f"{len(matches)} runs begin with {name!r}; give more of the id")
        if len(name) < SHORTEST_ID:
            raise ModelNotFound(f"{name!r} is too short for a run's id; give {SHORTEST_ID} characters of it or more")
        raise ModelNotFound(
            f"there is no run {name!r} in {self.root}; list the runs with: {self.command('runs')}, "
            f"or name another place with {setting('mlruns')}"
        )

    def latest(self) -> "RunFolder":
        """The training that finished last, but for those of a pipeline. Raises `ModelNotFound` when there is none."""
        trainings = {run: record for run, record in self.records().items() if record.is_training}
        finished = [run for run, record in trainings.items() if record.status == FINISHED]
        if finished:
            return max(finished, key=lambda run: trainings[run].finished or trainings[run].started)
        if trainings:
            last = next(iter(trainings))
            raise ModelNotFound(f"no training in {self.root} is finished; resume the last one with: {last.resume}")
        if self.records():
            raise ModelNotFound(
                f"in {self.root} there is no training by itself; name a cell or a calibration, see: "
                f"{self.command('runs')}"
            )
        example = self.command("train", normal="0,1,2")
        raise ModelNotFound(f"there is no model in {self.root} yet; train one with: {example}")

    def latest_unfinished(self) -> "RunFolder":
        """The newest training that was interrupted or failed. Raises `ModelNotFound` when there is none."""
        for run, record in self.records().items():
            if record.is_training and record.status in (KILLED, FAILED):
                return run
        raise ModelNotFound(f"no training in {self.root} was interrupted; there is nothing to resume")
