"""Scores by reconstruction error, and by likelihood. Below, x is the image, x̂ its reconstruction, both in [0, 1]."""

from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.errors import UsageError
from anomaly_ae.objectives.elbo import elbo, is_variational
from anomaly_ae.objectives.ssim import relative_error_map, ssim_map
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scorers.scorer import MapScorer, Scorer


class SquaredError(MapScorer):
    """`mse`: mean over channels and pixels of (x - x̂)²."""

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return (images - outputs.reconstruction).square().mean(dim=1)


class AbsoluteError(MapScorer):
    """`mae`: mean over channels and pixels of |x - x̂|."""

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return (images - outputs.reconstruction).abs().mean(dim=1)


class Dissimilarity(MapScorer):
    """`ssim`: 1 - mean over channels and pixels of SSIM(x, x̂); its window shrinks to fit small images."""

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return 1 - ssim_map(images, outputs.reconstruction).mean(dim=1)


class RelativeError(MapScorer):
    """`relative`: mean of the blurred squared error, relative to the image's energy, see `relative_error_map`."""

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return relative_error_map(images, outputs.reconstruction)


class NegativeELBO(Scorer):
    """`elbo`: -ELBO in nats, the latent at its mean, so that the same image always scores the same."""

    def check(self, outputs: Outputs) -> None:
        if not is_variational(outputs):
            raise UsageError(
                f"scorer elbo needs a variational autoencoder; take {setting('autoencoder', 'vae')} with it"
            )

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        return -elbo(images.clamp(0, 1), outputs)  # pixels beyond have no likelihood
