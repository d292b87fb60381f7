"""Pictures that come, go, or are there twice: what a training, its resume and its evaluation make of them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DataChanged, DataError
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows.train import resume
from tests.conftest import interrupted_at

QUICK = {"preset": "fast", "image_size": "16", "epochs": 4, "batch_size": 8}


def picture(seed: int, bright: int = 0) -> np.ndarray:
    """A gray surface with a grain of its own, uint8 (16, 16)."""
    return np.random.default_rng(seed).normal(120 + bright, 20, (16, 16)).clip(0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def make(folder: Path, count: int = 60) -> Path:
    for i in range(count):
        save(folder / f"good/{i:03}.png", picture(i))
    for i in range(4):
        save(folder / f"spot/{i}.png", picture(1000 + i, 100))
    return folder


def train(home: RunStore, folder: Path, **settings: object) -> str:
    config = RunConfig.build({"dataset": str(folder)} | QUICK | settings)
    return anomaly_ae.train(config, home=home, tracking=False).run_id


def test_a_training_goes_on_with_its_own_pictures_when_others_have_come(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "set")
    whole = home.find_run(train(home, folder)).detector_folder()
    with interrupted_at(2):
        train(home, folder)
    save(folder / "good/0000.png", picture(2000))
    for i in range(100):
        save(folder / f"a blot/{i}.png", np.dstack([picture(3000 + i)] * 2 + [picture(i) // 2]))  # larger set, colour
    second = home.find_run(resume("latest", home=home).run_id).detector_folder()
    assert "101 files more than when this training began in" in capsys.readouterr().err
    for file in ("detector.json", "weights.safetensors"):
        assert (whole / file).read_bytes() == (second / file).read_bytes()
    evaluation = anomaly_ae.evaluate(home=home)
    assert {row.class_: row.images for row in evaluation.per_class} == {"good": 6, "spot": 4}


def test_what_is_gone_or_changed_is_named(home: RunStore, tmp_path: Path) -> None:
    folder = make(tmp_path / "set")
    with interrupted_at(2):
        train(home, folder)
    before = (folder / "good/007.png").read_bytes()
    (folder / "good/007.png").write_bytes((folder / "good/008.png").read_bytes())
    with pytest.raises(DataChanged, match=r"1 have changed, the first good/007\.png"):
        resume("latest", home=home)
    (folder / "good/007.png").unlink()
    with pytest.raises(DataChanged, match=r"1 are gone, the first good/007\.png"):
        resume("latest", home=home)
    (folder / "good/007.png").write_bytes(before)
    resume("latest", home=home)


def test_copies_are_one_picture_and_it_is_kept_which_went_where(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(60):
        save(tmp_path / f"set/{i:03}.png", picture(i))
        for copy in range(1 + i % 3):
            save(tmp_path / f"set/{i:03} ({copy}).png", picture(i))
    run = home.find_run(train(home, tmp_path / "set"))
    said = capsys.readouterr().err
    assert "copies: 120 of 180 normal pictures are equal to others, or as alike as if saved anew" in said
    assert "60 normal images: 28 to learn from, 6 to stop by, 20 for the threshold, 6 to measure with" in said
    assert "6 to measure with; false-alarm rates from 0.04762 on can be asked for" in said  # 1 / 21
    split = run.split
    names = [name for part in split["pictures"].values() for name in part["names"]]
    assert len({name[:3] for name in names}) == len(names) == 60
    assert len(split["left_out"]) == 120
    assert all(re.fullmatch(r"(\d{3}).*: a copy of \1.*", each) for each in split["left_out"])


def test_test_pictures_that_were_trained_on_are_not_measured_on(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(60):
        save(tmp_path / f"set/train/good/{i:03}.png", picture(i))
        save(tmp_path / f"set/test/good/{i:03}.png", picture(i + 50))  # ten of them are those of the training
        save(tmp_path / f"set/test/bad/{i:03}.png", picture(2000 + i, 60))
    train(home, tmp_path / "set")
    assert "left out: 10 test pictures that are training pictures, too: test/good/000.png" in capsys.readouterr().err
    assert anomaly_ae.evaluate(home=home).images == 110


def test_a_folder_for_each_part_is_trained_on(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(90):
        save(tmp_path / f"set/SN{i // 2:04}/{i}.png", picture(i))
    run = home.find_run(train(home, tmp_path / "set", normal="all"))
    assert "each of 45 small folders, as of one part or patient" in capsys.readouterr().err
    homes: dict[str, set[str]] = {}
    for part, pictures in run.split["pictures"].items():
        for name in pictures["names"]:
            homes.setdefault(name.split("/")[0], set()).add(part)
    assert len(homes) == 45
    assert all(len(found) == 1 for found in homes.values())


def test_a_calibration_leaves_out_what_the_detector_was_made_with(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "set")
    run = home.find_run(train(home, folder))
    split = Detector.load(run.detector_folder()).split
    made_with = sum(len(part.indices) for part in (split.fit, split.validation, split.calibration))
    with pytest.raises(DataError, match=f"made with all {made_with} of these pictures"):
        anomaly_ae.calibrate(normal_folder=_only(folder, tmp_path / "known", split), home=home, tracking=False)
    for i in range(25):
        save(folder / f"good/new {i} a.png", picture(5000 + i))
        save(folder / f"good/new {i} b.{'png' if i % 2 else 'jpg'}", picture(5000 + i))  # equal, or saved anew
    result = anomaly_ae.calibrate(normal_folder=folder / "good", home=home, tracking=False)
    assert (result.images, result.left_out) == (60 - made_with + 25, made_with + 25)
    said = capsys.readouterr().err
    assert f"left out: {made_with} pictures that the detector was made with" in said
    assert "left out: 25 pictures that are equal to others, or as alike as if saved anew" in said
    kept = json.loads((home.find_run(result.run_id).path / "result.json").read_text())
    assert kept["left_out"] == made_with + 25


def _only(folder: Path, target: Path, split: object) -> Path:
    """The pictures that a detector was made with, under other names."""
    names = [name for part in ("fit", "validation", "calibration") for name in getattr(split, part).names]
    for i, name in enumerate(names):
        save(target / f"{i}.png", np.asarray(Image.open(folder / name.decode())))
    return target
