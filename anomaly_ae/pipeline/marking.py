"""How a run begins, and that its end is kept in its folder and in MLflow, whatever happens."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from anomaly_ae.errors import Interrupted
from anomaly_ae.files import storage_errors
from anomaly_ae.progress import say
from anomaly_ae.runs import FAILED, FINISHED, KILLED, Home, RunFolder, place_flag
from anomaly_ae.tracking.mirror import Tracker, upload

LOCK_WAIT = 60.0  # seconds to wait for another command that works on the same run
RETRY_AFTER = 60.0  # seconds after which MLflow, once away, may be back


def begin_run(
    home: Home, experiment: str, name: str, tracking: bool, parent: RunFolder | None = None
) -> tuple[RunFolder, Tracker]:
    """The folder of a new run, not yet made, with the id that MLflow gave it, or one of our own."""
    with storage_errors(f"keep runs in {home.root}"):
        (home.root / "runs").mkdir(parents=True, exist_ok=True)
    above = parent.record.mlflow_run_id if parent else None
    tracker = Tracker.begin(home, experiment, name, above) if tracking else Tracker(home, None)
    return RunFolder(home.root / "runs" / (tracker.run_id or secrets.token_hex(16))), tracker


@contextmanager
def marked(run: RunFolder, tracker: Tracker) -> Iterator[None]:
    """Mark a run that is not finished KILLED on Ctrl-C and FAILED on an error, in the folder and in MLflow."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(_end(run, tracker, KILLED)) from None
    except BaseException:
        _end(run, tracker, FAILED)
        raise


def _end(run: RunFolder, tracker: Tracker, status: str) -> str:
    """Keep how a run ended; what to tell its user. MLflow hears of it even when the disk is full."""
    started = (run.path / "run.json").exists()
    if started and run.record.status == FINISHED:
        return f"interrupted after the training was finished; log the rest with: anomaly-ae runs --sync ({run.path})"
    tracker.set_status(status)
    if not started:
        return "interrupted before the training began"
    run.update(status=status, unlogged=run.record.tracked and tracker.lacks_something())
    weights = f"best weights so far: {run.checkpoint}; " if run.checkpoint.exists() else ""
    return f"interrupted; {weights}go on with: {run.resume}"


def finish(run: RunFolder, tracker: Tracker, status: str = FINISHED, behind: bool = False) -> None:
    """Mark a run as ended, and bring MLflow all that it came to. behind: whether MLflow lacked something before"""
    run.update(status=status)
    tracker.log_model(run)  # first, for the results are of the model, too
    tracker.log_results(run)
    tracker.set_status(status)
    settle(run, tracker, behind)


def settle(run: RunFolder, tracker: Tracker, behind: bool = False) -> None:
    """Keep whether MLflow has everything. If not, try once more, and say where it is kept if that fails.

    behind: whether MLflow lacked something before
    """
    run.update(unlogged=run.record.tracked and (behind or tracker.lacks_something()))
    just_now = tracker.failure and time.monotonic() - tracker.failed_at < RETRY_AFTER
    if run.record.unlogged and (just_now or not upload(tracker.home, run)):
        again = f"anomaly-ae runs --sync{place_flag(tracker.home.root)}"
        say(f"everything is kept in {run.path}; log it to MLflow later with: {again}")
