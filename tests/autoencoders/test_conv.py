import pytest
import torch

from anomaly_ae.autoencoders import build_autoencoder, parameter_count
from anomaly_ae.autoencoders.conv import stage_sizes
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UnknownName, UsageError

SHAPES = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (1, 9, 31), (2, 17, 64), (4, 50, 8), (1, 129, 75)]


@pytest.mark.parametrize("name", ["conv", "skip-conv", "vae"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_comes_back_in_range(name: str, shape: tuple[int, int, int]) -> None:
    network = build_autoencoder(name, shape, RunConfig(latent=5))
    outputs = network(torch.rand(3, *shape))
    assert outputs.reconstruction.shape == (3, *shape)
    assert outputs.latent.shape == (3, 5)
    assert bool(((outputs.reconstruction >= 0) & (outputs.reconstruction <= 1)).all())


def test_features_go_from_large_to_small() -> None:
    outputs = build_autoencoder("conv", (1, 28, 28), RunConfig(latent=5))(torch.rand(2, 1, 28, 28))
    assert [tuple(maps.shape[1:]) for maps in outputs.features] == [(16, 14, 14), (32, 7, 7)]


def test_depth_follows_the_size() -> None:
    assert stage_sizes(28, 28) == [(28, 28), (14, 14), (7, 7)]
    assert len(stage_sizes(8, 8)) - 1 == 1
    assert len(stage_sizes(1024, 1024)) - 1 == 8


def test_the_parameters_of_the_default_network_are_counted_by_hand() -> None:
    # 28×28 gray, latent 12: convolutions, batch norms, two linear layers, and the way back
    down = (16 * 1 * 16 + 2 * 16) + (32 * 16 * 16 + 2 * 32)
    linear = (32 * 49 * 12 + 12) + (12 * 32 * 49 + 32 * 49)
    up = (2 * 32 + 32 * 16 * 16 + 16) + (2 * 16 + 16 * 1 * 16 + 1)
    assert parameter_count(build_autoencoder("conv", (1, 28, 28))) == down + linear + up


def test_too_small_images_and_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="7×20"):
        build_autoencoder("conv", (1, 7, 20))
    with pytest.raises(UnknownName, match="did you mean 'conv'"):
        build_autoencoder("cnov", (1, 8, 8))
