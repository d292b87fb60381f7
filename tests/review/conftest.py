"""A scored folder of digits under review."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.review.session import Session
from tests.conftest import Trained
from tests.decoding import decoded_here

Opened = Callable[..., Session]


@pytest.fixture(scope="package", autouse=True)
def _decoded_here() -> Iterator[None]:
    with decoded_here():
        yield


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Sixty digits in two folders, names that a page could trip over, and one file that is no image."""
    images = load_dataset("digits").files["train"].images[:60, 0].numpy()
    for i, image in enumerate(images):
        folder = tmp_path / "in" / ("left" if i % 2 else "right & <b>")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02} <img src=x onerror=alert(1)> ä\n.png")
    (tmp_path / "in" / "left" / "empty.png").touch()
    return tmp_path / "in"


@pytest.fixture
def scored(trained: Trained, pictures: Path, tmp_path: Path) -> Path:
    anomaly_ae.score(pictures, output=tmp_path / "scores.parquet", home=trained.home)
    return tmp_path / "scores.parquet"


@pytest.fixture
def session(trained: Trained, scored: Path) -> Session:
    return Session.open(scored, None, trained.home)
