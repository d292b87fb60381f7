"""Copies, saved anew, of pictures that a detector was made with: nothing is measured or calibrated with them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import DataError
from anomaly_ae.runs.store import RunStore


def write(folder: Path, seeds: Sequence[int], kind: str = "png") -> Path:
    """Pictures of coarse noise, each by a seed of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        coarse = np.random.default_rng(seed).integers(60, 200, (12, 12), np.uint8)
        Image.fromarray(coarse).resize((48, 48)).save(folder / f"{seed:03}.{kind}", quality=95)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("new")
    write(place / "data" / "train" / "good", range(40))
    write(place / "data" / "test" / "bad", range(900, 905))
    write(place / "other" / "good", [*range(5), *range(100, 130)], "jpg")
    write(place / "other" / "bad", [7, *range(910, 915)], "jpg")
    write(place / "known" / "good", range(8), "jpg")
    write(place / "known" / "bad", range(910, 915), "jpg")
    return place


@pytest.fixture(scope="module")
def run_id(place: Path) -> str:
    settings = {"preset": "fast", "epochs": 1, "autoencoder": "vanilla", "scorer": "mse", "image_size": "48"}
    config = RunConfig.build(settings | {"dataset": str(place / "data"), "target_fpr": 0.2})
    return anomaly_ae.train(config, home=RunStore.find(str(place / "mlruns")), tracking=False).run_id


SAID = "left out: 5 pictures are as alike to those that the detector was made with as if saved anew"


def test_they_are_left_out_of_what_is_measured_and_calibrated_with(
    place: Path, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    home = RunStore.find(str(place / "mlruns"))
    evaluation = anomaly_ae.evaluate(run_id, dataset=str(place / "other"), home=home, figures=False)
    # an anomaly may be drawn on a picture that was trained on, and is one for that
    assert {row.role: row.images for row in evaluation.per_class} == {"normal": 30, "novel": 6}
    assert SAID in capsys.readouterr().err
    asked = {"normal_folder": place / "other" / "good", "home": home, "tracking": False}
    result = anomaly_ae.calibrate(run_id, **asked)
    assert (result.images, result.left_out) == (30, 5)
    assert SAID in capsys.readouterr().err
    with pytest.raises(DataError, match="no normal picture is new: 8 pictures are as alike"):
        anomaly_ae.evaluate(run_id, dataset=str(place / "known"), home=home, figures=False)


def test_it_is_said_where_they_cannot_be_looked_for(
    place: Path, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    home = RunStore.find(str(place / "mlruns"))
    (place / "data").rename(place / "moved")
    try:
        evaluation = anomaly_ae.evaluate(run_id, dataset=str(place / "other"), home=home, figures=False)
    finally:
        (place / "moved").rename(place / "data")
    assert {row.role: row.images for row in evaluation.per_class} == {"normal": 35, "novel": 6}
    said = capsys.readouterr().err
    assert "copies that were saved anew of pictures that the detector was made with are not looked for: " in said
