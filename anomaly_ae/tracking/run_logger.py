"""A run in MLflow: a mirror of the run folder.

Nothing here may stop a training. What could not be logged stays in the run folder, is said once, and is
uploaded by `anomaly-ae runs --sync`.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomaly_ae.errors import ModelError, RunBusy, StorageError, one_line
from anomaly_ae.runs.record import KILLED, PIPELINE, RUNNING, RunRecord
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import stage
from anomaly_ae.runtime.worker import Worker
from anomaly_ae.storage.atomic import sweep_top
from anomaly_ae.tracking import calls
from anomaly_ae.tracking.client import explain, open_client, store_held
from anomaly_ae.tracking.database import run_ids, running_runs
from anomaly_ae.tracking.models import load_model_logging, log_model
from anomaly_ae.tracking.relocate import follow_move

if TYPE_CHECKING:
    from anomaly_ae.training import Epoch

RETRY_AFTER = 60.0  # seconds after which MLflow, once away, may be back
LOGGING_MODULES = ("mlflow.tracking", "anomaly_ae.tracking.calls")  # while there is nothing to log yet
_worker: Worker | None = None


def start(home: RunStore) -> None:
    """Have a process load MLflow and open its store, if there is one, for what is logged from now on; once, and not
    where MLflow is loaded already.
    """
    global _worker
    if _worker is None and "mlflow" not in sys.modules:
        _worker = Worker(*LOGGING_MODULES)
        if not home.has_no_store():
            _worker.submit(_worker.ask, Call(home, bool, ()))  # what is wrong with the store the first true call says


@dataclass(frozen=True)
class Failure:
    """Why MLflow could not be told something."""

    reason: str


@dataclass(frozen=True)
class Call:
    """Something to tell MLflow: `do(client, *arguments)`."""

    home: RunStore
    do: Callable[..., Any]
    arguments: tuple[Any, ...]

    def carry_out(self) -> Any:
        """What `do` returns, or a `Failure`."""
        try:
            with contextlib.redirect_stdout(sys.stderr), store_held(self.home):  # MLflow prints addresses there
                return self.do(open_client(self.home), *self.arguments)
        except ModelError:  # it is the run folder that is damaged
            raise
        except Exception as error:  # noqa: BLE001 (whatever MLflow raises, the training goes on)
            return Failure(one_line(explain(self.home, error)))


class RunLogger:
    """A run in MLflow, or nothing at all when `run_id` is None. After the first failure it stays away.

    Where a process was started for it, that talks to MLflow while this one goes on.
    """

    def __init__(self, home: RunStore, run_id: str | None) -> None:
        self.home = home
        self.run_id = run_id
        self.failure: str | None = None
        self.failed_at = 0.0
        self._told = list[Future[Any]]()  # what may not have been heard yet

    def begin(self, experiment: str, record: RunRecord) -> None:
        """Open a run in MLflow, or find the one that a process which was killed has opened for this folder. `run_id`
        stays None when MLflow cannot be reached.
        """
        parent = _mlflow_parent(self.home, record)
        with stage("waiting for MLflow"):
            try:
                self.run_id = self._call(calls.begin_run, self.home, experiment, record, parent).result()
            except BaseException:  # Ctrl-C: MLflow may have the run all the same
                self.run_id = self._call(calls.find_begun, self.home, experiment, record).result()
                raise
        if _worker:
            self._call(load_model_logging)  # while there is a training to wait for

    def finish(self, run: RunFolder, status: str, behind: bool) -> None:
        """Bring MLflow all that a run came to. behind: whether MLflow lacked something before"""
        with stage("trying MLflow once more" if self.failure else "logging to MLflow"):
            self.log_model(run)  # first, for the results are of the model, too
            self.tell(calls.log_results, run)
            self.set_status(status)
            sync_pending(run, self, behind)

    def lacks_something(self) -> bool:
        """Whether MLflow does not have all that it was given, once it has heard all. Raises `ModelError` where the
        run folder is damaged.
        """
        while self._told:
            self._told.pop(0).result()
        return self.run_id is None or self.failure is not None

    def tell(self, do: Callable[..., Any], *arguments: Any) -> None:
        """Have `do(client, run_id, *arguments)`, one of `calls`, carried out, now or later."""
        if self.run_id is not None:
            self._call(do, self.run_id, *arguments)

    def log_parent(self, parent: str | None) -> None:
        """Put the run below the run `parent`, if there is one."""
        if parent:
            self.tell(calls.log_parent, parent)

    def log_epochs(self, epochs: "Sequence[Epoch]") -> None:
        """Losses, learning rate and speed, the epoch as step."""
        self.tell(calls.log_metrics, [*calls.epoch_metrics(epochs)])

    def log_model(self, run: RunFolder) -> None:
        """The detector as a model of MLflow, if there is one."""
        if (run.path / "detector").exists():
            self.tell(log_model, run.path)

    def set_status(self, status: str) -> None:
        """RUNNING, FINISHED, KILLED or FAILED."""
        self.tell(calls.set_status, status)

    def _call(self, do: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """What comes of `do(client, *arguments)`, now or later; None where that, or what was told before, failed."""
        call, answer = Call(self.home, do, arguments), Future[Any]()
        if _worker:
            self._told.append(answer := _worker.submit(self._attempt, call))
        else:
            answer.set_result(self._attempt(call))
        return answer

    def _attempt(self, call: Call) -> Any:
        if self.failure:
            return None
        answer = _worker.ask(call) if _worker else call.carry_out()
        if not isinstance(answer, Failure):
            return answer
        self.failed_at, self.failure = time.monotonic(), answer.reason
        logger.warning(f"going on without MLflow: {self.failure}")
        return None


def sync_pending(run: RunFolder, run_logger: RunLogger, behind: bool = False) -> None:
    """Keep whether MLflow has everything. If not, try once more, and say where it is kept if that fails.

    behind: whether MLflow lacked something before
    """
    run.update(unlogged=run.record.tracked and (behind or run_logger.lacks_something()))
    just_now = run_logger.failure and time.monotonic() - run_logger.failed_at < RETRY_AFTER
    if run.record.unlogged and (just_now or not upload(run_logger.home, run)):
        again = run.command("runs", sync=True)
        logger.info(f"everything is kept in {run.path}; log it to MLflow later with: {again}")


def upload(home: RunStore, run: RunFolder) -> bool:
    """Bring MLflow up to what the run folder has; whether that worked is kept in the folder, and returned."""
    record = run.record
    run_logger = RunLogger(home, record.mlflow_run_id)
    pipeline = record.kind == PIPELINE
    if record.mlflow_run_id is None:
        run_logger.begin(run.experiment, record)
        run.update(mlflow_run_id=run_logger.run_id, on_server=not home.is_local)
    run_logger.log_parent(_mlflow_parent(home, record))
    if pipeline:
        run_logger.tell(calls.log_pipeline, run)
        for cell in home.runs():
            if cell.record.parent == record.id and cell.record.mlflow_run_id:
                RunLogger(home, cell.record.mlflow_run_id).log_parent(run_logger.run_id)
    else:
        run_logger.tell(calls.log_start, run)
        run_logger.tell(calls.log_missing, run)
    run_logger.log_model(run)  # first, for the results are of the model, too
    run_logger.tell(calls.log_results, run)
    run_logger.set_status(record.status)
    run.update(unlogged=run_logger.lacks_something())
    return not run.record.unlogged


def _mlflow_parent(home: RunStore, record: RunRecord) -> str | None:
    """MLflow's id of the run that this one is a cell of, if it has one."""
    parents = [run for run in home.runs() if run.record.id == record.parent]
    return parents[0].record.mlflow_run_id if parents else None


def sync(home: RunStore) -> None:
    """Log to MLflow whatever runs have that it lacks, and see to a home that was moved.

    Raises `StorageError` when some of it could not be logged.
    """
    failed = 0

    def log(run: RunFolder) -> None:
        nonlocal failed
        done = upload(home, run)
        failed += not done
        said = f"logged to MLflow as {run.record.mlflow_run_id}" if done else "still not logged"
        logger.info(f"run {run.record.id}: {said}")

    mark_dead_runs(home)
    _forget_lost(home)
    follow_move(home)
    waiting = [run for run in home.runs() if run.record.unlogged and run.record.status != RUNNING]
    waiting.sort(key=lambda run: run.record.parent is not None)  # parents first, so that their cells find them
    _with_each(waiting, log)
    if failed:
        raise StorageError(f"{failed:,} of {len(waiting):,} runs could not be logged, for the reasons above")
    if not waiting:
        logger.info("nothing is waiting to be logged")


def _forget_lost(home: RunStore) -> None:
    """Let runs be logged anew that MLflow's database had, and has no more since it was deleted."""
    if not home.is_local:
        return
    logged = [run for run in home.runs() if run.record.mlflow_run_id and not run.record.on_server]
    there = run_ids(home) if logged else set()
    lost = [run for run in logged if run.record.mlflow_run_id not in there and run.record.status != RUNNING]
    if lost:
        several = "run that it had: it is" if len(lost) == 1 else "runs that it had: they are"
        logger.info(f"MLflow's database lacks {len(lost):,} {several} logged anew")
    _with_each(lost, lambda run: run.update(mlflow_run_id=None, unlogged=True))


def mark_dead_runs(home: RunStore) -> None:
    """Mark runs that a process which is gone has left RUNNING as KILLED, here and in MLflow, and remove what it was
    making or deleting.
    """
    sweep_top(home.root / "runs")

    def mark(run: RunFolder) -> None:
        if run.record.status != RUNNING:
            return  # another command was faster
        run.update(status=KILLED)
        logger.info(
            f"run {run.record.id} was left by a process that is gone: now KILLED; go on with it: {run.resume}"
        )
        if run.record.tracked:
            upload(home, run)

    _with_each(home.dead_runs(), mark)
    _mark_orphans(home)


def _mark_orphans(home: RunStore) -> None:
    """Mark runs as KILLED that a local store has as RUNNING, and that have no folder here: nobody works on them.

    Of a run that is just beginning there is the folder first, which is then called as MLflow calls the run.
    """
    running = running_runs(home, calls.FOLDER_TAG) if home.is_local else {}
    known = {run.record.mlflow_run_id for run in home.runs()} if running else set()
    for run_id, folder in running.items():
        there = any((home.root / "runs" / name).exists() for name in (folder, run_id) if name)
        if not there and run_id not in known:
            logger.info(
                f"MLflow's run {run_id} was left by a process that is gone, and has no folder here: now KILLED"
            )
            RunLogger(home, run_id).set_status(KILLED)


def _with_each(runs: Sequence[RunFolder], do: Callable[[RunFolder], None]) -> None:
    """Hold each run and do something with it; one that is busy or damaged stops none of the others."""
    for run in runs:
        try:
            with run.lock():
                do(run)
        except (RunBusy, ModelError) as error:
            logger.warning(one_line(error))
