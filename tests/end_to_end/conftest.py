"""Servers and a browser, for real."""

import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import anomaly_ae
from anomaly_ae.runs.run_results import Promoted
from tests.conftest import Trained, start

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def promoted(trained: Trained) -> Promoted:
    return anomaly_ae.promote(trained.run.record.id, home=trained.home)


@dataclass(frozen=True)
class Pages:
    """MLflow's pages: where they are, and the address that was said."""

    base: str
    said: str


@pytest.fixture(scope="module")
def pages(trained: Trained, promoted: Promoted) -> Iterator[Pages]:
    """`anomaly-ae ui` at work."""
    port = free_port()
    process = start(trained.home.root, "ui", "--port", str(port), "--mlruns", str(trained.home.root))
    try:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "MLflow is at" in line)
        yield Pages(f"http://127.0.0.1:{port}/", said.split(" at ")[1].split()[0])
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


@pytest.fixture(scope="session")
def browser_path() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser; install one of {', '.join(BROWSERS)}")
    return found
