import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.svm import OneClassSVM

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers import build_scorer
from tests.scorers.conftest import batches

Batch = tuple[torch.Tensor, Outputs]


def batch(count: int, seed: int) -> Batch:
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed)) / 255
    return images, Outputs(images, torch.zeros(count, 2))


FIT, QUERY = batch(300, 0), batch(40, 1)


def flat(images: torch.Tensor) -> np.ndarray:
    return images.flatten(1).numpy()


def scores(name: str) -> np.ndarray:
    scorer = build_scorer(name)
    scorer.fit(batches(FIT), batches(FIT))
    return scorer.score(*QUERY).numpy()


def test_pca_is_the_error_of_scikit_learn_s_reconstruction() -> None:
    pca = PCA(32, svd_solver="full").fit(flat(FIT[0]))
    rows = flat(QUERY[0])
    expected = ((rows - pca.inverse_transform(pca.transform(rows))) ** 2).mean(axis=1)
    np.testing.assert_allclose(scores("pca"), expected, rtol=1e-3)


def test_the_one_class_svm_ranks_as_scikit_learn_s_does() -> None:
    expected = -OneClassSVM(nu=0.1).fit(flat(FIT[0])).score_samples(flat(QUERY[0]))
    ours = scores("one-class-svm")
    np.testing.assert_allclose(ours - ours.mean(), expected - expected.mean(), atol=1e-4)
    assert ours.min() >= 0


def test_the_isolation_forest_is_scikit_learn_s() -> None:
    expected = -IsolationForest(random_state=0).fit(flat(FIT[0])).score_samples(flat(QUERY[0]))
    np.testing.assert_allclose(scores("isolation-forest"), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["pixel-knn", "pca", "isolation-forest", "one-class-svm"])
def test_baselines_do_not_look_at_the_network(name: str) -> None:
    scorer = build_scorer(name)
    scorer.fit(batches(FIT), batches(FIT))
    other = Outputs(torch.zeros_like(QUERY[0]), torch.ones(len(QUERY[0]), 2))
    assert torch.equal(scorer.score(*QUERY), scorer.score(QUERY[0], other))


def test_few_images_have_fewer_components() -> None:
    few = batch(5, 2)
    scorer = build_scorer("pca")
    scorer.fit(batches(few), batches(few))
    assert scorer.state()["components"].shape[0] == 5
    assert scorer.score(*few).max().item() == pytest.approx(0, abs=1e-6)
