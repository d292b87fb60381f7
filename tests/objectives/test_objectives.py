import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.errors import UnknownName, UsageError
from anomaly_ae.objectives import build_objective
from anomaly_ae.objectives.elbo import elbo
from anomaly_ae.objectives.ssim import blur, ssim_map
from anomaly_ae.scorers import build_scorer

IMAGES = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]])
REBUILT = Outputs(torch.tensor([[[[0.5, 1.0], [0.25, 0.25]]]]), torch.zeros(1, 1))


def test_mse_and_bce_by_hand() -> None:
    assert build_objective("mse")(IMAGES, REBUILT).item() == pytest.approx((0.25 + 0 + 0.0625 + 0) / 4)
    entropies = [
        -np.log(0.5),
        0,
        -0.5 * np.log(0.25) - 0.5 * np.log(0.75),
        -0.25 * np.log(0.25) - 0.75 * np.log(0.75),
    ]
    assert build_objective("bce")(IMAGES, REBUILT).item() == pytest.approx(np.mean(entropies))


@pytest.mark.parametrize("size", [(28, 28), (40, 23), (11, 11)])
def test_ssim_agrees_with_scikit_image(size: tuple[int, int], generator: torch.Generator) -> None:
    x = torch.rand(2, 1, *size, generator=generator)
    y = (x + 0.2 * torch.rand(2, 1, *size, generator=generator)).clamp(0, 1)
    ours = ssim_map(x, y)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    for image in range(2):
        _, theirs = structural_similarity(x[image, 0].numpy(), y[image, 0].numpy(), full=True, **options)
        inner = np.s_[5 : size[0] - 5, 5 : size[1] - 5]  # the border is padded in another way
        np.testing.assert_allclose(ours[image, 0].numpy()[inner], theirs[inner], atol=2e-5)


def test_ssim_of_an_image_with_itself_is_1_and_its_window_fits_8x8(generator: torch.Generator) -> None:
    x = torch.rand(3, 2, 8, 8, generator=generator)
    torch.testing.assert_close(ssim_map(x, x), torch.ones_like(x))
    assert build_objective("ssim")(x, Outputs(x, torch.zeros(3, 1))).item() == pytest.approx(0, abs=1e-6)


def test_blur_keeps_a_constant_and_spreads_a_point() -> None:
    torch.testing.assert_close(blur(torch.full((1, 2, 9, 9), 0.3), 1.0, 4), torch.full((1, 2, 9, 9), 0.3))
    point = torch.zeros(1, 1, 19, 19)
    point[0, 0, 9, 9] = 1
    window = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    window /= window.sum()
    np.testing.assert_allclose(blur(point, 1.0, 4)[0, 0, 5:14, 5:14].numpy(), np.outer(window, window), atol=1e-7)


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(UnknownName, match="known: mse"):
        build_objective("hinge")


def test_a_sum_of_objectives_has_their_weights() -> None:
    each = {name: build_objective(name)(IMAGES, REBUILT).item() for name in ("mse", "bce")}
    both = build_objective("mse + 0.25*bce")(IMAGES, REBUILT).item()
    assert both == pytest.approx(each["mse"] + 0.25 * each["bce"])
    assert build_objective("2*mse")(IMAGES, REBUILT).item() == pytest.approx(2 * each["mse"])


@pytest.mark.parametrize("name", ["mse+", "0*mse", "-1*mse", "x*mse", "nan*mse", "inf*mse"])
def test_a_part_without_name_or_a_weight_that_is_none(name: str) -> None:
    with pytest.raises(UsageError):
        build_objective(name)


def test_elbo_agrees_with_torch_distributions(generator: torch.Generator) -> None:
    images, rebuilt = torch.rand(2, 5, 1, 4, 4, generator=generator).clamp(0.01, 0.99)
    mean, log_variance = torch.randn(2, 5, 3, generator=generator)
    outputs = Outputs(rebuilt, mean, (), {"mean": mean, "log_variance": log_variance})
    likelihood = images * rebuilt.log() + (1 - images) * (1 - rebuilt).log()
    prior = torch.distributions.Normal(torch.zeros(5, 3), torch.ones(5, 3))
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = likelihood.sum(dim=(1, 2, 3)) - torch.distributions.kl_divergence(posterior, prior).sum(dim=1)
    torch.testing.assert_close(elbo(images, outputs), expected, rtol=1e-5, atol=1e-5)
    assert build_objective("elbo")(images, outputs).item() == pytest.approx(-expected.mean().item() / 16, rel=1e-5)
    torch.testing.assert_close(build_scorer("elbo").score(images, outputs), -expected, rtol=1e-5, atol=1e-5)


def test_elbo_wants_a_variational_network() -> None:
    with pytest.raises(UsageError, match='take autoencoder="vae"'):
        build_objective("elbo")(IMAGES, REBUILT)
    with pytest.raises(UsageError, match='take autoencoder="vae"'):
        build_scorer("elbo").check(REBUILT)
