"""What is said of a detector whose test lacks a kind of images, or whose threshold is set by one image or by hand."""

import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import betaincinv
from sklearn.metrics import roc_auc_score

import anomaly_ae
from anomaly_ae.calibration.conformal import DETECT, MANUAL
from anomaly_ae.config.run_config import MARGINAL, RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import Evaluation
from anomaly_ae.errors import CalibrationError, DataError, UsageError
from anomaly_ae.reporting.text import detectors
from anomaly_ae.runs.run_results import CalibrateResult
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking.descriptions import describe

SETTINGS = {"preset": "fast", "epochs": 1, "autoencoder": "vanilla", "scorer": "mae", "image_size": "16"}


def write(folder: Path, count: int, seed: int, contrast: float = 0.2) -> Path:
    """Pictures of gray noise, the more anomalous the more contrast."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = 128 + 127 * contrast * rng.uniform(-1, 1, (16, 16))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03}.png")
    return folder


@dataclass(frozen=True)
class Small:
    """A detector of small pictures, and where it is kept; all of its test pictures are anomalous."""

    place: Path
    home: RunStore
    run_id: str

    def evaluate(self, folder: str | None = None, **asked: object) -> Evaluation:
        dataset = None if folder is None else str(self.place / folder)
        return anomaly_ae.evaluate(self.run_id, dataset=dataset, home=self.home, **asked)

    def calibrate(self, **asked: object) -> CalibrateResult:
        return anomaly_ae.calibrate(self.run_id, home=self.home, tracking=False, **asked)

    def detector(self, run_id: str) -> Detector:
        return Detector.load(self.home.find_run(run_id).detector_folder())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    place = tmp_path_factory.mktemp("small")
    write(place / "data" / "train" / "good", 60, 0)
    write(place / "data" / "test" / "bad", 12, 1, contrast=1)
    write(place / "only-bad" / "defects", 9, 2, contrast=1)
    write(place / "only-good" / "good", 9, 3)
    write(place / "bad", 7, 4, contrast=1)
    write(place / "defects" / "good", 6, 9, contrast=1)
    write(place / "faulty" / "OK parts", 5, 9, contrast=1)
    write(place / "both" / "bad", 9, 5, contrast=0.25)
    write(place / "both" / "good", 9, 6)
    home = RunStore.find(str(place / "mlruns"))
    config = RunConfig.build(SETTINGS | {"dataset": str(place / "data"), "target_fpr": 0.1})
    return Small(place, home, anomaly_ae.train(config, home=home, tracking=False).run_id)


@pytest.mark.usefixtures("figures")
def test_without_normal_test_pictures_there_is_a_detection_rate_and_no_auroc(small: Small) -> None:
    evaluation = small.evaluate()
    assert (evaluation.auroc, evaluation.false_positive_rate, evaluation.precision) == (None, None, None)
    assert (evaluation.reconstruction_mse, evaluation.reconstruction_errors) == (None, [])
    assert evaluation.true_positive_rate == 1
    said = detectors.evaluated(evaluation)
    for line in ("AUROC              none: no normal test image", "detection rate     100.00%"):
        assert line in said
    run = small.home.find_run(small.run_id)
    assert json.loads((run.path / "evaluation" / "metrics.json").read_text())["auroc"] is None
    figures = {path.stem for path in (run.path / "figures").iterdir()}
    assert {"score_histogram", "score_by_class", "missed"} <= figures
    assert not {"roc_and_precision_recall", "false_alarms"} & figures
    assert "AUROC none: no normal test image; detection rate 100.00% of 12 test images." in describe(run)


@pytest.mark.parametrize(("folder", "images"), [("only-bad", 9), ("bad", 7), ("defects", 6), ("faulty", 5)])
def test_a_folder_of_anomalies_alone_is_measured_and_never_called_normal(
    small: Small, folder: str, images: int, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = small.evaluate(folder)
    assert re.search(
        rf"  {folder if folder != 'only-bad' else 'defects'}  {images}  anomalous", capsys.readouterr().err
    )
    assert (evaluation.images, evaluation.true_positive_rate, evaluation.false_positive_rate) == (images, 1, None)
    rows = {(row.class_, row.role, row.images) for row in evaluation.per_class}
    named = {"only-bad": "defects"}.get(folder, folder)  # never as a normal class is
    assert rows == {(named, "novel", images), ("good", "normal", 0)}
    assert "no normal test image" in detectors.evaluated(evaluation)


def test_a_folder_of_normal_pictures_alone_has_a_false_alarm_rate(small: Small) -> None:
    evaluation = small.evaluate("only-good")
    assert (evaluation.auroc, evaluation.true_positive_rate) == (None, None)
    assert evaluation.false_positive_rate is not None
    assert "AUROC              none: no anomalous test image" in detectors.evaluated(evaluation)


def test_pictures_that_are_called_good_and_bad_are_measured_as_neither(
    small: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    unclear = small.place / "unclear"
    for folder, count, seed in (("bad", 5, 21), ("good", 6, 22)):
        write(unclear / folder, count, seed)
    shutil.copy(unclear / "bad" / "003.png", unclear / "good" / "also bad.png")
    rows = {row.role: row.images for row in small.evaluate("unclear").per_class}
    assert rows == {"normal": 6, "novel": 4}
    assert "left out: 2 pictures that are both normal and not" in capsys.readouterr().err
    for path in (unclear / "bad").iterdir():
        shutil.copy(path, unclear / "good" / f"also {path.name}")
    with pytest.raises(DataError, match="all 5 anomalous pictures are both normal and not; name others"):
        small.evaluate("unclear")


def test_a_data_set_by_name_and_folders_of_its_classes_are_measured_by_a_detector_of_another(small: Small) -> None:
    """Images without names are counted in their own file, and what was anomalous in training is so alone, too."""
    numbers = write(small.place / "numbers" / "0", 40, 0).parent
    write(numbers / "7", 2, 7, contrast=1)
    config = RunConfig.build(
        SETTINGS | {"dataset": str(numbers), "normal": "0", "target_fpr": 0.2, "image_size": "8"}
    )
    run_id = anomaly_ae.train(config, home=small.home, tracking=False).run_id
    evaluation = anomaly_ae.evaluate(run_id, dataset="digits", home=small.home)
    assert (evaluation.images, {row.class_ for row in evaluation.per_class}) == (1_797, set("0123456789"))
    rows = (small.home.find_run(run_id).path / "evaluations" / "digits" / "scores.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["index", *map(str, range(1_797))]
    alone = write(small.place / "sevens" / "7", 4, 7).parent
    assert anomaly_ae.evaluate(run_id, dataset=str(alone), home=small.home).false_positive_rate is None
    unknown = write(small.place / "unknown" / "cats", 4, 7).parent
    write(unknown / "dogs", 4, 8)
    with pytest.raises(UsageError, match="no class that is known to be normal"):
        anomaly_ae.evaluate(run_id, dataset=str(unknown), home=small.home)


def test_the_plain_reconstruction_errors_stand_beside_the_scorer(small: Small) -> None:
    evaluation, detector = small.evaluate("both"), small.detector(small.run_id)
    folders = [small.place / "both" / name for name in ("bad", "good")]
    images = [Image.open(path) for folder in folders for path in sorted(folder.iterdir())]
    pixels = detector.preprocessing.prepare(images)
    errors = (detector.reconstruct(pixels) - pixels / 255).square().mean(dim=(1, 2, 3)).numpy()
    rows = {row.scorer: row for row in evaluation.reconstruction_errors}
    assert list(rows) == ["mae", "mse", "relative"]
    assert rows["mse"].auroc == pytest.approx(roc_auc_score(np.arange(18) < 9, errors))
    assert rows["mae"].auroc == evaluation.auroc
    assert evaluation.reconstruction_mse == pytest.approx(errors[9:].mean(), rel=1e-5)
    said = detectors.evaluated(evaluation)
    for about in ("mean squared reconstruction error", "blurred squared reconstruction error"):
        assert about in said


def test_one_odd_picture_that_sets_the_threshold_is_said_with_its_name(small: Small, tmp_path: Path) -> None:
    assert small.evaluate().threshold_warning is None
    normal = write(tmp_path / "normal", 9, 7)
    write(tmp_path / "odd", 1, 8, contrast=1)
    (tmp_path / "odd" / "000.png").rename(normal / "odd one.png")
    result = small.calibrate(normal_folder=normal)
    scores = small.detector(result.run_id).calibration.scores.tolist()
    said = (
        f"odd one.png (score {scores[-1]:.4g}) looks odd among 10 normal images; without it, the threshold would be"
    )
    assert f"{said} {scores[-2]:.4g} instead of {scores[-1]:.4g}" in detectors.calibrated(result)
    assert result.odd_normals is not None
    assert result.odd_normals.names == ["odd one.png"]
    evaluation = anomaly_ae.evaluate(result.run_id, home=small.home)
    assert said in detectors.evaluated(evaluation)
    assert evaluation.odd_normals == result.odd_normals
    folder = small.home.find_run(result.run_id).path
    rows = (folder / "calibration.csv").read_text().splitlines()
    assert rows[1].startswith("odd one.png,")
    assert len(rows) == 11
    assert (folder / "figures" / "odd_normals.png").exists()
    assert small.calibrate(target_fpr=0.2).odd_normals is None


def with_odd_normals(small: Small, place: Path, count: int) -> str:
    """A calibration of ten normal pictures, some of them full of contrast, as a run."""
    normal = write(place / "normal", 10 - count, 7)
    for path in write(place / "odd", count, 8, contrast=1).iterdir():
        path.rename(normal / f"odd {path.name}")
    return small.calibrate(normal_folder=normal, target_fpr=0.1).run_id


def faint(place: Path, count: int, contrast: float = 0.4) -> str:
    """A folder of good pictures, and as many that are bad by a contrast."""
    write(place / "faint" / "good", 12, 21)
    return str(write(place / "faint" / "bad", count, 22, contrast).parent)


def test_where_few_are_found_though_they_rank_high_the_rate_that_finds_them_is_said(
    small: Small, tmp_path: Path
) -> None:
    run_id, dataset = with_odd_normals(small, tmp_path, 1), faint(tmp_path, 12)
    evaluation = anomaly_ae.evaluate(run_id, dataset=dataset, home=small.home)
    missed = evaluation.missed
    assert missed is not None
    assert (evaluation.auroc, evaluation.true_positive_rate) == (1, 0)
    assert (missed.target_fpr, missed.detection_rate, missed.rate_without_odd) == (0.1819, 1, 1)
    root = small.home.root
    assert missed.command == f"anomaly-ae calibrate {run_id[:8]} --target-fpr 0.1819 --mlruns {root}"
    said = detectors.evaluated(evaluation)
    assert "they rank high, and lie below a threshold set by 10 normal images; without what looks odd among" in said
    assert f"a rate of 0.1819 would find 100% of them: {missed.command}" in said
    (folder,) = (small.home.find_run(run_id).path / "evaluations").glob("faint-*")
    kept = json.loads((folder / "metrics.json").read_text())
    assert kept["missed"] == dataclasses.asdict(missed)
    again = anomaly_ae.calibrate(run_id, target_fpr=missed.target_fpr, home=small.home, tracking=False)
    measured = anomaly_ae.evaluate(again.run_id, dataset=dataset, home=small.home)
    assert (measured.threshold, measured.true_positive_rate) == (missed.threshold, missed.detection_rate)
    assert measured.missed is None


def test_where_no_rate_finds_them_known_anomalies_are_to_set_the_threshold(small: Small, tmp_path: Path) -> None:
    run_id, dataset = with_odd_normals(small, tmp_path, 6), faint(tmp_path, 12)
    missed = anomaly_ae.evaluate(run_id, dataset=dataset, home=small.home).missed
    assert missed is not None
    assert (missed.target_fpr, missed.threshold, missed.detection_rate) == (None, None, None)
    assert missed.command is not None
    assert missed.command.startswith(f"anomaly-ae calibrate {run_id[:8]} --anomaly-folder FOLDER --detect 0.9")


def test_the_rate_that_is_said_is_that_of_the_guarantee_asked_for(small: Small, tmp_path: Path) -> None:
    run_id, dataset = with_odd_normals(small, tmp_path, 1), faint(tmp_path, 12)
    asked = {"dataset": dataset, "guarantee": "conditional", "confidence": 0.8, "target_fpr": 0.2, "home": small.home}
    missed = anomaly_ae.evaluate(run_id, **asked).missed
    assert missed is not None
    assert missed.target_fpr == pytest.approx(betaincinv(2, 9, 0.8), abs=1e-4)
    assert f"--target-fpr {missed.target_fpr} --guarantee conditional --confidence 0.8" in str(missed.command)


@pytest.mark.parametrize(("count", "contrast"), [(5, 0.4), (12, 0.2)])
def test_nothing_is_concluded_from_five_anomalies_or_a_poor_ranking(
    small: Small, tmp_path: Path, count: int, contrast: float
) -> None:
    run_id, dataset = with_odd_normals(small, tmp_path, 1), faint(tmp_path, count, contrast)
    evaluation = anomaly_ae.evaluate(run_id, dataset=dataset, home=small.home)
    assert (evaluation.true_positive_rate, evaluation.missed) == (0, None)
    assert "they rank high" not in detectors.evaluated(evaluation)


def test_a_threshold_of_ones_own_is_not_said_to_be_the_rates_doing(small: Small, tmp_path: Path) -> None:
    dataset = faint(tmp_path, 12)
    run_id = small.calibrate(threshold=1.0).run_id
    evaluation = anomaly_ae.evaluate(run_id, dataset=dataset, home=small.home)
    assert (evaluation.true_positive_rate, evaluation.missed) == (0, None)


@pytest.mark.usefixtures("figures")
def test_one_odd_picture_among_those_of_a_training_is_said_by_train(small: Small) -> None:
    """If it falls into the calibration, which one of the seeds does."""
    folder = write(small.place / "odd-training" / "good", 30, 9)
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(folder / "odd.png")
    warned = 0
    for seed in range(6):
        config = {"dataset": str(folder.parent), "target_fpr": 0.1, "seed": seed}
        result = anomaly_ae.train(RunConfig.build(SETTINGS | config), home=small.home, tracking=False)
        is_there = b"odd.png" in b"".join(small.detector(result.run_id).calibration.names or ())
        assert ("looks odd among" in detectors.trained(result)) == is_there
        kept = json.loads((Path(result.run_folder) / "result.json").read_text())
        assert kept["threshold_warning"] == (result.odd_normals.about if result.odd_normals else None)
        assert (kept["odd_normals"] or {}).get("names") == (["good/odd.png"] if is_there else None)
        assert (Path(result.run_folder) / "figures" / "odd_normals.png").exists() == is_there
        warned += is_there
        if 0 < warned <= seed:  # one that falls into it, and one that does not
            break
    assert 0 < warned < 6


def test_a_threshold_of_ones_own_is_kept_with_the_rate_it_holds(small: Small) -> None:
    scores = small.detector(small.run_id).calibration.scores
    between = float(scores[-3] + scores[-4]) / 2
    result = small.calibrate(threshold=between)
    detector = small.detector(result.run_id)
    assert detector.threshold == result.threshold == pytest.approx(between)
    assert detector.calibration.guarantee == MANUAL
    assert detector.calibration.target_fpr == result.target_fpr == result.expected_fpr == 4 / (len(scores) + 1)
    values = torch.cat([scores, torch.tensor([detector.threshold]), torch.linspace(0, 2 * between, 50)])
    above = values > detector.threshold
    assert torch.equal(above, detector.p_values(values) <= result.target_fpr)
    said = detectors.evaluated(anomaly_ae.evaluate(result.run_id, home=small.home))
    assert f"for a false-alarm rate of {result.target_fpr:g} (manual: the threshold was given" in said
    other = anomaly_ae.evaluate(result.run_id, target_fpr=0.2, home=small.home)
    assert (other.calibration, other.target_fpr) == (MARGINAL, 0.2)
    again = anomaly_ae.calibrate(result.run_id, normal_folder=small.place / "both" / "good", home=small.home)
    assert again.threshold == result.threshold  # what is not said stays, and the rate is that of the new images
    assert again.images == 9


def test_a_share_of_known_anomalies_to_detect_sets_the_threshold(small: Small) -> None:
    folder = small.place / "both" / "bad"
    result = small.calibrate(anomaly_folder=folder, detect=0.7)
    detector, known = small.detector(result.run_id), [Image.open(path) for path in sorted(folder.iterdir())]
    assert detector.calibration.guarantee == DETECT
    assert result.anomalies is not None
    assert int(detector.predict(known).sum()) == 7  # ⌈0.7 · 9⌉ at the least, and not one more
    assert result.anomalies.detection_rate == 7 / 9
    assert result.anomalies.expected_detection_rate == 0.7  # of new ones: 7 of the 10 places among 9
    above = int((detector.calibration.scores > detector.threshold).sum())
    assert result.target_fpr == (1 + above) / (len(detector.calibration.scores) + 1)
    assert "of new ones like them 70.0% are to be expected" in detectors.calibrated(result)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"detect": 0.9}, "name a folder of them with anomaly_folder"),
        ({"threshold": 1.0, "target_fpr": 0.1}, "leave out target_fpr"),
        ({"threshold": 1.0, "detect": 0.9, "anomaly_folder": "bad"}, "both were given"),
        ({"threshold": float("nan")}, "a finite number"),
        ({"threshold": -1.0}, "choose a higher one"),
    ],
)
def test_what_no_threshold_can_be_set_by_is_said(small: Small, asked: dict[str, object], said: str) -> None:
    with pytest.raises((UsageError, CalibrationError), match=said):
        small.calibrate(**asked)


def test_tail_is_offered_where_it_can_be(small: Small) -> None:
    enough = small.calibrate(normal_folder=write(small.place / "new", 40, 9))
    assert "tail for less" in detectors.calibrated(enough)
    fewer = small.calibrate(normal_folder=small.place / "only-good", target_fpr=0.2)
    assert set(fewer.smallest_rates) == {"marginal", "conditional"}
    assert "tail" not in detectors.calibrated(fewer)


def test_prototypes_compared_on_a_network_with_skips_are_said_to_lack_them(
    home: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig(normal="5", autoencoder="skip-conv", objective="mse", scorer="mse", epochs=1)
    anomaly_ae.train(config, home=home, tracking=False)
    assert "skips of" not in capsys.readouterr().err
    anomaly_ae.evaluate(home=home, compare_scorers=["mae", "mse+aligned-prototypes"])
    assert capsys.readouterr().err.count("skips of skip-conv carry") == 1
