from pathlib import Path

import fsspec
import pandas as pd
import pytest
import torch
from PIL import Image

import anomaly_ae
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.errors import DataError
from tests.conftest import Trained


def test_rows_are_streamed_and_make_a_frame(trained: Trained, pictures: Path) -> None:
    scored = trained.detector().score_folder(pictures)
    rows = list(scored)
    assert len(rows) == len(scored) == 21
    assert [row["path"] for row in rows if row["error"]] == ["bad.png"]
    frame = scored.to_pandas()
    assert frame.score.dropna().tolist() == [row["score"] for row in rows if row["error"] is None]
    assert frame.is_anomaly.isna().sum() == 1
    assert str(frame.is_anomaly.dtype) == "boolean"


def test_an_address_gives_the_same_scores(trained: Trained, pictures: Path) -> None:
    system = fsspec.filesystem("memory")
    for path in pictures.rglob("*.png"):
        system.pipe(f"/digits/{path.relative_to(pictures)}", path.read_bytes())
    detector = trained.detector()
    there, here = (anomaly_ae.score_folder(detector, place).to_pandas() for place in ("memory://digits", pictures))
    pd.testing.assert_frame_equal(there, here)


def test_images_of_pillow_score_as_their_files(trained: Trained, pictures: Path) -> None:
    detector = trained.detector()
    opened = [Image.open(pictures / "00.png"), Image.open(pictures / "sub" / "01.png")]
    expected = detector.score(load_dataset("digits").files["train"].images[:2])  # the files hold the same pixels
    assert torch.equal(detector.score(opened), expected)
    assert torch.equal(detector.score(opened[0]), expected[:1])
    assert detector.differences(opened) == []
    (pictures / "cut.png").write_bytes((pictures / "00.png").read_bytes()[:60])
    with pytest.raises(DataError, match="cannot be decoded"):
        detector.score(Image.open(pictures / "cut.png"))
