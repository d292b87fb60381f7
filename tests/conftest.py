"""What many tests need: the command line as a user calls it, and one finished training on the bundled digits."""

import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine

import anomaly_ae
from anomaly_ae.cli import main
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import Evaluation
from anomaly_ae.errors import Interrupted
from anomaly_ae.integrations import webhook
from anomaly_ae.reporting.figures import painter
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.run_results import TrainResult
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking import run_logger
from anomaly_ae.training import Snapshot, Training
from anomaly_ae.workflows import evaluate, train
from tests.receiver import Receiver

COMMAND = [sys.executable, "-m", "anomaly_ae.cli"]
SETTINGS_THAT_LEAK_IN = ("ANOMALY_AE_MLRUNS", "ANOMALY_AE_DATA_DIR", "ANOMALY_AE_CACHE", "MLFLOW_TRACKING_URI")

# A busy machine is no fault of the examples that are drawn on it.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in SETTINGS_THAT_LEAK_IN}


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start `anomaly-ae` as a terminal does: Ctrl-C reaches it even where the tests run in the background."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def heed_ctrl_c() -> None:
    """What a process does first that is to get the Ctrl-C sent to it, which is ignored where the tests run behind."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def struck(folder: Path, by: signal.Signals, code: str, *arguments: str, **environment: str) -> Ended:
    """How Python code ended that sends its process the signal `STRUCK_BY` of its environment."""
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=clean_environment() | {"STRUCK_BY": str(int(by))} | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        preexec_fn=heed_ctrl_c,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


STRUCK_AT_THE_SECOND_EPOCH = """
import os
from anomaly_ae.cli import main
from anomaly_ae.training import Training

snapshot = Training.snapshot

def strike(training):
    if training.config.normal == os.environ["STRUCK_NORMAL"] and len(training.history) == 2:
        os.kill(os.getpid(), int(os.environ["STRUCK_BY"]))
    return snapshot(training)

Training.snapshot = strike
main()
"""


def struck_at_the_second_epoch(folder: Path, by: signal.Signals, normal: str, *arguments: str) -> Ended:
    """How a command ended whose training on `normal` gets a signal before its second epoch is kept."""
    return struck(folder, by, STRUCK_AT_THE_SECOND_EPOCH, *arguments, STRUCK_NORMAL=normal)


Cli = Callable[..., Ended]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name resolves, as on a machine without network."""

    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror("Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run `anomaly-ae` within this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS_THAT_LEAK_IN:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, env: Mapping[str, str] | None = None, input: str = "") -> Ended:  # noqa: A002 (as subprocess has it)
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["anomaly-ae", *arguments])
            patch.setattr(sys, "stdin", io.StringIO(input))
            patch.setattr(warnings, "showwarning", warnings.showwarning)
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def cli_process(tmp_path: Path) -> Cli:
    """Run `anomaly-ae` in a process and a folder of its own."""

    def run(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> Ended:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env={**clean_environment(), **(env or {})},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            **options,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


_drawing = False


@contextmanager
def drawing() -> Iterator[None]:
    """Within it, trainings and evaluations draw their figures."""
    global _drawing
    before, _drawing = _drawing, True
    try:
        yield
    finally:
        _drawing = before


@pytest.fixture(scope="session", autouse=True)
def _only_figures_that_are_looked_at() -> Iterator[None]:
    """Figures take most of the time of a short training, so there are none but within `drawing()`."""
    draw = evaluate.draw_evaluation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            evaluate, "draw_evaluation", lambda *args, **options: draw(*args, **options) if _drawing else {}
        )
        for name in ("save_training_figures", "save_samples"):
            save = getattr(train, name)
            patch.setattr(train, name, lambda *args, save=save: save(*args) if _drawing else None)
        patch.setattr(painter, "start", lambda *_: None)  # and no process is started for what is done within this one
        patch.setattr(run_logger, "start", lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What is written need not outlast a power cut here, and a disk that others use as well takes long."""

    def write_at_leisure(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", write_at_leisure)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
    event.remove(Engine, "connect", write_at_leisure)


@pytest.fixture
def figures() -> Iterator[None]:
    """For a test that looks at figures."""
    with drawing():
        yield


@contextmanager
def interrupted_at(epoch: int) -> Iterator[None]:
    """Within it, a training is begun and ended by Ctrl-C when so many epochs are done."""
    snapshot = Training.snapshot

    def interrupt(training: Training) -> Snapshot:
        if len(training.history) == epoch:
            raise KeyboardInterrupt
        return snapshot(training)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "snapshot", interrupt)
        with pytest.raises(Interrupted):
            yield


@dataclass(frozen=True)
class Trained:
    """A finished and evaluated training on digits 0, 1, 2."""

    home: RunStore
    run: RunFolder
    result: TrainResult
    evaluation: Evaluation

    def detector(self) -> Detector:
        return Detector.load(self.run.path / "detector")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = RunStore.find(str(tmp_path_factory.mktemp("project") / "mlruns"))
    with drawing():
        result = anomaly_ae.train(RunConfig(normal="0,1,2", epochs=60), home=home)
        return Trained(home, home.find_run(result.run_id), result, anomaly_ae.evaluate(home=home))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    for name in SETTINGS_THAT_LEAK_IN:
        monkeypatch.delenv(name, raising=False)
    return RunStore.find(str(tmp_path / "mlruns"))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv(webhook.SECRET, "hush")
    monkeypatch.setattr(webhook, "FIRST_PAUSE", 0.05)
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()  # seconds between looks
        yield server
        server.shutdown()
