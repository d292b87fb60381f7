"""A project folder that was moved or copied, with its runs in MLflow."""

import json
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.runs.store import RunStore
from tests.conftest import Cli

SHORT = RunConfig(normal="0,1", epochs=2)
BACKUPS = "mlflow.db.before-move-*"


def home_in(project: Path) -> RunStore:
    return RunStore.find(str(project / "mlruns"))


def train(project: Path) -> str:
    return anomaly_ae.train(SHORT, home=home_in(project)).run_id


def artifacts_of(project: Path, run_id: str) -> Path:
    return project / "mlruns" / "artifacts" / run_id / "artifacts"


def score_with_model(home: RunStore, run_id: str, image: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """The score of an image, by the model that MLflow loads."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri)
    model = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    try:
        return float(model.predict(pd.DataFrame({"content": [image.read_bytes()]}))["score"][0])
    finally:
        model.unwrap_python_model().decoders.close()


@pytest.mark.usefixtures("figures")
def test_a_moved_project_goes_on_in_the_new_place(
    cli_process: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "project", tmp_path / "my projects" / "Prüfung"
    first = train(old)
    new.parent.mkdir()
    old.rename(new)

    ended = cli_process("evaluate", "--mlruns", str(new / "mlruns"), "--json")
    (backup,) = (new / "mlruns").glob(BACKUPS)
    assert f"moved or copied from {old / 'mlruns'}" in ended.err
    assert backup.name in ended.err
    client = MlflowClient(home_in(new).tracking_uri)
    assert client.get_run(first).data.metrics["test/auroc"] == ended.json()["auroc"]
    assert {"detector", "evaluation", "figures", "images"} <= {file.path for file in client.list_artifacts(first)}
    config = json.loads(Path(client.download_artifacts(first, "config.json")).read_text())
    assert config["normal"] == "0,1"

    (tmp_path / "pictures").mkdir()
    Image.new("L", (8, 8), 90).save(tmp_path / "pictures" / "gray.png")
    (scored,) = anomaly_ae.load(first, mlruns=str(new / "mlruns")).score_folder(tmp_path / "pictures")
    score = score_with_model(home_in(new), first, tmp_path / "pictures" / "gray.png", monkeypatch)
    assert score == pytest.approx(scored["score"], rel=1e-5)

    second = train(new)
    assert (artifacts_of(new, second) / "detector" / "detector.json").exists()
    assert client.list_artifacts(second, "detector")
    assert len(list((new / "mlruns").glob(BACKUPS))) == 1
    assert not old.exists()


def test_a_copy_and_its_original_go_on_separately(tmp_path: Path) -> None:
    original, twin = tmp_path / "project", tmp_path / "project2"
    shared = train(original)
    before = (original / "mlruns" / "mlflow.db").read_bytes()
    shutil.copytree(original, twin)
    in_twin = train(twin)
    assert (original / "mlruns" / "mlflow.db").read_bytes() == before
    in_original = train(original)
    assert not list((original / "mlruns").glob(BACKUPS))
    for project, own, other in ((original, in_original, in_twin), (twin, in_twin, in_original)):
        client = MlflowClient(home_in(project).tracking_uri)
        assert {run.info.run_id for run in client.search_runs(["1"])} == {shared, own}
        assert client.get_run(shared).info.artifact_uri == artifacts_of(project, shared).as_uri()
        assert artifacts_of(project, own).exists()
        assert not artifacts_of(project, other).exists()
