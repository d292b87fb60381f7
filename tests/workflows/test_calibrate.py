"""Calibrating anew: a child run, a detector of its own, the old one untouched."""

from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

import anomaly_ae
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import CalibrationError, DataError, DataMissing, UsageError
from anomaly_ae.runs.record import FINISHED
from anomaly_ae.workflows.train import resume
from tests.conftest import Cli, Trained

DIGITS = load_dataset("digits").files["train"]


def write(folder: Path, images: torch.Tensor) -> Path:
    folder.mkdir()
    for i, image in enumerate(images[:, 0].numpy()):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def unseen(trained: Trained) -> torch.Tensor:
    """Normal images that are for the test."""
    indices = trained.detector().split.test.indices
    return DIGITS.images[indices[DIGITS.labels[indices] < 3]]


def test_new_normal_images_make_a_new_detector_and_leave_the_old_one_alone(trained: Trained, tmp_path: Path) -> None:
    old = (trained.run.path / "detector" / "detector.json").read_bytes()
    folder = write(tmp_path / "normal", unseen(trained))
    (folder / "bad.png").write_bytes(b"bad")
    result = anomaly_ae.calibrate(trained.run.record.id, normal_folder=folder, target_fpr=0.1, home=trained.home)
    assert (result.images, result.unreadable) == (len(unseen(trained)), 1)
    run = trained.home.find_run(result.run_id)
    assert (run.record.parent, run.record.status) == (trained.run.record.id, FINISHED)
    new = Detector.load(run.detector_folder())
    expected = trained.detector().score(unseen(trained)).sort().values
    torch.testing.assert_close(new.calibration.scores, expected)
    assert new.threshold == result.threshold == new.calibration.threshold
    assert (trained.run.path / "detector" / "detector.json").read_bytes() == old
    assert trained.home.latest().record.id == trained.run.record.id
    logged = MlflowClient(trained.home.tracking_uri).get_run(result.run_id)
    assert logged.data.tags["mlflow.parentRunId"] == trained.run.record.id
    assert logged.data.metrics["calibration/threshold"] == pytest.approx(result.threshold)
    assert (run.path / "figures" / "calibration.png").stat().st_size > 10_000


def test_the_new_detector_can_be_evaluated(trained: Trained) -> None:
    result = anomaly_ae.calibrate(trained.run.record.id, guarantee="conditional", home=trained.home, tracking=False)
    evaluation = anomaly_ae.evaluate(result.run_id, home=trained.home)
    assert evaluation.threshold == result.threshold > trained.evaluation.threshold
    assert evaluation.calibration == "conditional, with 95% confidence"


def test_known_anomalies_show_what_is_found_and_a_threshold_without_guarantee(
    trained: Trained, tmp_path: Path
) -> None:
    anomalies = DIGITS.images[DIGITS.labels == 7][:50]
    folder = write(tmp_path / "anomalies", anomalies)
    result = anomaly_ae.calibrate(trained.run.record.id, anomaly_folder=folder, home=trained.home, tracking=False)
    assert result.anomalies is not None
    found = (trained.detector().score(anomalies) > result.threshold).float().mean().item()
    assert result.anomalies.detection_rate == pytest.approx(found)
    low, high = result.anomalies.detection_rate_ci
    assert low < found <= high
    assert result.anomalies.best_f1 > 0.9


def test_images_that_look_otherwise_are_said(trained: Trained, tmp_path: Path) -> None:
    folder = write(tmp_path / "inverted", 255 - unseen(trained))
    result = anomaly_ae.calibrate(trained.run.record.id, normal_folder=folder, home=trained.home, tracking=False)
    assert "inverted" in result.differences[0]
    assert result.drift is not None
    assert result.drift.moved


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "nothing to calibrate"),
        ({"dataset": "digits"}, "trained on digits"),
        ({"dataset": "digits", "normal_folder": "x"}, "both were given"),
    ],
)
def test_what_cannot_be_asked_is_said(trained: Trained, asked: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        anomaly_ae.calibrate(trained.run.record.id, home=trained.home, **asked)


def test_images_of_the_training_and_swapped_folders_are_said(trained: Trained, tmp_path: Path) -> None:
    fit = DIGITS.images[trained.detector().split.fit.indices]
    known, anomalies = write(tmp_path / "known", fit), write(tmp_path / "novel", DIGITS.images[DIGITS.labels == 7])
    with pytest.raises(DataError, match="made with all"):
        anomaly_ae.calibrate(trained.run.record.id, normal_folder=known, home=trained.home, tracking=False)
    with pytest.raises(DataError, match="made with all"):
        anomaly_ae.calibrate(trained.run.record.id, anomaly_folder=known, home=trained.home, tracking=False)
    normal = write(tmp_path / "normal", unseen(trained))
    swapped = anomaly_ae.calibrate(
        trained.run.record.id, normal_folder=anomalies, anomaly_folder=normal, home=trained.home, tracking=False
    )
    assert any("swapped" in said for said in swapped.differences)
    assert "of the run's own test set" in swapped.differences[-1]


def test_pictures_that_are_called_normal_and_anomalous_are_neither(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, anomalies = unseen(trained), DIGITS.images[DIGITS.labels == 7][:20]
    normal, good = write(tmp_path / "normal", torch.cat([images, anomalies[:2]])), trained.run.record.id
    bad = write(tmp_path / "bad", torch.cat([anomalies, DIGITS.images[trained.detector().split.fit.indices[:3]]]))
    asked = {"home": trained.home, "tracking": False}
    result = anomaly_ae.calibrate(good, normal_folder=normal, anomaly_folder=bad, **asked)
    assert result.anomalies is not None
    assert (result.images, result.left_out, result.anomalies.images) == (len(images), 2, 18)
    said = capsys.readouterr().err
    assert "left out: 3 pictures that the detector was made with" in said
    assert "left out: 4 pictures that are both normal and not" in said
    both = write(tmp_path / "both", torch.cat([images, anomalies]))
    with pytest.raises(DataError, match="all 20 anomalous pictures are both normal and not"):
        anomaly_ae.calibrate(good, normal_folder=both, anomaly_folder=bad, **asked)


def test_small_and_stretched_files_are_said(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    for i, image in enumerate(unseen(trained)[:40, 0].numpy()):
        Image.fromarray(image).resize((24, 8)).save(folder / f"{i}.png")
    result = anomaly_ae.calibrate(trained.run.record.id, normal_folder=folder, home=trained.home, tracking=False)
    assert result.differences[0] == "the images are 8×24 and the detector works at 8×8: they are stretched"


def test_a_calibration_is_not_resumed_as_a_training(trained: Trained) -> None:
    result = anomaly_ae.calibrate(trained.run.record.id, target_fpr=0.2, home=trained.home, tracking=False)
    with pytest.raises(UsageError, match="is that of a calibration"):
        resume(result.run_id, home=trained.home)


def test_too_few_images_leave_nothing_behind(trained: Trained, tmp_path: Path) -> None:
    before = len(trained.home.runs())
    folder = write(tmp_path / "normal", unseen(trained)[:10])
    with pytest.raises(CalibrationError, match="needs at least 19 calibration images, and there are 10"):
        anomaly_ae.calibrate(trained.run.record.id, normal_folder=folder, home=trained.home)
    with pytest.raises(DataMissing):
        anomaly_ae.calibrate(trained.run.record.id, normal_folder=tmp_path / "none", home=trained.home)
    assert len(trained.home.runs()) == before


def test_as_a_user_calls_it(trained: Trained, cli: Cli) -> None:
    place = ("--mlruns", str(trained.home.root))
    done = cli("calibrate", trained.run.record.id, "--target-fpr", "0.001", "--guarantee", "tail", *place)
    assert done.code == 0, done.err
    assert "tail, an extrapolation" in done.out
    assert "conditional from 0.027" in done.out
    refused = cli("calibrate", trained.run.record.id, "--target-fpr", "0.001", *place)
    assert refused.code == 2
    assert "the smallest rate possible is 0.009175" in refused.err
