"""Real kills: what is lost is the epoch it was in, and what comes out in the end is the same."""

import os
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.runs.record import KILLED
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking import remote_runs
from anomaly_ae.workflows.train import resume
from tests.conftest import Cli, Ended, start, struck, struck_at_the_second_epoch

EPOCHS = 12
TRAIN = ("train", "--normal", "0,1,2", "--no-figures", "--epochs", str(EPOCHS), "--seed", "7")


def wait_for_epochs(folder: Path, count: int) -> RunFolder:
    """The run, once it has that many epochs behind it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for run in RunStore.find(str(folder / "mlruns")).runs():
            if len(run.history()) >= count:
                return run
        time.sleep(0.02)
    raise TimeoutError(f"there were no {count} epochs")


def interrupted_training(folder: Path, by: signal.Signals) -> tuple[RunFolder, Ended]:
    """A training that got a signal before its second epoch was kept, and how it ended."""
    ended = struck_at_the_second_epoch(folder, by, "0,1,2", *TRAIN)
    (run,) = RunStore.find(str(folder / "mlruns")).runs()
    return run, ended


def weights(run: Path) -> dict[str, bytes]:
    tensors = load_file(run / "detector" / "weights.safetensors")
    return {name: value.numpy().tobytes() for name, value in tensors.items()}


def about(run: Path) -> str:
    return (run / "detector" / "detector.json").read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = RunStore.find(str(tmp_path_factory.mktemp("whole") / "mlruns"))
    config = RunConfig(normal="0,1,2", epochs=EPOCHS, seed=7)
    return Path(anomaly_ae.train(config, home=home, tracking=False, figures=False).run_folder)


def test_killed_and_resumed_ends_with_the_same_weights(cli: Cli, tmp_path: Path, uninterrupted: Path) -> None:
    run, ended = interrupted_training(tmp_path, signal.SIGKILL)
    assert ended.code == -signal.SIGKILL, ended.err
    assert run.record.status == "RUNNING"

    refused = cli("evaluate")
    assert refused.code == 1
    assert f"train --resume {run.record.id}" in refused.err
    assert run.record.status == KILLED  # marked by the command that saw it
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert client.get_run(run.record.id).info.status == KILLED

    done = len(run.history())
    assert done in (1, 2)
    resumed = cli("train", "--resume", run.record.id, "--json")
    assert resumed.json()["epochs"] == EPOCHS
    assert f"after epoch {done}" in resumed.err or f"after epoch {done + 1}" in resumed.err
    assert weights(run.path) == weights(uninterrupted)
    assert about(run.path) == about(uninterrupted)
    steps = [metric.step for metric in client.get_metric_history(run.record.id, "val/loss")]
    assert steps == list(range(1, EPOCHS + 1))
    assert client.get_run(run.record.id).info.status == "FINISHED"


def test_ctrl_c_keeps_the_best_weights_and_marks_the_run(cli: Cli, tmp_path: Path, uninterrupted: Path) -> None:
    run, ended = interrupted_training(tmp_path, signal.SIGINT)
    assert ended.code == 130, ended.err
    assert ended.err.splitlines()[-1].startswith("interrupted; best weights so far")
    assert "Traceback" not in ended.err
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert run.record.status == client.get_run(run.record.id).info.status == KILLED
    assert any(name.startswith("best.") for name in load_file(run.checkpoint))

    clash = cli("train", "--resume", run.record.id, "--latent", "5", "--seed", "7")
    assert clash.code == 2
    assert "latent is 12 and 5 was asked" in clash.err
    assert "seed" not in clash.err

    assert cli("train", "--resume", "latest", "--normal", "0,1,2").code == 0
    assert weights(run.path) == weights(uninterrupted)
    again = cli("train", "--resume", run.record.id)
    assert again.code == 2
    assert "finished" in again.err


def test_a_run_can_be_in_one_hand_only(cli: Cli, tmp_path: Path) -> None:
    process = start(tmp_path, *TRAIN[:-4], "--epochs", "100000", "--set", "patience=100000")
    try:
        run = wait_for_epochs(tmp_path, 1)
        other = cli("train", "--resume", run.record.id)
        assert other.code == 1
        assert "another process" in other.err
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
        assert run.record.status == KILLED
    finally:
        process.kill()
        process.wait()


STRIKE = """
import os, sys
from mlflow import MlflowClient

real = MlflowClient.create_run

def create(*arguments, **named):
    made = real(*arguments, **named)
    os.kill(os.getppid() if "strike" in sys.argv else os.getpid(), int(os.environ["STRUCK_BY"]))
    return made

MlflowClient.create_run = create
"""
HERE = "import strike"  # MLflow is loaded then, and no other process is started for it
THERE = "run_logger.LOGGING_MODULES += ('strike',)"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A home with a training of one epoch."""
    home = RunStore.find(str(tmp_path_factory.mktemp("small") / "mlruns"))
    anomaly_ae.train(RunConfig(normal="5", epochs=1, scorer="mse"), home=home)
    return home


@pytest.mark.slow  # several whole commands, killed
@pytest.mark.parametrize(
    ("where", "struck_by", "command"),
    [
        (HERE, signal.SIGINT, "train --normal 5 --epochs 1 --scorer mse"),
        (HERE, signal.SIGKILL, "train --normal 5 --epochs 1 --scorer mse"),
        (THERE, signal.SIGINT, "train --normal 5 --epochs 1 --scorer mse"),
        (THERE, signal.SIGKILL, "calibrate --target-fpr 0.1"),
        (THERE, signal.SIGKILL, "run five.yaml"),
    ],
)
def test_a_run_struck_as_it_begins_is_marked_in_its_folder_and_in_mlflow(
    small: RunStore, tmp_path: Path, where: str, struck_by: signal.Signals, command: str
) -> None:
    (tmp_path / "five.yaml").write_text("normal: 5\nepochs: 1\n")
    (tmp_path / "strike.py").write_text(STRIKE)
    before = {run.path for run in small.runs()}
    code = f"from anomaly_ae.cli import main\nfrom anomaly_ae.tracking import run_logger\n{where}\nmain()"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = struck(tmp_path, struck_by, code, *command.split(), ANOMALY_AE_MLRUNS=str(small.root), PYTHONPATH=path)
    assert ended.code == (130 if struck_by == signal.SIGINT else -signal.SIGKILL), ended.err
    assert "Traceback" not in ended.err
    (run,) = (run for run in small.runs() if run.path not in before)
    assert run.record.status == (KILLED if struck_by == signal.SIGINT else "RUNNING")
    remote_runs.list_runs(small)
    assert run.record.status == KILLED
    client = MlflowClient(small.tracking_uri)
    assert client.get_run(str(run.record.mlflow_run_id)).info.status == KILLED
    experiments = [each.experiment_id for each in client.search_experiments()]
    assert not client.search_runs(experiments, "attributes.status = 'RUNNING'")
    if command.startswith("train"):
        assert resume(run.record.id, home=small).epochs == 1
        assert client.get_run(str(run.record.mlflow_run_id)).info.status == "FINISHED"


STRUCK_WHILE_THE_FOLDER_IS_MADE = """
import os, sys
from anomaly_ae.runs import run_folder
from anomaly_ae.cli import main

def strike(*_):
    os.kill(os.getpid(), int(os.environ["STRUCK_BY"]))

setattr(run_folder.RunFolder, sys.argv.pop(1), strike)
main()
"""


@pytest.mark.slow  # several whole commands, killed
@pytest.mark.parametrize("moment", ["write_record", "named"])
def test_a_run_killed_while_its_folder_is_made_leaves_nothing(small: RunStore, tmp_path: Path, moment: str) -> None:
    before = sorted((small.root / "runs").iterdir())
    called = (moment, "train", "--normal", "5", "--epochs", "1")
    runs = str(small.root)
    ended = struck(tmp_path, signal.SIGKILL, STRUCK_WHILE_THE_FOLDER_IS_MADE, *called, ANOMALY_AE_MLRUNS=runs)
    assert ended.code == -signal.SIGKILL, ended.err
    assert len(list((small.root / "runs").iterdir())) == len(before) + 1
    remote_runs.list_runs(small)
    assert sorted((small.root / "runs").iterdir()) == before
