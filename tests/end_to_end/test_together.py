"""Trainings that log to one store at the same time."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from anomaly_ae.runs.record import FINISHED
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from tests.conftest import start

TOGETHER = 4
EPOCHS = 3


def files(client: MlflowClient, run_id: str, folder: str) -> set[str]:
    return {Path(file.path).name for file in client.list_artifacts(run_id, folder)}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_nothing_is_lost(client: MlflowClient, run: RunFolder) -> None:
    """MLflow has all that the run folder has."""
    run_id, seed = run.record.id, run.config.seed
    logged = client.get_run(run_id)
    assert (run.record.unlogged, logged.info.status, logged.data.params["seed"]) == (False, FINISHED, str(seed))
    losses = [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "val/loss")]
    assert losses == [(epoch.epoch, epoch.validation_loss) for epoch in run.history()]
    assert len(losses) == EPOCHS
    assert "calibration/threshold" in logged.data.metrics
    for folder in ("figures", "detector", "network"):
        assert files(client, run_id, folder) == names(run.path / folder) != set()
    assert sum(name.endswith(".png") for name in files(client, run_id, "images")) == len(run.grids()) > 0
    assert {"config.json", "split.json", "metrics.csv", "result.json"} <= files(client, run_id, "")
    (model,) = client.search_logged_models([logged.info.experiment_id], f"source_run_id = '{run_id}'")
    assert model.status == "READY"
    assert client.list_logged_model_artifacts(model.model_id)


@pytest.mark.slow  # four whole trainings
@pytest.mark.timeout(400)  # four times ten seconds of a processor, and others may be at work
def test_trainings_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # they share the processor
    settings = ("train", "--normal", "0,1,2", "--epochs", str(EPOCHS), "--experiment", "together")
    started = [start(tmp_path, *settings, "--seed", str(seed)) for seed in range(TOGETHER)]
    try:
        said = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * TOGETHER, said
    assert [each for each in said if "warning" in each] == []
    home = RunStore.find(str(tmp_path / "mlruns"))
    client = MlflowClient(home.tracking_uri)
    experiment = client.get_experiment_by_name("together")
    assert experiment is not None
    logged = client.search_runs([experiment.experiment_id])
    assert {run.info.run_id for run in logged} == {run.record.id for run in home.runs()}
    assert sorted(run.config.seed for run in home.runs()) == list(range(TOGETHER))
    for run in home.runs():
        assert_nothing_is_lost(client, run)
