"""What a detector makes of test images, looked at once."""

import dataclasses

import pytest
import torch

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector import outputs
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.detector.outputs import DetectorOutputs
from anomaly_ae.scorers import SCORERS, build_scorer
from tests.conftest import Trained


@pytest.mark.parametrize("most", [20, 19])
def test_they_are_the_detector_s_own(trained: Trained, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether all is kept, or looked at again."""
    monkeypatch.setattr(outputs, "KEPT_IMAGES", most)
    detector = trained.detector()
    images = detector.split.test.take(load_dataset("digits")).images[:20]
    made, rows = DetectorOutputs.of(detector, images), torch.tensor([3, 17, 4])
    assert (made.kept is None) == (most < len(images))
    assert torch.equal(made.scores, detector.score(images))
    for name, errors in made.errors.items():
        expected = SCORERS[name].build().score_all(detector.network, images)
        torch.testing.assert_close(torch.from_numpy(errors), expected)
    rebuilt, maps = made.reconstruct_and_map(rows)
    expected_rebuilt, expected_maps = detector.reconstruct_and_map(images[rows])
    torch.testing.assert_close(rebuilt, expected_rebuilt)
    torch.testing.assert_close(maps, expected_maps, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(made.anomaly_map(rows), expected_maps, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(made.encode(rows), detector.encode(images[rows]))


def test_a_scorer_without_a_map_has_none_here_either(trained: Trained) -> None:
    detector = trained.detector()
    images = detector.split.test.take(load_dataset("digits")).images[:20]
    scorer = fit_scorer(build_scorer("latent-knn"), detector.network, images, images, detector.config)
    other, rows = dataclasses.replace(detector, scorer=scorer), torch.tensor([3, 17, 4])
    for keep in (True, False):
        made = DetectorOutputs.of(other, images, keep)
        assert torch.equal(made.scores, other.score(images))
        assert (made.kept is not None, made.anomaly_map(rows)) == (keep, None)
        rebuilt, maps = made.reconstruct_and_map(rows)
        torch.testing.assert_close(rebuilt, other.reconstruct(images[rows]))
        assert maps is None


def test_few_images_go_through_the_network_once(trained: Trained) -> None:
    detector, seen = trained.detector(), list[int]()
    images = detector.split.test.take(load_dataset("digits")).images[:16]
    detector.network.encoder[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    made, rows = DetectorOutputs.of(detector, images), torch.arange(5)
    made.encode(rows), made.anomaly_map(rows), made.reconstruct_and_map(rows)
    assert seen == [16]
