import dataclasses
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.experiments import commands as mlflow_experiments

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import Interrupted, ModelNotFound
from anomaly_ae.runs.record import FINISHED, KILLED, RUNNING, RunRecord, now
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.storage.atomic import sha256
from anomaly_ae.tracking import calls, remote_runs, run_logger
from anomaly_ae.tracking.client import open_client
from anomaly_ae.workflows import evaluate, train
from anomaly_ae.workflows.find_model import find_model
from anomaly_ae.workflows.train import resume
from tests.conftest import Cli, Trained

SHORT = RunConfig(normal="0,1", epochs=3)


@pytest.fixture(scope="module")
def client(trained: Trained) -> MlflowClient:
    return MlflowClient(trained.home.tracking_uri)


def artifacts(client: MlflowClient, run_id: str, folder: str) -> set[str]:
    return {Path(found.path).name for found in client.list_artifacts(run_id, folder)}


def test_the_run_is_in_mlflow_under_the_same_id(trained: Trained, client: MlflowClient) -> None:
    run = client.get_run(trained.run.record.id)
    assert run.info.status == FINISHED
    assert run.info.run_name == "digits 0,1,2 · conv · aligned-knn"
    assert client.get_experiment(run.info.experiment_id).name == "anomaly-ae"


def test_the_parameters_that_tell_runs_apart_and_the_data_are_there(trained: Trained, client: MlflowClient) -> None:
    run = client.get_run(trained.run.record.id)
    settings, usual = trained.run.config.to_dict(), RunConfig().to_dict()
    for key in ("normal", "dataset", "autoencoder", "scorer", "objective", "seed", "target_fpr", "epochs", "latent"):
        assert run.data.params[key] == str(settings[key])
    apart = {key for key in settings if settings[key] != usual[key]} - {"data_dir"}
    assert apart <= set(run.data.params)
    assert "dropout" not in run.data.params  # as it always is; config.json has it
    assert run.data.params["parameters"] == str(trained.result.parameters)
    (data,) = run.inputs.dataset_inputs
    assert json.loads(data.dataset.profile)["calibration_images"] == 108
    assert (data.dataset.name, data.dataset.digest) == ("digits", trained.run.split["digest"][:36])
    assert run.data.tags["anomaly_ae.version"] == "0.1.0"
    checkout = Path(anomaly_ae.__file__).parent.parent
    if (checkout / ".git").exists():
        head = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        assert run.data.tags["mlflow.source.git.commit"] == head.stdout.strip()


def test_every_epoch_is_there_once(trained: Trained, client: MlflowClient) -> None:
    for key, field in (("train/loss", "train_loss"), ("val/loss", "validation_loss")):
        logged = client.get_metric_history(trained.run.record.id, key)
        assert [(m.step, m.value) for m in logged] == [(e.epoch, getattr(e, field)) for e in trained.run.history()]
    metrics = client.get_run(trained.run.record.id).data.metrics
    assert {"train/learning_rate", "train/images_per_second"} <= metrics.keys()


def test_what_was_evaluated_is_in_the_run_that_trained_the_model(trained: Trained, client: MlflowClient) -> None:
    run = client.get_run(trained.run.record.id)
    assert run.data.metrics["test/auroc"] == trained.evaluation.auroc
    assert run.data.metrics["test/false_positive_rate"] == trained.evaluation.false_positive_rate
    low, high = trained.evaluation.auroc_ci
    assert (run.data.metrics["test/auroc_low"], run.data.metrics["test/auroc_high"]) == (low, high)
    assert f"{trained.evaluation.auroc:.4f}" in run.data.tags["mlflow.note.content"]


def test_pictures_tables_and_the_detector_are_there(trained: Trained, client: MlflowClient, tmp_path: Path) -> None:
    run_id = trained.run.record.id
    assert len(artifacts(client, run_id, "figures")) == 13
    assert {"metrics.json", "scores.csv", "per_class.csv"} <= artifacts(client, run_id, "evaluation")
    grids = [name for name in artifacts(client, run_id, "images") if name.endswith(".png")]
    assert len(grids) == len(trained.run.grids()) >= 8
    folder = Path(client.download_artifacts(run_id, "detector", str(tmp_path)))
    for file in folder.iterdir():
        assert sha256(file.read_bytes()) == sha256((trained.run.path / "detector" / file.name).read_bytes())


def test_without_tracking_everything_else_works(home: RunStore) -> None:
    result = anomaly_ae.train(SHORT, home=home, tracking=False)
    run = home.find_run(result.run_id)
    assert (run.record.status, run.record.unlogged) == (FINISHED, False)
    anomaly_ae.evaluate(home=home)
    assert (run.path / "evaluation" / "metrics.json").exists()
    assert not (home.root / "mlflow.db").exists()


def test_without_tracking_mlflow_is_not_even_imported(tmp_path: Path) -> None:
    """As on a machine that has none."""
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from anomaly_ae import RunConfig, evaluate, train\n"
        "train(RunConfig(normal='0,1', epochs=2), tracking=False, figures=False); evaluate(figures=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def assert_logged_whole(home: RunStore, run: RunFolder) -> None:
    client, run_id = MlflowClient(home.tracking_uri), run.record.mlflow_run_id
    assert run_id is not None
    logged = client.get_run(run_id)
    assert (logged.info.status, logged.data.params["normal"]) == (FINISHED, "0,1")
    steps = [metric.step for metric in client.get_metric_history(run_id, "val/loss")]
    assert steps == [1, 2, 3]
    assert {"detector.json", "weights.safetensors"} == artifacts(client, run_id, "detector")
    (model,) = client.search_logged_models([logged.info.experiment_id], f"source_run_id = '{run_id}'")
    assert (model.name, model.status) == ("model", "READY")
    pngs = [name for name in artifacts(client, run_id, "images") if name.endswith(".png")]
    assert len(pngs) == len(run.grids())


def test_with_the_server_away_training_ends_well_and_is_logged_later(
    home: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    away = dataclasses.replace(home, tracking_uri="http://127.0.0.1:9")
    result = anomaly_ae.train(SHORT, home=away)
    run = home.find_run(result.run_id)
    assert (run.record.status, run.record.unlogged, run.record.mlflow_run_id) == (FINISHED, True, None)
    assert "anomaly-ae runs --sync" in capsys.readouterr().err
    with run.lock():
        run_logger.sync(home)  # busy: said, and left for another time
    assert run.record.unlogged
    run_logger.sync(home)
    assert not run.record.unlogged
    assert_logged_whole(home, run)
    assert home.find_run(str(run.record.mlflow_run_id)).path == run.path


def test_cells_that_could_not_be_logged_find_their_parent_later(home: RunStore, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("normal: 0,1\nepochs: 1\nautoencoder: vanilla\nscorer: mse\n")
    away = dataclasses.replace(home, tracking_uri="http://127.0.0.1:9")
    parent = home.find_run(anomaly_ae.run_pipeline(tmp_path / "p.yaml", home=away).run_id)
    (cell,) = (run for run in home.runs() if run.record.parent == parent.record.id)
    assert (parent.record.mlflow_run_id, cell.record.mlflow_run_id) == (None, None)
    run_logger.sync(home)
    logged = MlflowClient(home.tracking_uri).get_run(str(cell.record.mlflow_run_id))
    assert logged.data.tags["mlflow.parentRunId"] == parent.record.mlflow_run_id
    assert "test/reconstruction_mse" in logged.data.metrics
    assert not parent.record.unlogged


def test_data_that_moved_do_not_stop_what_is_logged_later(home: RunStore) -> None:
    run = home.find_run(anomaly_ae.train(SHORT, home=home).run_id)
    run.write_start(dataclasses.replace(run.config, data_dir="moved"), run.split)
    assert run_logger.upload(home, run)


@contextmanager
def locked(home: RunStore) -> Iterator[None]:
    """Hold MLflow's database as another program might."""
    connection = sqlite3.connect(home.root / "mlflow.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_a_store_locked_from_the_middle_on_is_brought_up_to_date_later(
    home: RunStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("anomaly_ae.tracking.client.STORE_LOCK_WAIT", 0.3)
    real, calls = train.fit, []

    def fit_then_lock(*arguments: object) -> object:
        calls.append(lock := locked(home))
        detector = real(*arguments)
        lock.__enter__()
        return detector

    monkeypatch.setattr(train, "fit", fit_then_lock)
    result = anomaly_ae.train(SHORT, home=home)
    run = home.find_run(result.run_id)
    assert (run.record.status, run.record.unlogged) == (FINISHED, True)
    assert "Traceback" not in capsys.readouterr().err
    calls[0].__exit__(None, None, None)
    run_logger.sync(home)
    assert not run.record.unlogged
    assert_logged_whole(home, run)


def test_a_run_left_by_a_dead_process_is_marked_in_mlflow_too(trained: Trained, client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("anomaly-ae")
    assert experiment is not None
    run_id = client.create_run(experiment.experiment_id).info.run_id
    run = RunFolder(trained.home.root / "runs" / run_id)
    run.write_start(trained.run.config, trained.run.split)
    run.write_record(RunRecord(run_id, run_id, "dead", now(), RUNNING))
    damaged = RunFolder(trained.home.root / "runs" / "damaged")  # it must not stand in the other's way
    damaged.write_record(RunRecord("damaged", None, "dead too", now(), RUNNING))
    run_logger.mark_dead_runs(trained.home)
    assert run.record.status == client.get_run(run_id).info.status == KILLED
    assert trained.home.latest().path == trained.run.path


def test_a_run_that_only_the_server_has_is_evaluated_there(
    trained: Trained, client: MlflowClient, tmp_path: Path
) -> None:
    run_id = trained.run.record.id
    elsewhere = RunStore(tmp_path, trained.home.tracking_uri)
    logged = client.get_metric_history(run_id, "test/auroc")
    evaluation = anomaly_ae.evaluate(run_id, home=elsewhere)
    assert (evaluation.run_id, evaluation.auroc) == (run_id, trained.evaluation.auroc)
    assert (tmp_path / "runs" / run_id / "evaluation" / "metrics.json").exists()
    assert client.get_metric_history(run_id, "test/auroc") == logged  # the same figures are not logged twice
    with pytest.raises(ModelNotFound, match="no run 'abcdef'"):
        find_model(elsewhere, "abcdef")


def test_interrupted_while_mlflow_is_slow_a_finished_training_stays_finished(
    home: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calls, "log_results", interrupt)
    with pytest.raises(Interrupted, match="runs --sync"):
        anomaly_ae.train(SHORT, home=home)
    monkeypatch.undo()
    (run,) = home.runs()
    assert (run.record.status, run.record.unlogged) == (FINISHED, True)
    run_logger.sync(home)
    assert_logged_whole(home, run)


def test_an_evaluation_that_cannot_be_kept_is_made_all_the_same(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "LOCK_WAIT", 0.01)
    with trained.run.lock():
        assert anomaly_ae.evaluate(home=trained.home) == trained.evaluation
    assert "is not kept with the run" in capsys.readouterr().err


def test_runs_that_mlflow_has_running_and_that_have_no_folder_are_marked(
    home: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    client, ours = open_client(home), {"mlflow.source.name": "anomaly-ae"}
    left = [client.create_run("0", tags=ours | tags).info.run_id for tags in ({}, {calls.FOLDER_TAG: "gone"})]
    begun, other = (
        client.create_run("0", tags=tags).info.run_id
        for tags in ({**ours, calls.FOLDER_TAG: "begins"}, {"by": "hand"})
    )
    with beginning(home, "begins"):
        assert remote_runs.list_runs(home).runs[0].status == RUNNING
    said = capsys.readouterr().err
    for run_id in left:
        assert client.get_run(run_id).info.status == KILLED
        assert f"MLflow's run {run_id} was left by a process that is gone" in said
    assert {client.get_run(run_id).info.status for run_id in (begun, other)} == {RUNNING}
    remote_runs.list_runs(home)
    assert "no folder here" not in capsys.readouterr().err


@contextmanager
def beginning(home: RunStore, name: str) -> Iterator[RunFolder]:
    """A run that another process is about to begin."""
    run = RunFolder(home.root / "runs" / name)
    run.path.mkdir(parents=True)
    run.write_start(RunConfig(normal="0"), {"digest": "0" * 64, "parts": {}})
    run.write_record(RunRecord(name, None, "begins", now()))
    with run.lock():
        yield run


def test_a_deleted_experiment_is_said_with_how_to_bring_it_back(
    home: RunStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = open_client(home)
    client.delete_experiment(client.create_experiment("ours"))
    logger = run_logger.RunLogger(home, None)
    logger.begin("ours", RunRecord.new("first", tracked=True))
    said = capsys.readouterr().err
    assert f"was deleted; bring it back with: MLFLOW_TRACKING_URI={home.tracking_uri} mlflow experiments" in said
    assert "later" not in said
    restore = said.strip().partition("mlflow experiments ")[2].split()
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri)
        mlflow_experiments.main(restore, standalone_mode=False)
    logger = run_logger.RunLogger(home, None)
    logger.begin("ours", RunRecord.new("first", tracked=True))
    assert logger.run_id is not None


def test_names_that_mlflow_cannot_keep_are_escaped_and_shortened(home: RunStore) -> None:
    odd = "\udcff\x1b[31m"
    with beginning(home, "odd") as run:
        run.write_start(
            RunConfig(normal=odd, dataset=f"/data/{odd}", experiment=odd), {"digest": "0" * 64, "parts": {}}
        )
        run.update(name=odd + "long " * 100, status=FINISHED)
        assert run_logger.upload(home, run)
        logged = open_client(home).get_run(str(run.record.mlflow_run_id))
    assert logged.data.params["normal"] == r"\xff\x1b[31m"
    assert logged.info.run_name.startswith(r"\xff\x1b[31mlong long")
    assert len(logged.info.run_name) == 250


def test_what_mlflow_refuses_is_no_outage(home: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = open_client(home).create_run("0").info.run_id
    open_client(home).delete_run(run_id)
    run_logger.RunLogger(home, run_id).set_status(FINISHED)
    run_logger.RunLogger(home, "0" * 32).set_status(FINISHED)
    first, second = capsys.readouterr().err.splitlines()
    assert f"refuses this (The run {run_id} must be in the 'active' state" in first
    assert "later" not in first + second


def test_ctrl_c_while_mlflow_makes_the_run_leaves_none_running(
    home: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, create = open_client(home), MlflowClient.create_run

    def interrupted(*args: Any, **options: Any) -> None:
        create(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_run", interrupted)
        with pytest.raises(Interrupted):
            anomaly_ae.train(SHORT, home=home)
    (run,) = home.runs()
    (known,) = client.search_runs([client.get_experiment_by_name("anomaly-ae").experiment_id])
    assert (run.record.status, known.info.status) == ("KILLED", "KILLED")
    assert run.record.mlflow_run_id == known.info.run_id
    resume(run.record.id, home=home)
    assert client.get_run(known.info.run_id).info.status == "FINISHED"


@pytest.mark.slow  # a command, and the process that it has MLflow loaded in
def test_what_is_wrong_with_the_store_is_said_once_where_another_process_opens_it(
    cli_process: Cli, home: RunStore
) -> None:
    home.root.mkdir()
    home.database.write_bytes(b"no database" * 999)
    ended = cli_process("train", "--normal", "5", "--epochs", "1", "--scorer", "mse", "--no-figures")
    assert ended.code == 0
    assert ended.err.count("is damaged or no database at all") == 1
