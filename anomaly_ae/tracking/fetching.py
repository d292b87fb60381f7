"""Runs that only MLflow has."""

from datetime import UTC, datetime
from pathlib import Path

from anomaly_ae.files import write_folder
from anomaly_ae.runs import TRAINING, Home, Record, RunFolder
from anomaly_ae.tracking.client import mlflow_errors, open_client
from anomaly_ae.tracking.mirror import KIND, PARENT

NEEDED = ("config.json", "split.json", "result.json", "detector")
WELCOME = {"metrics.csv", "evaluation"}


def fetch_run(home: Home, run_id: str) -> RunFolder:
    """Make the run folder of a finished run that only MLflow has.

    Raises `ModelNotFound` when MLflow has no such run or it has no detector, `StorageError` when MLflow is away.
    """
    target = RunFolder(home.root / "runs" / run_id)
    missing = (
        f"there is no run {run_id!r} with a detector at {home.tracking_uri}; give the whole id of a finished "
        "training, as it shows in: anomaly-ae ui"
    )
    with mlflow_errors(home, missing):
        client = open_client(home)
        found = client.get_run(run_id)
        info, parent = found.info, found.data.tags.get(PARENT)
        started = datetime.fromtimestamp(info.start_time / 1000, UTC).isoformat(timespec="microseconds")
        kind = found.data.tags.get(KIND, TRAINING)
        record = Record(run_id, run_id, info.run_name, started, info.status, parent=parent, kind=kind)
        there = {artifact.path for artifact in client.list_artifacts(run_id)}

        def download(folder: Path) -> None:
            for name in (*NEEDED, *sorted(WELCOME & there)):
                client.download_artifacts(run_id, name, str(folder))
            RunFolder(folder).write_record(record)

        write_folder(target.path, download)
    return target
