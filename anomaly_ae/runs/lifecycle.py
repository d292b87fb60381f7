"""How a run begins, and that its end is kept in its folder, and by who observes it, whatever happens."""

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from anomaly_ae.errors import Interrupted
from anomaly_ae.runs.record import FAILED, FINISHED, KILLED, RunRecord, now
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.storage.atomic import make_folder, storage_errors, write_json

LOCK_WAIT = 60.0  # seconds to wait for another command that works on the same run


class RunObserver(Protocol):
    """Who hears of a run beside its folder, as MLflow does.

    run_id: what the observer calls the run; None while it knows nothing of it
    """

    run_id: str | None

    def begin(self, experiment: str, record: RunRecord) -> None:
        """Hear that a run has begun."""

    def set_status(self, status: str) -> None:
        """Hear how it is: RUNNING, FINISHED, KILLED or FAILED."""

    def lacks_something(self) -> bool:
        """Whether not everything was heard that was told."""

    def finish(self, run: RunFolder, status: str, behind: bool) -> None:
        """Hear what it came to. behind: whether something was not heard before"""


@contextmanager
def start_run(
    home: RunStore, experiment: str, record: RunRecord, files: Mapping[str, Any], observer: RunObserver
) -> Iterator[RunFolder]:
    """A new run, held while it is worked on: first its folder, then the observer's run, after whose id the folder is
    called from then on. How it ends is kept in both, from the first moment that others see it.

    files: what is known of it, as JSON by the files' names
    """
    folder = RunFolder(home.root / "runs" / record.id)
    hidden = RunFolder(folder.path.with_name(f".{record.id}.{os.getpid()}.tmp"))  # until it is whole
    try:
        with storage_errors(f"keep runs in {home.root}"):
            make_folder(hidden.path)
        with hidden.lock(), run_status(folder, observer):
            for name, content in files.items():
                write_json(hidden.path / name, content)
            hidden.write_record(dataclasses.replace(record, on_server=record.tracked and not home.is_local))
            hidden.named(record.id)
            if record.tracked:
                observer.begin(experiment, record)
            yield folder.renamed(observer.run_id) if observer.run_id else folder
    finally:
        shutil.rmtree(hidden.path, ignore_errors=True)


@contextmanager
def run_status(run: RunFolder, observer: RunObserver) -> Iterator[None]:
    """Mark a run that is not finished KILLED on Ctrl-C and FAILED on an error, in the folder and for its observer."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(_end(run, observer, KILLED)) from None
    except BaseException:
        _end(run, observer, FAILED)
        raise


def _end(run: RunFolder, observer: RunObserver, status: str) -> str:
    """Keep how a run ended; what to tell its user. the observer hears of it even when the disk is full."""
    if observer.run_id and not run.path.is_dir():  # it has its name there
        run = RunFolder(run.path.with_name(observer.run_id))
    if not run.path.is_dir():  # nobody has seen it yet
        return "interrupted"
    record = run.record
    if record.status == FINISHED:
        return f"interrupted after the training was finished; log the rest with: {run.command('runs', sync=True)}"
    observer.set_status(status)
    unlogged = record.tracked and observer.lacks_something()
    run.update(status=status, mlflow_run_id=observer.run_id, unlogged=unlogged)
    weights = f"best weights so far: {run.checkpoint}; " if run.checkpoint.exists() else ""
    return f"interrupted; {weights}go on with: {run.resume}"


def finish_run(run: RunFolder, observer: RunObserver, status: str = FINISHED, behind: bool = False) -> None:
    """Mark a run as ended, and tell its observer all that it came to. behind: whether that lacked something before"""
    run.update(status=status, finished=now())
    observer.finish(run, status, behind)
