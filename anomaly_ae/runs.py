"""The run folder, `mlruns/runs/<run id>/`: what a training writes first, and how it is found again.

run.json                state: RUNNING, FINISHED, KILLED or FAILED, and what MLflow lacks
config.json             the `RunConfig`
split.json              the data's digest, how many images went where, and their digests
metrics.csv             losses, learning rate and speed by epoch
checkpoint.safetensors  the last epoch's state
detector/               the finished detector
network/                encoder, decoder and the whole network, each in a file of its own
evaluation/             what `evaluate` measured
figures/  images/       what `train` and `evaluate` drew
comparisons/            what `compare` found, where this run was named first
example.png             a normal image, as an example of what the detector takes

The folder of a run of a pipeline file holds run.json, pipeline.json, tables and figures; the runs of its cells have
folders of their own, and name it as their parent.
"""

import csv
import dataclasses
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from anomaly_ae.config import RunConfig
from anomaly_ae.errors import ModelError, ModelNotFound, RunBusy, UsageError, one_line
from anomaly_ae.files import expand, storage_errors, write_csv, write_json
from anomaly_ae.progress import say

if TYPE_CHECKING:
    from anomaly_ae.training import Epoch

TRAINING, PIPELINE, CALIBRATION = "training", "pipeline", "calibration"  # kinds of runs
RUNNING, FINISHED, KILLED, FAILED = "RUNNING", "FINISHED", "KILLED", "FAILED"
LATEST = "latest"
EXAMPLE = "example.png"
LOCK_WAIT = 20.0  # seconds to wait for a store that nobody has written to meanwhile
SHORTEST_ID = 4  # characters of a run id that may stand for the whole


@dataclass(frozen=True)
class Home:
    """Where runs are kept: `root` holds the run folders, `tracking_uri` is MLflow's store."""

    root: Path
    tracking_uri: str

    @classmethod
    def find(cls, mlruns: str | None = None) -> "Home":
        """`mlruns` if given, else ANOMALY_AE_MLRUNS, else the server at MLFLOW_TRACKING_URI, else ./mlruns."""
        named = mlruns or os.environ.get("ANOMALY_AE_MLRUNS")
        root = expand(named or "mlruns").absolute()
        root = root.resolve() if ".." in root.parts else root
        if set(str(root)) & set("%?#"):
            raise UsageError(
                f"MLflow cannot keep runs in a path with %, ? or #, as in {root}; name another with --mlruns"
            )
        if root.exists() and not root.is_dir():
            raise UsageError(f"runs are kept in a folder, and {root} is a file; name a folder with --mlruns")
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
        return FileLock(folder / "mlflow.lock", timeout=LOCK_WAIT, is_singleton=True)

    def runs(self) -> "list[RunFolder]":
        """All run folders, the newest first."""
        found = {}
        for path in (self.root / "runs").glob("[!.]*/run.json"):
            try:
                found[RunFolder(path.parent)] = RunFolder(path.parent).record
            except ModelError as error:  # one damaged run stops no other
                say(f"warning: {one_line(error)}")
        return sorted(found, key=lambda run: (found[run].started, found[run].id), reverse=True)

    def dead_runs(self) -> "list[RunFolder]":
        """Runs still called RUNNING whose process is gone, those of pipeline files before their cells."""
        dead = [run for run in self.runs() if run.record.status == RUNNING and not run.is_locked()]
        return sorted(dead, key=lambda run: run.record.parent is not None)

    def find_run(self, name: str) -> "RunFolder":
        """The run called `name`: an id or a unique beginning of one. Raises `ModelNotFound`."""
        runs = self.runs()
        exact = [run for run in runs if name in (run.record.id, run.record.mlflow_run_id)]
        begins = [run for run in runs if len(name) >= SHORTEST_ID and run.record.id.startswith(name)]
        found = exact or begins
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{len(found)} runs begin with {name!r}; give more of the id")
        if len(name) < SHORTEST_ID:
            raise ModelNotFound(f"{name!r} is too short for a run's id; give {SHORTEST_ID} characters of it or more")
        raise ModelNotFound(
            f"there is no run {name!r} in {self.root}; list the runs with: anomaly-ae runs, "
            "or name another place with --mlruns"
        )

    def latest(self) -> "RunFolder":
        """The newest finished training, but for those of a pipeline. Raises `ModelNotFound` when there is none."""
        runs = [run for run in self.runs() if run.record.parent is None and run.record.kind == TRAINING]
        for run in runs:
            if run.record.status == FINISHED:
                return run
        if runs:
            raise ModelNotFound(f"no training in {self.root} is finished; resume the last one with: {runs[0].resume}")
        if self.runs():
            raise ModelNotFound(
                f"in {self.root} there is no training by itself; name a cell or a calibration, see: anomaly-ae runs"
            )
        raise ModelNotFound(f"there is no model in {self.root} yet; train one with: anomaly-ae train --normal 0,1,2")

    def latest_unfinished(self) -> "RunFolder":
        """The newest training that was interrupted or failed. Raises `ModelNotFound` when there is none."""
        for run in self.runs():
            if run.record.status in (KILLED, FAILED) and run.record.kind == TRAINING and run.record.parent is None:
                return run
        raise ModelNotFound(f"no training in {self.root} was interrupted; there is nothing to resume")


@dataclass(frozen=True)
class Record:
    """The content of run.json. `mlflow_run_id` is None while MLflow knows nothing of the run."""

    id: str
    mlflow_run_id: str | None
    name: str
    started: str  # ISO 8601, UTC
    status: str = RUNNING
    on_server: bool = False  # MLflow's run is in another store than this home's own
    tracked: bool = True  # False: --no-tracking was asked for
    unlogged: bool = False  # MLflow may lack something that the folder has
    device: str = "cpu"  # it was trained on
    parameters: int = 0  # of its network
    threads: int | None = None  # of the processor, which its weights depend on in the last digits
    parent: str | None = None  # the run of the pipeline file it is a cell of
    kind: str = TRAINING
    resume: str | None = None  # the command that goes on with it, where it is not `train --resume`


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    def write_start(self, config: RunConfig, split: dict[str, Any]) -> None:
        """Write what is known before training: settings and split record."""
        write_json(self.path / "config.json", config.to_dict())
        write_json(self.path / "split.json", split)

    @property
    def record(self) -> Record:
        """State as it is on disk now. Raises `ModelError` when it cannot be read."""
        try:
            content = json.loads((self.path / "run.json").read_text())
            known = {field.name for field in dataclasses.fields(Record)}
            return Record(**{key: value for key, value in content.items() if key in known})
        except (OSError, AttributeError, TypeError, ValueError) as error:
            raise ModelError(f"{self.path / 'run.json'} is damaged, so this run is left out") from error

    def write_record(self, record: Record) -> None:
        """Replace the state."""
        write_json(self.path / "run.json", dataclasses.asdict(record))

    def update(self, **changes: Any) -> None:
        """Change some of the state."""
        self.write_record(dataclasses.replace(self.record, **changes))

    @property
    def config(self) -> RunConfig:
        """The settings it was started with. Raises `ModelError` when they cannot be read."""
        try:
            return RunConfig.build(json.loads((self.path / "config.json").read_text()))
        except (OSError, ValueError, AttributeError, UsageError) as error:
            what = f"damaged or of another version ({one_line(error)})"
            raise ModelError(f"{self.path / 'config.json'} is {what}; train anew") from error

    @property
    def split(self) -> dict[str, Any]:
        """The split record. Raises `ModelError` when it cannot be read."""
        try:
            return dict(json.loads((self.path / "split.json").read_text()))
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.path / 'split.json'} is damaged; train anew") from error

    @property
    def experiment(self) -> str:
        """The MLflow experiment that it belongs to."""
        pipeline = self.record.kind == PIPELINE
        return str(self.read("pipeline.json")["experiment"]) if pipeline else self.config.experiment

    def data_dir(self) -> str | None:
        """Where it found its data, if they may still be there."""
        folder = self.config.data_dir
        return folder if folder and Path(folder).is_dir() else None

    def read(self, name: str) -> dict[str, Any]:
        """A JSON object among its files, empty where there is none. Raises `ModelError` when it is damaged."""
        path = self.path / name
        try:
            return dict(json.loads(path.read_text())) if path.exists() else {}
        except (OSError, TypeError, ValueError) as error:
            raise ModelError(f"{path} is damaged; evaluate or train anew") from error

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def resume(self) -> str:
        """The command that goes on with this run."""
        place = place_flag(self.path.parent.parent)
        return self.record.resume or f"anomaly-ae train --resume {self.record.id}{place}"

    def detector_folder(self) -> Path:
        """Where its detector is. Raises `ModelError` when the training is not finished."""
        status = self.record.status
        if self.record.kind == PIPELINE:
            raise ModelError(
                f"run {self.record.id} is that of a pipeline file; name one of its cells: anomaly-ae runs"
            )
        if status == FINISHED:
            return self.path / "detector"
        if status == RUNNING and self.is_locked():
            raise ModelError(
                f"run {self.record.id} is still training and has no threshold yet; wait until it is done"
            )
        raise ModelError(f"run {self.record.id} was interrupted and has no threshold; resume it with: {self.resume}")

    def write_history(self, history: "Sequence[Epoch]") -> None:
        """Write metrics.csv anew."""
        write_csv(self.path / "metrics.csv", [dataclasses.asdict(epoch) for epoch in history])

    def history(self) -> "list[Epoch]":
        """The epochs in metrics.csv."""
        from anomaly_ae.training import Epoch  # here, so that listing runs needs no torch

        path = self.path / "metrics.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return [
                Epoch(epoch=int(row.pop("epoch")), **{k: float(v) for k, v in row.items()})
                for row in csv.DictReader(file)
            ]

    def grids(self) -> list[Path]:
        """The reconstruction grids, by epoch."""
        return sorted((self.path / "images").glob("epoch-*.png"))

    @contextmanager
    def lock(self, wait: float = 0) -> Iterator[None]:
        """Hold the run; the system lets go of it when the process ends, however it ends.

        Raises `RunBusy` when another process still holds it after `wait` seconds.
        """
        lock = FileLock(self.path / "run.lock", timeout=wait)
        with storage_errors(f"write to {self.path}"):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                raise RunBusy(
                    f"run {self.path.name} is in another process's hands; wait for it or stop it"
                ) from error
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether a living process holds the run."""
        try:
            with self.lock():
                return False
        except RunBusy:
            return True


def place_flag(root: Path) -> str:
    """What a command needs to find runs in `root`, beginning with a space; nothing where it looks there anyway."""
    try:
        is_found = root == Home.find().root
    except UsageError:  # here none can be kept
        is_found = False
    return "" if is_found else f" --mlruns {shlex.quote(str(root))}"


def now() -> str:
    """The time as run.json has it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def conflicts(recorded: RunConfig, asked: RunConfig) -> list[str]:
    """Where a resumed run was asked for something else than it was started with; data may have moved."""
    from anomaly_ae.data.named import DATASETS  # here, for listing runs needs no torch

    before, after = recorded.to_dict(), asked.to_dict()
    moved = {"data_dir"} if recorded.dataset in DATASETS or asked.dataset in DATASETS else {"data_dir", "dataset"}
    return [
        f"{key} is {before[key]} and {after[key]} was asked"
        for key in before
        if key not in moved and before[key] != after[key]
    ]
