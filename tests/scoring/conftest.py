"""A folder of digits as files, some of them bad, and jobs that score it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from anomaly_ae.autoencoders import inference
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.images.sources import open_source
from anomaly_ae.scoring import ledger
from anomaly_ae.scoring.job import Job, Scores, score_job
from tests.conftest import Trained
from tests.decoding import decoded_here


@pytest.fixture(scope="package", autouse=True)
def _decoded_here() -> Iterator[None]:
    with decoded_here():
        yield


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """20 digits in two folders, and one file that is no image."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for i, image in enumerate(load_dataset("digits").files["train"].images[:20, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "in" / ("sub" if i % 2 else "") / f"{i:02}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"bad")
    return tmp_path / "in"


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """21 files are six batches in three shards."""
    monkeypatch.setattr(inference, "BATCH_IMAGES", 4)
    monkeypatch.setattr(ledger, "SHARD", 9)


@pytest.fixture
def detector(trained: Trained) -> Detector:
    return trained.detector()


def run(detector: Detector, folder: Path | str, output: Path, resume: bool = False, **options: Any) -> Scores:
    source = open_source(folder)
    return score_job(Job(detector, detector.calibration, source, output, workers=2, **options), resume)
