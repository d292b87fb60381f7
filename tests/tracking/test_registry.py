import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from PIL import Image

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import ModelNotFound, StorageError, UsageError
from anomaly_ae.runs.store import RunStore
from anomaly_ae.storage.atomic import write_json
from anomaly_ae.workflows.find_model import find_model
from tests.conftest import Trained


@pytest.fixture
def client(trained: Trained) -> MlflowClient:
    return MlflowClient(trained.home.tracking_uri)


def test_a_promoted_run_is_found_by_its_alias_and_carries_its_evaluation(
    trained: Trained, client: MlflowClient
) -> None:
    promoted = anomaly_ae.promote(trained.run.record.id[:8], home=trained.home)
    assert (promoted.name, promoted.alias, promoted.uri) == ("digits", "champion", "models:/digits@champion")
    version = client.get_model_version_by_alias("digits", "champion")
    assert int(version.version) == promoted.version
    assert float(version.tags["auroc"]) == pytest.approx(trained.evaluation.auroc, abs=1e-5)
    assert f"{trained.evaluation.auroc:.4f}" in version.description
    for uri in (promoted.uri, f"models:/digits/{promoted.version}"):
        folder, run = find_model(trained.home, uri)
        assert (folder, run) == (trained.run.path / "detector", trained.run)


def test_a_run_is_one_version_whatever_it_is_called(trained: Trained, client: MlflowClient) -> None:
    first = anomaly_ae.promote(trained.run.record.id, home=trained.home)
    again = anomaly_ae.promote(trained.run.record.id, "challenger", home=trained.home)
    assert again.version == first.version
    aliases = client.get_registered_model("digits").aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {
        "champion": first.version,
        "challenger": first.version,
    }


def test_the_alias_goes_to_the_next_one_which_is_warned_of_where_it_is_poor_or_unknown(
    home: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = RunConfig(normal="0,1", epochs=1)
    one = home.find_run(anomaly_ae.train(settings, home=home, tracking=False).run_id)
    evaluation = anomaly_ae.evaluate(home=home)
    capsys.readouterr()
    anomaly_ae.promote(one.record.id, home=home, name="line-3")
    assert "warning" not in capsys.readouterr().err
    two = home.find_run(anomaly_ae.train(settings, home=home).run_id)
    promoted = anomaly_ae.promote("latest", home=home, name="line-3")
    assert (promoted.run_id, promoted.before, promoted.auroc) == (two.record.id, 1, None)
    assert find_model(home, "models:/line-3@champion")[1] == two
    said = capsys.readouterr().err
    assert f"warning: not evaluated yet, so nobody knows how good it is: anomaly-ae evaluate {two.record.id}" in said
    assert f"champion was version 1 with AUROC {evaluation.auroc:.4f} until now, and it is not known of" in said
    anomaly_ae.promote(one.record.id, home=home, name="line-3")
    poor = one.read("evaluation/metrics.json") | {"auroc": 0.61}
    write_json(two.path / "evaluation" / "metrics.json", poor)
    capsys.readouterr()
    anomaly_ae.promote(two.record.id, home=home, name="line-3")
    said = capsys.readouterr().err
    assert "warning: its AUROC is 0.6100, which is poor" in said
    assert f"with AUROC {evaluation.auroc:.4f} until now, and that of the new one is 0.6100" in said


def test_the_model_has_an_example_and_the_figures(
    trained: Trained, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = trained.run.record.id
    (model,) = client.search_logged_models([client.get_run(run_id).info.experiment_id], f"source_run_id = '{run_id}'")
    metrics = {metric.key: metric.value for metric in model.metrics}
    assert metrics["test/auroc"] == trained.evaluation.auroc
    assert metrics["calibration/threshold"] == pytest.approx(trained.result.threshold)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.home.tracking_uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    row = loaded.predict(loaded.input_example).to_dict("records")[0]
    loaded.unwrap_python_model().decoders.close()
    assert row["score"] == pytest.approx(
        float(trained.detector().score(Image.open(trained.run.path / "example.png")))
    )
    assert loaded.metadata.signature.params.params[0].name == "target_fpr"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"alias": "latest"}, "'latest' was given"),
        ({"alias": "v3"}, "'v3' was given"),
        ({"alias": "a b"}, "an alias has letters"),
        ({"name": "a/b"}, "'a/b' was given"),
        ({"name": " "}, "a model's name has letters"),
        ({"name": ""}, "a model's name has letters"),
    ],
)
def test_names_that_cannot_be_used_are_refused_before_anything_is_registered(
    trained: Trained, given: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        anomaly_ae.promote(trained.run.record.id, home=trained.home, **given)


def test_a_run_that_this_store_lacks_is_logged_to_it(home: RunStore, tmp_path: Path) -> None:
    other = RunStore.find(str(tmp_path / "other"))
    anomaly_ae.train(RunConfig(normal="0,1", epochs=1), home=other)
    shutil.copytree(other.root / "runs", home.root / "runs")
    run = home.latest()
    promoted = anomaly_ae.promote(home=home)
    logged = run.record.mlflow_run_id
    assert logged != run.record.id
    assert MlflowClient(home.tracking_uri).get_model_version("digits", str(promoted.version)).run_id == logged
    assert find_model(home, promoted.uri)[1] == run


def test_a_damaged_store_is_one_line(home: RunStore) -> None:
    anomaly_ae.train(RunConfig(normal="0,1", epochs=1), home=home)
    home.database.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="is damaged or no database at all"):
        anomaly_ae.promote(home=home)


def test_what_is_no_run_or_not_registered_is_said(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.run.path / "detector", tmp_path / "copy")
    with pytest.raises(UsageError, match="is no run"):
        anomaly_ae.promote(str(tmp_path / "copy"), home=trained.home)
    with pytest.raises(ModelNotFound, match="there is no models:/nothing@champion"):
        find_model(trained.home, "models:/nothing@champion")
    with pytest.raises(UsageError, match="models:/NAME@ALIAS"):
        find_model(trained.home, "models:digits@champion")
    with pytest.raises(UsageError, match="models:/NAME@ALIAS"):
        find_model(trained.home, "models:/digits")


def test_looking_a_model_up_makes_no_store(home: RunStore) -> None:
    with pytest.raises(ModelNotFound, match="there is no models:/digits@champion"):
        find_model(home, "models:/digits@champion")
    assert not home.root.exists()
