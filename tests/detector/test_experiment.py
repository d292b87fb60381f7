from collections import Counter
from typing import Any

import pytest
import torch

from anomaly_ae.autoencoders import Outputs, build_autoencoder
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector import experiment
from anomaly_ae.detector import fit as fitting
from anomaly_ae.detector.experiment import Experiment, fill_defaults
from anomaly_ae.detector.fit import fit_scorer
from anomaly_ae.errors import UsageError
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.runs.store import RunStore
from anomaly_ae.scorers import ImageBatches, Scorer, build_scorer

BUILDERS = ("build_autoencoder", "build_scorer", "build_objective", "build_augmentation")


def test_a_training_builds_everything_once(home: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import anomaly_ae.augmentation.transforms
    import anomaly_ae.autoencoders
    import anomaly_ae.objectives
    import anomaly_ae.scorers

    calls = Counter[str]()

    def counting(name: str) -> Any:
        real = getattr(experiment, name)

        def build(*arguments: Any) -> Any:
            calls[name] += 1
            return real(*arguments)

        return build

    homes = (anomaly_ae.augmentation.transforms, anomaly_ae.autoencoders, anomaly_ae.objectives, anomaly_ae.scorers)
    for name in BUILDERS:
        build = counting(name)
        for module in (experiment, fitting, *homes):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, build)
    anomaly_ae.train(RunConfig(normal="5", epochs=1, scorer="relative+latent-knn"), home=home, tracking=False)
    assert calls == dict.fromkeys(BUILDERS, 1)


def test_what_was_not_said_is_the_presets_then_the_autoencoders_own() -> None:
    config = fill_defaults(RunConfig(preset="surface-scratch"))
    assert (config.autoencoder, config.objective, config.scorer) == ("repair", "repair", "defect")
    assert config.defects
    assert fill_defaults(RunConfig(preset="surface-scratch", objective="mse", scorer="mse")).objective == "mse"
    config = fill_defaults(RunConfig(preset="surface"))
    assert (config.autoencoder, config.objective, config.scorer) == (
        "feature-conv",
        "features",
        "feature-error+2*patch-knn",
    )
    assert (config.batch_size, config.steps) == (8, 75)
    assert fill_defaults(RunConfig(defects=0.25)).defects == 0.25


def test_what_does_not_go_together_is_said_before_anything_is_trained() -> None:
    def build(**settings: Any) -> Experiment:
        return Experiment.build(RunConfig(**settings), Preprocessing(1, 8, 8), ("a", "b"), ("a",))

    with pytest.raises(UsageError, match="vae"):
        build(scorer="elbo")
    with pytest.raises(UsageError, match="repair"):
        build(scorer="defect")
    one, other = build(latent=3), build(latent=3)
    assert one.config.latent == 3
    assert all(
        (mine == its).all() for mine, its in zip(one.network.parameters(), other.network.parameters(), strict=True)
    )


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


@pytest.mark.parametrize(("folds", "copied"), [(None, 0), (3, 3)])
def test_a_scorer_learns_from_no_more_copies_of_images_than_there_are_folds(
    folds: int | None, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, take_rows = list[int](), fitting.take_rows

    def counting(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        taken.append(len(rows))
        return take_rows(images, rows)

    monkeypatch.setattr(fitting, "take_rows", counting)
    config = RunConfig(folds=folds, guarantee="cross" if folds else None)
    network, images = build_autoencoder("conv", (1, 8, 8), config), torch.zeros(9, 1, 8, 8, dtype=torch.uint8)
    fit_scorer(build_scorer("mse", folds=folds), network, images, images, config)
    assert taken == [6] * copied
