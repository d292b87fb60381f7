"""Servers and a browser, for real."""

import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.runs.run_results import Promoted
from tests.conftest import Trained, start
from tests.end_to_end.review_page import HOSTILE, Served, serving

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
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


@pytest.fixture(scope="module")
def browser(browser_path: str) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def scored(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand digits of all classes, one of them with a name that would be run if it were taken for HTML."""
    folder = tmp_path_factory.mktemp("review")
    images = load_dataset("digits").files["train"].images[:999, 0].numpy()
    for i, image in enumerate(images):
        (folder / "in" / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "in" / str(i % 3) / f"{i:04}.png")
    Image.fromarray(images[3]).save(folder / "in" / HOSTILE)
    model = trained.run.record.id
    anomaly_ae.score(folder / "in", model, folder / "scores.parquet", home=trained.home)
    return folder / "scores.parquet"


@pytest.fixture
def few(trained: Trained, tmp_path: Path) -> Path:
    """Three digits, whose files a test may change."""
    (tmp_path / "in").mkdir()
    for i, image in enumerate(load_dataset("digits").files["train"].images[:3, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "in" / f"{i}.png")
    anomaly_ae.score(tmp_path / "in", trained.run.record.id, tmp_path / "scores.parquet", home=trained.home)
    return tmp_path / "scores.parquet"


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on which no error may occur."""
    context, errors = browser.new_context(viewport={"width": 1300, "height": 900}), list[str]()
    context.set_default_timeout(60_000)
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("requestfinished", lambda request: errors.extend([] if "127.0.0.1" in request.url else [request.url]))
    yield opened
    context.close()
    assert [error for error in errors if not error.startswith("data:")] == []


@pytest.fixture
def served(trained: Trained, scored: Path) -> Iterator[Served]:
    with serving(trained, scored) as server:
        yield server
