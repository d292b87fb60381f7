"""Detectors with the guarantee cross, from training to scoring."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import anomaly_ae
from anomaly_ae.autoencoders.folds import FoldAutoencoders, draw_folds
from anomaly_ae.autoencoders.network_files import load_part
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import CalibrationError, Interrupted
from anomaly_ae.integrations.onnx import export_onnx
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.scorers.fold_scorer import FoldScorer
from anomaly_ae.workflows.calibrate import calibrate
from anomaly_ae.workflows.evaluate import evaluate
from anomaly_ae.workflows.train import resume
from tests.conftest import Cli

FOLDS = RunConfig(normal="5", epochs=2, scorer="relative+latent-knn", guarantee="cross", folds=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    home = RunStore.find(str(tmp_path_factory.mktemp("cross") / "mlruns"))
    return home.find_run(anomaly_ae.train(FOLDS, home=home, tracking=False, figures=False).run_id)


@pytest.fixture(scope="module")
def detector(run: RunFolder) -> Detector:
    return Detector.load(run.path / "detector")


def learned_from(detector: Detector) -> torch.Tensor:
    data = load_dataset("digits")
    return torch.cat([getattr(detector.split, part).take(data).images for part in ("fit", "calibration")])


def save_noise(folder: Path, count: int) -> None:
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (count, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")


def test_each_image_is_scored_by_the_network_and_memory_that_have_not_seen_it(detector: Detector) -> None:
    images, network, scorer = learned_from(detector), detector.network, detector.scorer
    assert isinstance(network, FoldAutoencoders)
    assert isinstance(scorer, FoldScorer)
    drawn = draw_folds(len(images), 4, FOLDS.seed)
    scores = []
    with torch.inference_mode():
        for fold, (member, part) in enumerate(zip(network, scorer.parts, strict=True)):
            own = images[drawn == fold].float() / 255
            scores.append(part.score(own, member.eval()(own)))
            memory = part.state()["1.memory"]
            assert len(memory) == int((drawn != fold).sum())
    expected = torch.cat(scores).sort().values
    assert torch.allclose(detector.calibration.scores, expected, atol=1e-4)
    assert len(detector.calibration.scores) == len(images) // 4 * 4


def test_a_new_image_has_the_lowest_of_their_scores(detector: Detector) -> None:
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network, scorer = detector.network, detector.scorer
    assert isinstance(network, FoldAutoencoders)
    assert isinstance(scorer, FoldScorer)
    with torch.inference_mode():
        each = torch.stack(
            [part.score(images, member(images)) for member, part in zip(network, scorer.parts, strict=True)]
        )
    assert torch.allclose(detector.score(images), each.amin(dim=0), atol=1e-4)
    heat = detector.anomaly_map(images)
    assert heat is not None
    assert heat.shape == (6, 8, 8)
    assert detector.heat_level is not None


def test_it_says_after_loading_what_it_said_and_its_parts_are_whole(detector: Detector, run: RunFolder) -> None:
    images = learned_from(detector)[:4]
    assert torch.equal(load_part(run.path / "network" / "encoder.safetensors")(images / 255), detector.encode(images))
    assert detector.calibration.folds == 4
    assert "cross, 4 folds" in repr(detector.calibration)


def test_resumed_it_ends_as_one_that_was_not_interrupted(
    run: RunFolder, home: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("anomaly_ae.workflows.train.Detector.save", stop)
        with pytest.raises(Interrupted):
            anomaly_ae.train(FOLDS, home=home, tracking=False, figures=False)
    resume("latest", home=home, figures=False)
    again = next(iter(home.runs())).path / "detector"
    assert (again / "weights.safetensors").read_bytes() == (run.path / "detector/weights.safetensors").read_bytes()


def test_it_is_evaluated_beside_other_scorers_in_the_same_folds(run: RunFolder, home: RunStore) -> None:
    detector_folder = str(run.path / "detector")
    measured = evaluate(detector_folder, home=home, figures=False, compare_scorers=["latent-knn"])
    assert measured.calibration.startswith("cross, 4 folds")
    other = measured.beside[1]
    assert 0.5 < other.auroc < 1


def test_other_normal_images_give_it_another_guarantee(run: RunFolder, home: RunStore, tmp_path: Path) -> None:
    save_noise(tmp_path / "new", 25)
    result = calibrate(str(run.path / "detector"), normal_folder=tmp_path / "new", home=home, tracking=False)
    assert (result.guarantee, result.images) == ("marginal", 25)
    with pytest.raises(CalibrationError, match='train with guarantee="marginal"'):
        calibrate(str(run.path / "detector"), guarantee="marginal", home=home, tracking=False)


@pytest.mark.slow  # an export
def test_as_a_graph_it_says_the_same(detector: Detector, tmp_path: Path) -> None:
    exported = export_onnx(detector, tmp_path / "detector.onnx")
    assert exported.deviations["score"] < 1e-4


def test_what_does_not_go_with_it_is_refused_in_words(cli: Cli, tmp_path: Path) -> None:
    ended = cli("train", "--normal", "5", "--set", "folds=4")
    assert "folds are those of the guarantee cross; name --guarantee cross, too" in ended.err
    ended = cli("train", "--normal", "5", "--guarantee", "cross", "--trim-training", "0.1")
    assert "takes all images for normal, and --trim-training 0.1 does not" in ended.err
    assert cli("train", "--normal", "5", "--guarantee", "crossed").code == 2
    ended = cli("train", "--normal", "5", "--guarantee", "cross", "--set", "folds=100", "--set", "contamination=0.4")
    assert "takes all images for normal, and --set contamination=0.4 does not" in ended.err
    save_noise(tmp_path / "few", 30)
    ended = cli("train", "--dataset", str(tmp_path / "few"), "--guarantee", "cross", "--set", "folds=100")
    assert "images cannot be divided into 100 folds; leave --set folds out" in ended.err


@pytest.mark.parametrize("guarantee", ["conditional", "tail"])
def test_a_training_may_name_the_other_guarantees(guarantee: str, cli: Cli) -> None:
    settings = ("--epochs", "1", "--scorer", "pixel-knn", "--no-figures", "--no-tracking", "--json")
    result = cli("train", "--normal", "0-4", "--guarantee", guarantee, "--target-fpr", "0.1", *settings).json()
    assert result["guarantee"].startswith(guarantee)
    assert json.loads(Path(result["run_folder"], "config.json").read_text())["guarantee"] == guarantee
