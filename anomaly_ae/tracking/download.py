"""Runs that only MLflow has."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from anomaly_ae.errors import ModelNotFound, StorageError, UsageError
from anomaly_ae.runs.record import TRAINING, RunRecord
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import SHORTEST_ID, RunStore
from anomaly_ae.storage.atomic import write_folder
from anomaly_ae.tracking.calls import KIND, PARENT
from anomaly_ae.tracking.client import mlflow_errors, open_client
from anomaly_ae.tracking.remote_runs import as_time, list_elsewhere

NEEDED = ("config.json", "split.json", "result.json", "detector")
EVALUATION_FOLDER = "evaluation"
WELCOME = {"metrics.csv", EVALUATION_FOLDER}
ID_LENGTH = 32  # of MLflow's run ids


def fetch_run(home: RunStore, name: str) -> RunFolder:
    """Make the run folder of a finished run that only MLflow has, called by its id or a unique beginning of one.

    Raises `ModelNotFound` when MLflow has no such run or it has no detector, `UsageError` when several begin so,
    `StorageError` when MLflow is away.
    """
    run_id = _whole_id(home, name)
    target = RunFolder(home.root / "runs" / run_id)
    missing = f"there is no run {name!r} with a detector at {home.tracking_uri}; list the runs with: anomaly-ae runs"
    with mlflow_errors(home, missing):
        client = open_client(home)
        found = client.get_run(run_id)
        info, parent = found.info, found.data.tags.get(PARENT)
        kind = found.data.tags.get(KIND, TRAINING)
        began, ended = (as_time(each) for each in (info.start_time, info.end_time or info.start_time))
        record = RunRecord(run_id, run_id, info.run_name, began, info.status, ended, on_server=True)
        record = replace(record, parent=parent, kind=kind)
        there = {artifact.path for artifact in client.list_artifacts(run_id)}

        def download(folder: Path) -> None:
            for name in (*NEEDED, *sorted(WELCOME & there)):
                client.download_artifacts(run_id, name, str(folder))
            RunFolder(folder).write_record(record)

        write_folder(target.path, download)
    return target


def fetch_evaluation(home: RunStore, run: RunFolder) -> None:
    """Bring what somebody else has measured of a run since it was fetched; nothing where the server is away."""
    run_id, here = run.record.mlflow_run_id, run.path / EVALUATION_FOLDER
    if home.is_local or run_id is None or here.exists():
        return
    with contextlib.suppress(ModelNotFound, StorageError), mlflow_errors(home, "no such run"):
        client = open_client(home)
        if any(artifact.path == EVALUATION_FOLDER for artifact in client.list_artifacts(run_id)):
            write_folder(here, lambda folder: _download_files(client, run_id, folder))


def _whole_id(home: RunStore, name: str) -> str:
    """The id of the only run that begins so; the name itself where there is none."""
    if not SHORTEST_ID <= len(name) < ID_LENGTH:
        return name
    begins = [row.run_id for row in list_elsewhere(home) if row.run_id.startswith(name)]
    if len(begins) > 1:
        raise UsageError(f"{len(begins)} runs begin with {name!r}; give more of the id")
    return begins[0] if begins else name


def _download_files(client: Any, run_id: str, folder: Path) -> None:
    """The files of the evaluation, without the folder they are in."""
    client.download_artifacts(run_id, EVALUATION_FOLDER, str(folder))
    for path in [*(folder / EVALUATION_FOLDER).iterdir()]:
        path.rename(folder / path.name)
    (folder / EVALUATION_FOLDER).rmdir()
