import csv
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import anomaly_ae
from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.measuring import mse_and_latents
from anomaly_ae.errors import UnknownName
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.printed import to_dict
from anomaly_ae.scorers import SCORERS
from tests.conftest import Trained, drawing

KEYS = {
    *("run_id", "dataset", "normal", "scorer", "auroc", "auroc_ci", "average_precision", "fpr_at_95_tpr"),
    *("threshold", "target_fpr", "false_positive_rate", "true_positive_rate", "per_class"),
}


def test_digits_are_told_apart(trained: Trained) -> None:
    assert trained.evaluation.auroc > 0.98
    low, high = trained.evaluation.auroc_ci
    assert low < trained.evaluation.auroc < high


def test_the_numbers_are_those_of_the_test_images_recorded(trained: Trained) -> None:
    """All figures again, from the detector, the data and scikit-learn."""
    detector, evaluation = trained.detector(), trained.evaluation
    digits = load_dataset("digits").files["train"]
    test = digits.take(detector.split.test.indices)
    scores, novel = detector.score(test.images).numpy(), test.labels.numpy() > 2
    assert evaluation.auroc == pytest.approx(roc_auc_score(novel, scores))
    assert evaluation.average_precision == pytest.approx(average_precision_score(novel, scores))
    calibration = Calibration(detector.score(digits.images[detector.split.calibration.indices]), 0.05)
    assert evaluation.threshold == calibration.threshold
    assert evaluation.false_positive_rate == (scores[~novel] > calibration.threshold).mean()
    assert evaluation.true_positive_rate == (scores[novel] > calibration.threshold).mean()
    rows = {row.class_: row for row in evaluation.per_class}
    eight = test.labels.numpy() == 8
    assert rows["8"].auroc == pytest.approx(roc_auc_score(eight[eight | ~novel], scores[eight | ~novel]))
    assert rows["8"].detection_rate == (scores[eight] > calibration.threshold).mean()
    assert rows["1"].false_alarm_rate == (scores[test.labels.numpy() == 1] > calibration.threshold).mean()
    assert (rows["1"].auroc, rows["8"].false_alarm_rate) == (None, None)


def test_tables_are_kept_with_the_run(trained: Trained) -> None:
    folder = trained.run.path / "evaluation"
    kept = json.loads((folder / "metrics.json").read_text())
    assert kept == json.loads(json.dumps(trained.evaluation.to_dict()))
    assert kept.keys() >= KEYS
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == trained.evaluation.images
    novel = np.array([row["is_novel"] == "True" for row in rows])
    assert roc_auc_score(novel, [float(row["score"]) for row in rows]) == pytest.approx(trained.evaluation.auroc)
    above = [float(row["p_value"]) <= 0.05 for row in rows]
    assert above == [row["is_anomaly"] == "True" for row in rows]
    with (folder / "per_class.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == list("0123456789")


def test_another_rate_is_printed_and_leaves_the_run_alone(trained: Trained) -> None:
    before = (trained.run.path / "evaluation" / "metrics.json").read_bytes()
    other = anomaly_ae.evaluate(home=trained.home, target_fpr=0.2)
    assert (other.target_fpr, other.auroc) == (0.2, trained.evaluation.auroc)
    assert other.threshold < trained.evaluation.threshold
    assert (trained.run.path / "evaluation" / "metrics.json").read_bytes() == before


def test_a_saved_folder_can_be_evaluated_without_its_run(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("elsewhere") / "copy"
    trained.detector().save(folder)
    evaluation = anomaly_ae.evaluate(str(folder), home=trained.home)
    assert (evaluation.run_id, evaluation.auroc) == (None, trained.evaluation.auroc)
    assert sorted(path.name for path in folder.iterdir()) == ["detector.json", "weights.safetensors"]


def test_every_figure_is_drawn(trained: Trained) -> None:
    names = {path.stem for path in (trained.run.path / "figures").iterdir()}
    assert names == {
        *("loss_curves", "reconstructions", "score_histogram", "roc_and_precision_recall", "score_by_class"),
        *("most_anomalous", "least_anomalous", "false_alarms", "missed", "latent_map"),
        *("before_and_after_training", "interpolation", "samples"),
    }


def test_the_split_was_held(trained: Trained) -> None:
    """What calibrates was not trained on, and the memory holds fit images alone."""
    split = trained.detector().split
    for one, other in (("fit", "calibration"), ("fit", "test"), ("calibration", "test"), ("validation", "test")):
        assert not torch.isin(getattr(split, one).indices, getattr(split, other).indices).any()
    assert len(trained.detector().scorer.state()["features.memory"]) == len(split.fit.indices)


def test_where_every_class_is_normal_there_is_nothing_to_rank(home: RunStore) -> None:
    anomaly_ae.train(
        RunConfig(normal="all", autoencoder="vanilla", epochs=2, image_size="8"), home=home, tracking=False
    )
    with drawing():
        evaluation = anomaly_ae.evaluate(home=home)
    assert evaluation.auroc is evaluation.auroc_ci is evaluation.true_positive_rate is None
    assert evaluation.reconstruction_mse > 0
    assert {row.role for row in evaluation.per_class} == {"normal"}
    names = {path.stem for path in (home.latest().path / "figures").iterdir()}
    assert "score_histogram" in names
    assert "roc_and_precision_recall" not in names


def test_the_reconstruction_mse_is_that_of_the_normal_test_images(trained: Trained) -> None:
    detector = trained.detector()
    test = detector.split.test.take(load_dataset("digits"))
    normal = test.images[torch.isin(test.labels, torch.tensor([0, 1, 2]))]
    expected = (detector.reconstruct(normal) - normal / 255).square().mean().item()
    assert trained.evaluation.reconstruction_mse == pytest.approx(expected, rel=1e-5)


def test_errors_and_latents_of_one_pass_are_those_of_two(trained: Trained) -> None:
    detector = trained.detector()
    images = detector.split.test.take(load_dataset("digits")).images[:9]
    mse, latents = mse_and_latents(detector, images, 9)
    same, some = mse_and_latents(detector, images, 3)
    assert latents.shape == (9, detector.network.latent_size)
    assert torch.allclose(some, latents[::4], atol=1e-5)
    error = (detector.reconstruct(images) - images / 255).square().mean().item()
    assert (mse, same) == (pytest.approx(error, rel=1e-5), pytest.approx(error, rel=1e-5))
    without, nothing = mse_and_latents(detector, images, 0)
    assert (without, len(nothing)) == (same, 0)


def test_another_guarantee_is_printed_and_leaves_the_run_alone(trained: Trained) -> None:
    before = (trained.run.path / "evaluation" / "metrics.json").read_bytes()
    other = anomaly_ae.evaluate(home=trained.home, guarantee="conditional", confidence=0.9)
    assert other.calibration == "conditional, with 90% confidence"
    assert other.threshold > trained.evaluation.threshold
    assert (trained.run.path / "evaluation" / "metrics.json").read_bytes() == before


def test_discoveries_are_measured_against_the_labels(trained: Trained) -> None:
    found = anomaly_ae.evaluate(home=trained.home, fdr=0.1).discoveries
    assert found is not None
    detector = trained.detector()
    test = load_dataset("digits").files["train"].take(detector.split.test.indices)
    mask = detector.discoveries(detector.score(test.images), 0.1).found.numpy()
    novel = test.labels.numpy() > 2
    assert found.found == mask.sum() > 0
    assert found.false_discovery_share == (mask & ~novel).sum() / mask.sum()
    assert found.detection_rate == (mask & novel).sum() / novel.sum()
    assert found.fewest_possible == 126  # 1,367 images / (0.1 · 109)


def test_other_scorers_are_measured_on_the_same_images(trained: Trained) -> None:
    rows = anomaly_ae.evaluate(home=trained.home, compare_scorers=["pixel-knn", "relative"]).beside
    assert [row.scorer for row in rows] == ["aligned-knn", "pixel-knn", "relative"]
    assert anomaly_ae.evaluate(home=trained.home).beside == []  # what was not asked is not printed, and yet
    kept = json.loads((trained.run.path / "evaluation" / "metrics.json").read_text())
    assert kept["beside"] == [to_dict(row) for row in rows]
    detector = trained.detector()
    digits = load_dataset("digits").files["train"]
    test, fit = digits.take(detector.split.test.indices), digits.images[detector.split.fit.indices]
    nearest = torch.cdist(test.images.flatten(1).float(), fit.flatten(1).float()).amin(dim=1)
    assert rows[1].auroc == pytest.approx(roc_auc_score(test.labels.numpy() > 2, nearest.numpy()), abs=1e-4)
    assert (rows[0].difference, rows[0].p_value) == (0, 1)
    assert rows[2].difference == pytest.approx(rows[2].auroc - rows[0].auroc)
    assert {f"auroc {digit}" for digit in range(3, 10)} <= rows[0].by_class.keys()
    assert "beside.csv" in {path.name for path in (trained.run.path / "evaluation").iterdir()}


def test_all_scorers_beside_are_those_that_suit_the_network(trained: Trained) -> None:
    rows = anomaly_ae.evaluate(home=trained.home, compare_scorers=["all"]).beside
    assert {row.scorer for row in rows} == set(SCORERS) - {"elbo", "defect", "feature-error", "restoration"}


def test_a_wrong_name_beside_is_said(trained: Trained) -> None:
    with pytest.raises(UnknownName, match="pixel-knn"):
        anomaly_ae.evaluate(home=trained.home, compare_scorers=["pixels-knn"])
