"""How a run begins, and that its end is kept in its folder and in MLflow, whatever happens."""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from anomaly_ae.errors import Interrupted
from anomaly_ae.runs.record import FAILED, FINISHED, KILLED, RunRecord, now
from anomaly_ae.runs.store import RunFolder, RunStore
from anomaly_ae.runtime.progress import say, stage
from anomaly_ae.storage.atomic import make_folder, storage_errors, write_json
from anomaly_ae.tracking.run_logger import RunLogger, upload

LOCK_WAIT = 60.0  # seconds to wait for another command that works on the same run
RETRY_AFTER = 60.0  # seconds after which MLflow, once away, may be back


@contextmanager
def start_run(
    home: RunStore, experiment: str, record: RunRecord, files: Mapping[str, Any]
) -> Iterator[tuple[RunFolder, RunLogger]]:
    """A new run, held while it is worked on: first its folder, then MLflow's run, after whose id the folder is called
    from then on. How it ends is kept in both.

    files: what is known of it, as JSON by the files' names
    """
    hidden, tracker = RunFolder(home.root / "runs" / f".{record.id}.{os.getpid()}.tmp"), RunLogger(home, None)
    with storage_errors(f"keep runs in {home.root}"):
        make_folder(hidden.path)
    with hidden.lock():
        for name, content in files.items():
            write_json(hidden.path / name, content)
        hidden.write_record(dataclasses.replace(record, on_server=record.tracked and not home.is_local))
        folder = hidden.named(record.id)  # whole from the first moment that others see it
        with run_status(folder, tracker):
            if record.tracked:
                with stage("waiting for MLflow"):
                    tracker.begin(experiment, record)
            run = folder.renamed(tracker.run_id) if tracker.run_id else folder
        with run_status(run, tracker):
            yield run, tracker


@contextmanager
def run_status(run: RunFolder, tracker: RunLogger) -> Iterator[None]:
    """Mark a run that is not finished KILLED on Ctrl-C and FAILED on an error, in the folder and in MLflow."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(_end(run, tracker, KILLED)) from None
    except BaseException:
        _end(run, tracker, FAILED)
        raise


def _end(run: RunFolder, tracker: RunLogger, status: str) -> str:
    """Keep how a run ended; what to tell its user. MLflow hears of it even when the disk is full."""
    if tracker.run_id and not run.path.is_dir():  # it has just got its name in MLflow
        run = RunFolder(run.path.with_name(tracker.run_id))
    record = run.record
    if record.status == FINISHED:
        return f"interrupted after the training was finished; log the rest with: {run.command('runs --sync')}"
    tracker.set_status(status)
    unlogged = record.tracked and tracker.lacks_something()
    run.update(status=status, mlflow_run_id=tracker.run_id, unlogged=unlogged)
    weights = f"best weights so far: {run.checkpoint}; " if run.checkpoint.exists() else ""
    return f"interrupted; {weights}go on with: {run.resume}"


def finish_run(run: RunFolder, tracker: RunLogger, status: str = FINISHED, behind: bool = False) -> None:
    """Mark a run as ended, and bring MLflow all that it came to. behind: whether MLflow lacked something before"""
    run.update(status=status, finished=now())
    with stage("logging to MLflow"):
        tracker.log_model(run)  # first, for the results are of the model, too
        tracker.log_results(run)
        tracker.set_status(status)
        sync_pending(run, tracker, behind)


def sync_pending(run: RunFolder, tracker: RunLogger, behind: bool = False) -> None:
    """Keep whether MLflow has everything. If not, try once more, and say where it is kept if that fails.

    behind: whether MLflow lacked something before
    """
    run.update(unlogged=run.record.tracked and (behind or tracker.lacks_something()))
    just_now = tracker.failure and time.monotonic() - tracker.failed_at < RETRY_AFTER
    if run.record.unlogged and (just_now or not upload(tracker.home, run)):
        again = run.command("runs --sync")
        say(f"everything is kept in {run.path}; log it to MLflow later with: {again}")
