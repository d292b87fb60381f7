"""Deleting runs, here and in MLflow."""

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack

from anomaly_ae.errors import RunBusy
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.storage.atomic import storage_errors
from anomaly_ae.tracking.deletion import check_unregistered, delete_logged
from anomaly_ae.tracking.run_logger import mark_dead_runs


def find_deletable(home: RunStore, name: str) -> list[RunFolder]:
    """The run called `name`, and those below it: the cells of a pipeline, and calibrations of all of them.

    Raises `ModelNotFound`.
    """
    mark_dead_runs(home)
    found, records = [home.find_run(name)], home.records()
    for run in found:  # which grows
        found += [each for each, record in records.items() if record.parent == run.path.name]
    return found


def delete(home: RunStore, runs: Sequence[RunFolder]) -> None:
    """Delete runs and all that they have, here and in MLflow.

    Nothing is deleted when one of them is worked on, `RunBusy`, or registered, `UsageError`, or when MLflow is away,
    `StorageError`.
    """
    parent = runs[0].record.parent
    above = RunFolder(runs[0].path.with_name(parent)) if parent else None
    if above and above.path.is_dir() and above.is_locked():
        raise RunBusy(f"run {above.path.name}, which it is part of, is under way; wait for that or stop it")
    with ExitStack() as held:
        for run in runs:
            held.enter_context(run.lock())
        for run in runs:
            check_unregistered(home, run)
        for run in reversed(runs):  # what is below goes first: a kill leaves nothing that has lost what is above
            delete_logged(home, run)
            going = run.path.with_name(f".{run.path.name}.{os.getpid()}-deleted.tmp")
            with storage_errors(f"delete {run.path}"):
                run.path.rename(going)  # at once gone from the list
                shutil.rmtree(going)
