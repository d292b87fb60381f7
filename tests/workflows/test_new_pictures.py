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


def write(folder: Path, seeds: Sequence[int], kind: str = "png", moved: int = 0) -> Path:
    """Pictures of one scene, moved by some pixels, under noise of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = np.random.default_rng(2**20).integers(0, 120, (12, 12), np.uint8)
    for seed in seeds:
        noise = np.random.default_rng(seed).integers(0, 80, (12, 12), np.uint8)
        both = [np.asarray(Image.fromarray(each).resize((48, 48))) for each in (scene, noise)]
        Image.fromarray(np.roll(both[0], moved, axis=1) + both[1]).save(folder / f"{seed:03}.{kind}", quality=95)
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
    write(place / "moved", [*range(3), *range(200, 220)], moved=1)
    return place


@pytest.fixture(scope="module")
def run_id(place: Path) -> str:
    settings = {"preset": "fast", "epochs": 1, "autoencoder": "vanilla", "scorer": "mse", "image_size": "48"}
    config = RunConfig.build(settings | {"dataset": str(place / "data"), "target_fpr": 0.2})
    return anomaly_ae.train(config, home=RunStore.find(str(place / "mlruns")), tracking=False).run_id


SAID = "left out: 5 pictures are as alike to some that the detector was made with as if saved anew"


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
    evaluation = anomaly_ae.evaluate(run_id, dataset=str(place / "known"), home=home, figures=False)
    assert {row.role: row.images for row in evaluation.per_class} == {"normal": 0, "novel": 5}
    with pytest.raises(DataError, match="made with what these pictures are copies of"):
        anomaly_ae.calibrate(run_id, **asked | {"normal_folder": place / "known" / "good"})


def test_new_pictures_of_a_scene_that_was_moved_a_little_are_no_copies(place: Path, run_id: str) -> None:
    """What tells all of them from those that were trained on, the move, makes them no copies of each other."""
    home = RunStore.find(str(place / "mlruns"))
    result = anomaly_ae.calibrate(run_id, normal_folder=place / "moved", home=home, tracking=False)
    assert (result.images, result.left_out) == (23, 0)


def test_it_is_said_where_they_cannot_be_looked_for(
    place: Path, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    home = RunStore.find(str(place / "mlruns"))
    (place / "data").rename(place / "away")
    try:
        evaluation = anomaly_ae.evaluate(run_id, dataset=str(place / "other"), home=home, figures=False)
    finally:
        (place / "away").rename(place / "data")
    assert {row.role: row.images for row in evaluation.per_class} == {"normal": 35, "novel": 6}
    said = capsys.readouterr().err
    assert "copies, saved anew, are looked for of 0 of the 40 pictures that the detector was made with" in said
