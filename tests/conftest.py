"""What many tests need: the command line as a user calls it, and one finished training on the bundled digits."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from anomaly_ae import pipeline
from anomaly_ae.config import RunConfig
from anomaly_ae.detector import Detector
from anomaly_ae.evaluation import Evaluation
from anomaly_ae.pipeline import TrainResult
from anomaly_ae.runs import Home, RunFolder

COMMAND = [sys.executable, "-m", "anomaly_ae.cli"]
SETTINGS_THAT_LEAK_IN = ("ANOMALY_AE_MLRUNS", "ANOMALY_AE_DATA_DIR", "ANOMALY_AE_CACHE", "MLFLOW_TRACKING_URI")


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
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


Cli = Callable[..., Ended]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `anomaly-ae` in a folder of its own."""

    def run(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Ended:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=clean_environment() | (env or {}),
            capture_output=True,
            text=True,
            timeout=200,
            **options,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@dataclass(frozen=True)
class Trained:
    """A finished and evaluated training on digits 0, 1, 2."""

    home: Home
    run: RunFolder
    result: TrainResult
    evaluation: Evaluation

    def detector(self) -> Detector:
        return Detector.load(self.run.path / "detector")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = Home.find(str(tmp_path_factory.mktemp("project") / "mlruns"))
    result = pipeline.train(RunConfig(normal="0,1,2", epochs=60), home=home)
    return Trained(home, home.find_run(result.run_id), result, pipeline.evaluate(home=home))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in SETTINGS_THAT_LEAK_IN:
        monkeypatch.delenv(name, raising=False)
    return Home.find(str(tmp_path / "mlruns"))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
