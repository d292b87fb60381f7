from typing import Any

from mlflow import MlflowClient

from anomaly_ae.tracking.run_logger import RunLogger, upload
from tests.conftest import Trained


def models(client: MlflowClient, trained: Trained) -> list[Any]:
    run_id = trained.run.record.id
    experiment = client.get_run(run_id).info.experiment_id
    return client.search_logged_models([experiment], f"source_run_id = '{run_id}'")


def test_a_run_has_its_model_once_however_often_it_is_uploaded(trained: Trained) -> None:
    client = MlflowClient(trained.home.tracking_uri)
    (before,) = models(client, trained)
    assert (before.name, before.status) == ("model", "READY")
    assert upload(trained.home, trained.run)
    assert [model.model_id for model in models(client, trained)] == [before.model_id]
    (output,) = client.get_run(trained.run.record.id).outputs.model_outputs
    assert output.model_id == before.model_id


def test_a_model_left_unfinished_is_replaced(trained: Trained) -> None:
    client, run_id = MlflowClient(trained.home.tracking_uri), trained.run.record.id
    experiment = client.get_run(run_id).info.experiment_id
    unfinished = client.create_logged_model(experiment, "model", source_run_id=run_id)
    run_logger = RunLogger(trained.home, run_id)
    run_logger.log_model(trained.run)
    assert run_logger.failure is None
    (left,) = models(client, trained)
    assert left.status == "READY"
    assert left.model_id != unfinished.model_id
