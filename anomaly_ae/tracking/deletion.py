"""Runs that are to be in MLflow no longer."""

from anomaly_ae.errors import ModelNotFound, UsageError
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking.client import mlflow_errors, open_client, store_held
from anomaly_ae.tracking.models import model_of


def check_unregistered(home: RunStore, run: RunFolder) -> None:
    """Raise `UsageError` when a run's model is in the registry, where it may be in use; `StorageError` when MLflow is
    away.
    """
    if (run_id := _logged(home, run)) is None:
        return
    with mlflow_errors(home, f"MLflow has no run {run_id}"), store_held(home):
        versions = open_client(home).search_model_versions(f"run_id = '{run_id}'")
    if versions:
        named = ", ".join(f"version {each.version} of {each.name}" for each in versions)
        raise UsageError(f"run {run.path.name} is registered as {named}; delete that first, in MLflow's pages")


def delete_logged(home: RunStore, run: RunFolder) -> None:
    """Delete a run and its model in MLflow, whose trash keeps them until `mlflow gc`; where it has none, all is well.

    Raises `StorageError` when MLflow is away.
    """
    if (run_id := _logged(home, run)) is None:
        return
    try:
        with mlflow_errors(home, f"MLflow has no run {run_id}"), store_held(home):
            client = open_client(home)
            if model_id := model_of(client, run_id):
                client.delete_logged_model(model_id)
            client.delete_run(run_id)
    except ModelNotFound:  # somebody was faster
        pass


def _logged(home: RunStore, run: RunFolder) -> str | None:
    """MLflow's id of a run, if there is a store that may have it."""
    return None if home.has_no_store() else run.record.mlflow_run_id
