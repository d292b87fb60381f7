"""Copies, saved anew, of pictures that a detector was made with: nothing is measured or calibrated with them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DataError
from anomaly_ae.images.image_set import hash_rows
from anomaly_ae.images.sources import open_source
from anomaly_ae.runs.store import RunStore
from anomaly_ae.scoring.encode import score_images
from anomaly_ae.scoring.marks import Mark, MarkFile
from anomaly_ae.workflows.new_pictures import new_normals


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
    write(place / "both" / "good", range(300, 320))
    write(place / "both" / "bad", range(316, 324))
    return place


@pytest.fixture(scope="module")
def run_id(place: Path) -> str:
    settings = {"preset": "fast", "epochs": 1, "autoencoder": "vanilla", "scorer": "mse", "image_size": "48"}
    config = RunConfig.build(settings | {"dataset": str(place / "data"), "target_fpr": 0.2})
    return anomaly_ae.train(config, home=RunStore.find(str(place / "mlruns")), tracking=False).run_id


@pytest.fixture
def detector(place: Path, run_id: str) -> Detector:
    return Detector.load(RunStore.find(str(place / "mlruns")).find_run(run_id).detector_folder())


def normals(detector: Detector, folder: Path) -> int:
    """How many pictures of a folder are none that it was made with."""
    images = score_images(detector, source := open_source(folder), source.pictures()).images
    return len(new_normals(detector, images, torch.arange(len(images))))


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
    with pytest.raises(DataError, match="made with what these pictures are copies of"):
        anomaly_ae.evaluate(run_id, dataset=str(place / "known" / "good"), home=home)


@pytest.mark.parametrize("folder", ["normal_folder", "dataset"])
def test_no_threshold_is_set_by_pictures_that_are_called_good_and_bad(place: Path, run_id: str, folder: str) -> None:
    home = RunStore.find(str(place / "mlruns"))
    result = anomaly_ae.calibrate(run_id, **{folder: str(place / "both")}, home=home, tracking=False)
    assert (result.images, result.left_out) == (16, 4)


def test_an_anomaly_that_is_called_normal_too_is_no_reason_to_refuse_the_others(place: Path, run_id: str) -> None:
    home, folder = RunStore.find(str(place / "mlruns")), place / "one"
    write(folder / "good", range(400, 420))
    write(folder / "bad", [405])
    asked = {"home": home, "tracking": False}
    result = anomaly_ae.calibrate(run_id, normal_folder=folder, **asked)
    assert (result.images, result.left_out) == (19, 1)
    write(folder / "bad", range(400, 420))
    with pytest.raises(DataError, match="called anomalous, too"):
        anomaly_ae.calibrate(run_id, normal_folder=folder, **asked)


def test_pictures_marked_as_good_are_new_ones(place: Path, run_id: str) -> None:
    file, source = MarkFile.beside(place / "scores.parquet"), open_source(place / "other")
    for path in source.pictures().paths:
        file.append(Mark.of(source, path, path.split(b"/")[0].decode()))
    home = RunStore.find(str(place / "mlruns"))
    result = anomaly_ae.calibrate(run_id, marks=file.path, home=home, tracking=False)
    assert (result.images, result.left_out) == (30, 5)


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


@pytest.mark.parametrize("known", [1, 3])
def test_new_pictures_of_a_kind_of_which_few_are_known_are_no_copies(
    tmp_path: Path, known: int, detector: Detector
) -> None:
    """They share what tells that kind from the others, with all of their kind alike."""

    def write_kind(folder: str, kind: int, seeds: Sequence[int]) -> None:
        (tmp_path / folder).mkdir(exist_ok=True)
        scene = np.random.default_rng(kind).integers(0, 120, (12, 12), np.uint8)
        for seed in seeds:
            noise = np.random.default_rng(seed).integers(0, 20, (48, 48), np.uint8)
            Image.fromarray(np.asarray(Image.fromarray(scene).resize((48, 48))) + noise).save(
                tmp_path / folder / f"{kind}-{seed}.png"
            )

    write_kind("data", 1, range(60))
    write_kind("data", 2, range(100, 100 + known))
    write_kind("new", 2, range(1000, 1012))
    learned = score_images(detector, source := open_source(tmp_path / "data"), source.pictures())
    hashes, names = hash_rows(learned.images), tuple(learned.names)
    part = dataclasses.replace(detector.split.fit, indices=torch.arange(len(names)), hashes=hashes, names=names)
    of_two_kinds = dataclasses.replace(
        detector,
        config=dataclasses.replace(detector.config, dataset=str(tmp_path / "data")),
        split=dataclasses.replace(detector.split, fit=part),
    )
    assert normals(of_two_kinds, tmp_path / "new") == 12
    assert normals(of_two_kinds, tmp_path / "data") == 0


def test_of_many_an_even_sample_is_looked_at(
    place: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("anomaly_ae.workflows.new_pictures.MOST_KNOWN", 39)
    assert normals(detector, place / "known" / "good") in (0, 1)
    assert "looked for of 39 of the 40 pictures that the detector was made with: an even" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataset", "new"), [("file://{place}/data", 0), ("memory://data", 8), ("{place}/gone", 8), ("a" * 5000, 8)]
)
def test_a_place_that_cannot_be_looked_into_is_no_error(
    place: Path, detector: Detector, capsys: pytest.CaptureFixture[str], dataset: str, new: int
) -> None:
    config = dataclasses.replace(detector.config, dataset=dataset.format(place=place))
    assert normals(dataclasses.replace(detector, config=config), place / "known" / "good") == new
    assert ("looked for of 0 of the 40 pictures" in capsys.readouterr().err) == bool(new)
