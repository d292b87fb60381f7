from pathlib import Path

import pytest
from mlflow import MlflowClient

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import ModelError, ModelNotFound, UsageError
from anomaly_ae.runs.record import KILLED
from anomaly_ae.runs.store import RunStore
from tests.conftest import Cli, Trained


def test_a_comparison_is_an_artifact_of_the_first_run(cli: Cli, home: RunStore) -> None:
    first, other = (
        anomaly_ae.train(RunConfig(normal="0", epochs=2, scorer=scorer), home=home).run_id
        for scorer in ("latent-knn", "mse")
    )
    auroc, _ = (anomaly_ae.evaluate(run_id, home=home).auroc for run_id in (first, other))
    ended = cli("compare", first, other, "--mlruns", str(home.root))
    assert ended.code == 0, ended.err
    for part in ("p (DeLong)", f"{auroc:.4f}", "scorer", "latent-knn · mse", "comparison.html"):
        assert part in ended.out
    client = MlflowClient(home.tracking_uri)
    folder = f"comparisons/with-{other[:8]}"
    names = {item.path.rpartition("/")[2] for item in client.list_artifacts(first, folder)}
    assert names == {"comparison.html", "loss_curves.png", "roc_curves.png", "runs.csv"}


def test_the_run_of_a_pipeline_stands_for_its_cells_and_what_was_not_measured_is_empty(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.yaml").write_text("normal: 0,1\nepochs: 1\nmatrix:\n  scorer: [mse, mae]\n")
    plan = anomaly_ae.run_pipeline(tmp_path / "plan.yaml", home=home, tracking=False)
    calibrated = anomaly_ae.calibrate(
        next(run.record.id for run in home.runs() if run.record.parent), target_fpr=0.2, home=home, tracking=False
    )
    everything = anomaly_ae.train(RunConfig(normal="all", epochs=1), home=home, tracking=False)
    anomaly_ae.evaluate(everything.run_id, home=home)
    result = anomaly_ae.compare([plan.run_id, calibrated.run_id, everything.run_id], home=home)
    assert [row.name.partition(" ·")[0] for row in result.runs][2] == "calibration"
    assert [row.auroc is None for row in result.runs] == [False, False, True, True]
    assert [row.p_value is None for row in result.runs] == [True, False, True, True]
    said = capsys.readouterr().err
    assert f"run {calibrated.run_id} has no figures yet" in said
    assert f"run {everything.run_id} has no AUROC: no anomalous test image" in said
    assert Path(result.page).exists()
    new = anomaly_ae.train(RunConfig(normal="1", epochs=1), home=home, tracking=False)
    with pytest.raises(ModelError, match="nothing to compare"):
        anomaly_ae.compare([calibrated.run_id, new.run_id], home=home)


def test_one_run_or_none_is_not_compared(trained: Trained, home: RunStore) -> None:
    with pytest.raises(UsageError, match=f"two runs or more, and all that was named is run {trained.run.record.id}"):
        anomaly_ae.compare([trained.run.record.id, trained.run.record.id[:8]], home=trained.home)
    with pytest.raises(ModelNotFound, match="there is no run 'nothing'"):
        anomaly_ae.compare(["nothing"], home=home)


def test_an_unfinished_run_is_refused(home: RunStore) -> None:
    ids = [anomaly_ae.train(RunConfig(normal=str(i), epochs=1), home=home, tracking=False).run_id for i in range(2)]
    home.find_run(ids[1]).update(status=KILLED)
    with pytest.raises(ModelError, match="resume it with"):
        anomaly_ae.compare(ids, home=home)
