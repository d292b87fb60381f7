from collections import Counter
from typing import Any

import pytest

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector import experiment, fit_scorer
from anomaly_ae.detector import fit as fitting
from anomaly_ae.detector.experiment import Experiment, fill_defaults
from anomaly_ae.errors import UsageError
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.runs.store import RunStore

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
        for module in (experiment, fitting, fit_scorer, *homes):
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
        "feature-error+2*patch-knn+0.5*defect",
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
