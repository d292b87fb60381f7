import pytest
import torch

from anomaly_ae.autoencoders import Outputs, build_autoencoder
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.scorers import ImageBatches, Scorer, build_scorer
from anomaly_ae.storage.memmap import take_rows


def test_who_writes_a_scorer_is_told_what_it_lacks() -> None:
    class Forgetful(Scorer):
        def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
            self.learned["mean"] = torch.zeros(3)

        def score(self, images: torch.Tensor, outputs: Outputs) -> torch.Tensor:
            return outputs.latent[:, 0]

    class Wide(Scorer):
        def score(self, images: torch.Tensor, outputs: Outputs) -> torch.Tensor:
            return outputs.latent

    network, images = build_autoencoder("conv", (1, 8, 8)), torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(NotImplementedError, match="specs of Forgetful lack what it learns: mean"):
        fit_scorer(Forgetful(), network, images, images, RunConfig())
    with pytest.raises(NotImplementedError, match=r"scores of Wide have the shape \(1, 12\), and not \(N,\)"):
        fit_scorer(Wide(), network, images, images, RunConfig())


@pytest.mark.parametrize("name", ["mse", "relative+latent-knn", "feature-knn"])
def test_scorers_of_folds_learn_side_by_side_what_they_learn_one_after_another(name: str) -> None:
    config = RunConfig(folds=3, guarantee="cross")
    images = torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8)
    torch.manual_seed(0)
    network, learned = build_autoencoder("conv", (1, 8, 8), config), []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            learned.append(fit_scorer(build_scorer(name, folds=3), network, images, images, config).state())
        finally:
            torch.set_num_threads(before)
    one, other = learned
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("folds", "copied"), [(None, 0), (3, 3)])
def test_a_scorer_learns_from_no_more_copies_of_images_than_there_are_folds(
    folds: int | None, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[int]()

    def counting(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        taken.append(len(rows))
        return take_rows(images, rows)

    monkeypatch.setattr("anomaly_ae.detector.fit_scorer.take_rows", counting)
    config = RunConfig(folds=folds, guarantee="cross" if folds else None)
    network, images = build_autoencoder("conv", (1, 8, 8), config), torch.zeros(9, 1, 8, 8, dtype=torch.uint8)
    fit_scorer(build_scorer("mse", folds=folds), network, images, images, config)
    assert taken == [6] * copied
