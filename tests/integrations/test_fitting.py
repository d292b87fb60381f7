import numpy as np
import pytest
import torch

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.feature_rows import RowLayout
from anomaly_ae.integrations.fitting import fill, fit_rows, to_images

PICTURE, LINE = RowLayout((1, 8, 8)), RowLayout((1, 1, 30))


def test_what_was_not_said_suits_the_images() -> None:
    picture, line = fill(RunConfig(), PICTURE), fill(RunConfig(), LINE)
    assert (picture.autoencoder, picture.scorer, picture.latent) == ("conv", "aligned-knn", None)
    assert (line.autoencoder, line.scorer, line.latent) == ("multilayer", "mse+latent-knn", 15)
    assert fill(RunConfig(), RowLayout((1, 1, 1))).latent == 1
    assert fill(RunConfig(), RowLayout((1, 1, 500))).latent is None  # the network's own is narrow enough


def test_what_was_said_stays() -> None:
    said = RunConfig(autoencoder="vanilla", scorer="mae", latent=40, objective="ssim")
    for layout in (PICTURE, LINE):
        config = fill(said, layout)
        assert (config.autoencoder, config.scorer, config.latent) == ("vanilla", "mae", 40)
        assert config.objective == "ssim"
    assert fill(RunConfig(autoencoder="repair"), PICTURE).objective == "repair"  # its own


@pytest.mark.parametrize("layout", [PICTURE, LINE])
def test_the_threshold_is_set_by_rows_that_serve_for_nothing_else(layout: RowLayout) -> None:
    rows = np.random.RandomState(0).randn(100, np.prod(layout.shape))
    config = fill(RunConfig(epochs=1), layout)
    detector, scale = fit_rows(rows, layout, config)
    fit, validation, calibration = (
        getattr(detector.split, part).indices for part in ("fit", "validation", "calibration")
    )
    assert torch.cat([fit, validation, calibration]).sort().values.tolist() == list(range(100))
    seen = rows[torch.cat([fit, validation]).numpy()]
    assert np.array_equal(scale.low, seen.min(axis=0) if layout is LINE else [seen.min()])
    altered = rows.copy()
    altered[calibration.numpy()] *= 100
    other, _ = fit_rows(altered, layout, config)
    for name, weights in detector.network.state_dict().items():
        assert torch.equal(weights, other.network.state_dict()[name])
    learned = other.scorer.state()
    assert all(torch.equal(value, learned[name]) for name, value in detector.scorer.state().items())
    assert other.threshold > detector.threshold


def test_pictures_are_resized_for_networks_of_one_size_and_features_are_not() -> None:
    rows = np.random.RandomState(0).rand(20, 64)
    detector, scale = fit_rows(
        rows, PICTURE, fill(RunConfig(autoencoder="vanilla", epochs=1, target_fpr=0.2), PICTURE)
    )
    assert to_images(rows, PICTURE, scale, detector.preprocessing).shape == (20, 1, 28, 28)
    layout = RowLayout((1, 4, 16))
    detector, _ = fit_rows(rows, layout, fill(RunConfig(epochs=1, target_fpr=0.2), layout))
    assert detector.preprocessing.shape == (1, 4, 16)
