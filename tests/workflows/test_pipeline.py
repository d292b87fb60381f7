"""Pipeline files really run: cells, comparison, MLflow, failures, and going on after a kill."""

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

import anomaly_ae
from anomaly_ae.errors import ModelError, ModelNotFound, TrainingError, UsageError
from anomaly_ae.runs.pipeline_results import PipelineResult
from anomaly_ae.runs.record import FAILED, FINISHED, KILLED
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows import pipeline
from anomaly_ae.workflows.pipeline import run_pipeline
from anomaly_ae.workflows.train import resume
from tests.conftest import Cli, start, struck_at_the_second_epoch
from tests.datasets.test_builtin import write_mnist

FILE = """
name: two
about: Two systems of the bundled digits.
training: {epochs: 2}
scorer: mse
matrix:
  autoencoder: [vanilla, strided-32]
  normal: [all, "0,1,2"]
published:
  test_mse: 0.05
  train_loss@2: 0.1
"""


def cells(home: RunStore, parent: str) -> dict[str, RunFolder]:
    return {run.record.name: run for run in home.runs() if run.record.parent == parent}


@dataclass(frozen=True)
class Ran:
    home: RunStore
    result: PipelineResult

    @property
    def run(self) -> RunFolder:
        return self.home.find_run(self.result.run_id)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "two.yaml").write_text(FILE)
    home = RunStore.find(str(folder / "mlruns"))
    return Ran(home, run_pipeline(folder / "two.yaml", home=home))


def test_every_cell_is_a_finished_and_evaluated_run_below_the_one_of_the_file(ran: Ran) -> None:
    found = cells(ran.home, ran.result.run_id)
    assert len(found) == 4
    assert all(run.record.status == FINISHED for run in found.values())
    assert all((run.path / "evaluation" / "metrics.json").exists() for run in found.values())
    assert ran.run.record.status == FINISHED
    assert ran.result.failed == {}


def test_a_row_for_each_system_has_the_errors_of_its_first_cell_and_the_auroc_of_the_others(ran: Ran) -> None:
    rows = ran.result.comparison
    assert [row.system for row in rows] == ["two · autoencoder vanilla", "two · autoencoder strided-32"]
    found = cells(ran.home, ran.result.run_id)
    first = json.loads((found["two · autoencoder strided-32 · normal all"].path / "result.json").read_text())
    other = found["two · autoencoder strided-32 · normal 0,1,2"].path / "evaluation" / "metrics.json"
    assert rows[1].train_mse == first["train_mse"]
    assert rows[1].train_mse_own == pytest.approx(4 * first["train_mse"])  # on [-1, 1]
    assert rows[0].train_mse_own == rows[0].train_mse
    assert rows[1].columns["auroc 0,1,2"] == json.loads(other.read_text())["auroc"]


def test_published_figures_stand_beside_ours(ran: Ran) -> None:
    by_measure = {row.measure: row for row in ran.result.published}
    assert by_measure["test_mse"].difference == pytest.approx(ran.result.comparison[0].test_mse - 0.05)
    history = cells(ran.home, ran.result.run_id)["two · autoencoder vanilla · normal all"].history()
    assert by_measure["train_loss@2"].ours == history[1].train_loss


def test_another_scorer_takes_over_the_network(home: RunStore, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "normal: 0,1,2\nepochs: 2\nautoencoder: vanilla\nmatrix: {scorer: [mse, ssim]}\n"
    )
    found = cells(home, run_pipeline(tmp_path / "p.yaml", home=home, tracking=False, figures=False).run_id)
    one, other = (
        load_file(found[f"p · scorer {scorer}"].path / "detector" / "weights.safetensors")
        for scorer in ("mse", "ssim")
    )
    assert all(one[name].equal(other[name]) for name in one if name.startswith("network."))
    assert not one["calibration.scores"].equal(other["calibration.scores"])


def test_tables_and_pictures_are_kept_and_in_mlflow(ran: Ran) -> None:
    folder = ran.run.path
    assert len(pd.read_csv(folder / "cells.csv")) == 4
    assert (folder / "comparison.md").read_text().count("\n") == 2 + 2
    drawn = {"loss_curves.png", "roc_curves.png", "reconstructions_digits.png"}
    assert {path.name for path in (folder / "figures").iterdir()} == drawn
    client = MlflowClient(ran.home.tracking_uri)
    parent = client.get_run(ran.result.run_id)
    assert parent.info.status == FINISHED
    assert "Two systems of the bundled digits." in parent.data.tags["mlflow.note.content"]
    kept = {artifact.path for artifact in client.list_artifacts(ran.result.run_id)}
    assert {"comparison.csv", "published.md", "figures", "pipeline.json"} <= kept
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{ran.result.run_id}'")
    assert {child.info.run_id for child in children} == {
        run.record.id for run in cells(ran.home, ran.result.run_id).values()
    }


def test_a_cell_is_not_the_latest_model_and_the_run_of_the_file_is_none(ran: Ran) -> None:
    with pytest.raises(ModelNotFound):
        ran.home.latest()
    with pytest.raises(ModelError, match="pipeline file; name one of its cells"):
        anomaly_ae.load(ran.result.run_id, mlruns=str(ran.home.root))
    with pytest.raises(UsageError, match=r"go on with it: anomaly-ae run .*two\.yaml"):
        resume(ran.result.run_id, home=ran.home)


def test_a_finished_pipeline_starts_anew_only_when_that_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.yaml").write_text("normal: 0,1,2\nepochs: 1\nautoencoder: vanilla\nscorer: mse\n")
    home = RunStore.find(str(tmp_path / "mlruns"))
    first, second = (run_pipeline(tmp_path / "one.yaml", home=home, tracking=False, figures=False) for _ in range(2))
    assert first == second
    assert len(home.runs()) == 2
    said = capsys.readouterr().err
    assert f"nothing is trained: run {first.run_id}" in said
    assert "again=True" in said
    again = run_pipeline(tmp_path / "one.yaml", home=home, tracking=False, figures=False, again=True)
    assert again.run_id != first.run_id
    assert len(home.runs()) == 4


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(
    home: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.yaml").write_text("epochs: 1\nscorer: mse\nmatrix: {normal: ['0', '1']}\n")
    real, tried = pipeline.train, []

    def fail_once(config, **options):
        tried.append(config.normal)
        if tried == ["0"]:
            raise TrainingError("the loss is no longer a finite number")
        return real(config, **options)

    monkeypatch.setattr(pipeline, "train", fail_once)
    first = run_pipeline(tmp_path / "p.yaml", home=home, tracking=False, figures=False)
    assert list(first.failed) == ["p · normal 0"]
    assert home.find_run(first.run_id).record.status == FAILED
    second = run_pipeline(tmp_path / "p.yaml", home=home, tracking=False, figures=False)
    assert (second.run_id, second.failed, tried) == (first.run_id, {}, ["0", "1", "0"])


@pytest.mark.usefixtures("offline")
def test_a_data_set_that_is_not_to_be_had_is_said_once_and_nothing_is_kept(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("dataset: cifar10\nepochs: 1\nmatrix: {normal: ['cat', 'dog'], seed: [0, 1]}\n")
    ended = cli("run", "p.yaml", "--data-dir", "sets")
    assert ended.code == 1
    said = [line for line in ended.err.splitlines() if "could not be downloaded" in line]
    assert len(said) == 1
    assert "p.yaml is skipped: cifar10 is not in " in said[0]
    assert "CIFAR10 files there, name their folder with --data-dir, or use --set dataset=digits, which" in said[0]
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.usefixtures("offline")
def test_cells_of_a_data_set_that_is_not_to_be_had_are_skipped_beside_others(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(
        "normal: '0'\nepochs: 1\nscorer: mse\nmatrix: {dataset: [digits, kmnist], seed: [0, 1]}\n"
    )
    overrides = [("data_dir", str(tmp_path / "sets")), ("normal", "all")]
    result = run_pipeline(tmp_path / "p.yaml", overrides, home=home, tracking=False, figures=False)
    assert list(result.failed) == ["p · dataset kmnist · seed 0", "p · dataset kmnist · seed 1"]
    assert [cell.status for cell in result.cells] == [FINISHED, FINISHED]
    assert capsys.readouterr().err.count("2 cells are skipped: kmnist is not in ") == 1
    failures = [line for line in str(result).splitlines() if line.startswith("failed: ")]
    assert len(failures) == 1
    assert "2 cells, p · dataset kmnist · seed 0 to p · dataset kmnist · seed 1: kmnist is not in " in failures[0]
    assert home.find_run(result.run_id).record.status == FAILED  # so that the same call goes on with them


@pytest.mark.usefixtures("offline")
def test_a_data_set_that_one_folder_lacks_is_read_from_another(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mnist(tmp_path / "full")
    (tmp_path / "p.yaml").write_text(
        "dataset: mnist\nnormal: 0-4\nepochs: 1\nscorer: mse\ntarget_fpr: 0.5\n"
        f"matrix: {{data_dir: [{tmp_path}/full, {tmp_path}/empty]}}\n"
    )
    result = run_pipeline(tmp_path / "p.yaml", home=home, tracking=False, figures=False)
    assert [cell.status for cell in result.cells] == [FINISHED]
    (reason,) = result.failed.values()
    assert f"mnist is not in {tmp_path}/empty " in reason
    assert f"1 cell is skipped: {reason}" in capsys.readouterr().err


def test_wrong_names_are_said_before_anything_is_trained(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("matrix:\n  autoencoder: [vanilla, vanila]\nnormal: '0'\n")
    ended = cli("run", "p.yaml")
    assert ended.code == 2
    assert "did you mean 'vanilla'" in ended.err
    (tmp_path / "p.yaml").write_text("training:\n  epoch: 1\n")
    ended = cli("run", "p.yaml")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "p.yaml, line 2" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]


@pytest.mark.slow  # whole pipelines, killed
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_pipeline_goes_on_with_the_cells_that_are_missing(
    cli: Cli, tmp_path: Path, how: signal.Signals
) -> None:
    (tmp_path / "p.yaml").write_text("autoencoder: vanilla\nscorer: mse\nmatrix: {normal: ['0', '1']}\n")
    command = ("run", "p.yaml", "--set", "training.epochs=25")
    killed = struck_at_the_second_epoch(tmp_path, how, "1", *command)  # in the second cell
    home = RunStore.find(str(tmp_path / "mlruns"))
    (parent,) = (run for run in home.runs() if run.record.kind == "pipeline")
    before = {run.record.id: run.record.status for run in home.runs()}
    assert FINISHED in before.values()
    if how == signal.SIGINT:
        assert killed.code == 130, killed.err
        assert killed.err.splitlines()[-1] == f"interrupted; go on with: anomaly-ae {' '.join(command)}"
        assert sorted(before.values()) == [FINISHED, KILLED, KILLED]

    ended = cli(*command, "--json")
    assert ended.json()["run_id"] == parent.record.id
    after = [run.record for run in home.runs()]
    assert before.keys() <= {record.id for record in after}
    assert [record.status for record in after] == [FINISHED] * 3
    assert ended.err.count("cell ") == 1  # the one it was in
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert {client.get_run(str(record.mlflow_run_id)).info.status for record in after} == {FINISHED}


MEASURED = """
scorer: mse
autoencoder: vanilla
training: {epochs: 1}
matrix:
  normal: ["0", "1"]
compare_scorers: [pixel-knn, pca]
"""


@pytest.mark.slow  # two processes that load all there is
def test_cells_in_parallel_come_to_the_same_as_one_after_the_other(cli: Cli, tmp_path: Path, home: RunStore) -> None:
    (tmp_path / "p.yaml").write_text(MEASURED)
    together = cli("run", "p.yaml", "--jobs", "2", "--json", "--mlruns", str(home.root)).json()
    client = MlflowClient(home.tracking_uri)
    cells = [run.record for run in home.runs() if run.record.parent == together["run_id"]]
    assert [client.get_run(str(cell.mlflow_run_id)).info.status for cell in cells] == [FINISHED, FINISHED]
    assert (Path(together["run_folder"]) / "figures" / "scorers.png").stat().st_size > 10_000
    alone = run_pipeline(tmp_path / "p.yaml", home=home, tracking=False, again=True)
    assert alone.run_id != together["run_id"]
    assert together["failed"] == alone.failed == {}
    assert [row.scorer for row in alone.scorers] == [row["scorer"] for row in together["scorers"]]
    assert {row.scorer for row in alone.scorers} == {"mse", "pixel-knn", "pca"}
    for one, other in zip(alone.scorers, together["scorers"], strict=True):
        assert one.auroc == pytest.approx(other["auroc"], abs=1e-6)
        assert one.by_class["normal 0"] == pytest.approx(other["normal 0"], abs=1e-6)
    rows = pd.read_csv(Path(together["run_folder"]) / "scorers.csv")
    assert list(rows.scorer) == [row["scorer"] for row in together["scorers"]]


@pytest.mark.slow  # whole pipelines, killed
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_cells_in_parallel_end_with_the_one_above_them_and_go_on(
    cli: Cli, tmp_path: Path, how: signal.Signals
) -> None:
    """The signal reaches the process above alone, as that of a job scheduler does."""
    (tmp_path / "p.yaml").write_text("autoencoder: vanilla\nscorer: mse\nmatrix: {normal: ['0', '1']}\n")
    command = ("run", "p.yaml", "--jobs", "2", "--set", "training.epochs=200000", "--set", "patience=100000")
    process = start(tmp_path, *command)
    home = RunStore.find(str(tmp_path / "mlruns"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and sum(run.checkpoint.exists() for run in home.runs()) < 2:
        time.sleep(0.2)
    process.send_signal(how)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(run.is_locked() for run in home.runs()):
        time.sleep(0.2)  # until those below are gone too
    assert not any(run.is_locked() for run in home.runs())
    ends = [run.record.status for run in home.runs() if run.record.parent]
    assert ends == [KILLED, KILLED]


def test_scorers_beside_must_be_scorers(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("normal: '0'\nbeside: [pixels]\n")
    with pytest.raises(UsageError, match=r"p\.yaml, line 2: .*pixel-knn"):
        run_pipeline(tmp_path / "p.yaml", tracking=False)
    (tmp_path / "p.yaml").write_text("normal: '0'\nbeside: pca\n")
    with pytest.raises(UsageError, match="must be a list of scorers"):
        run_pipeline(tmp_path / "p.yaml", tracking=False)
