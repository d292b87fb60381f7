"""Scores by reconstruction error. Below, x is the image, x̂ its reconstruction, both in [0, 1]."""

from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.objectives.similarity import blur, ssim_map
from anomaly_ae.scorers.base import MapScorer


class SquaredError(MapScorer):
    """`mse`: mean over channels and pixels of (x - x̂)²."""

    def heat_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return (images - outputs.reconstruction).square().mean(dim=1)


class AbsoluteError(MapScorer):
    """`mae`: mean over channels and pixels of |x - x̂|."""

    def heat_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return (images - outputs.reconstruction).abs().mean(dim=1)


class Dissimilarity(MapScorer):
    """`ssim`: 1 - mean over channels and pixels of SSIM(x, x̂); its window shrinks to fit small images."""

    def heat_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return 1 - ssim_map(images, outputs.reconstruction).mean(dim=1)


class RelativeError(MapScorer):
    """`relative`: mean of (G * (x - x̂))² / (mean of x² + ε), with ε = 0.0064.

    G is a Gaussian of σ = 1/28 of the smaller side, so that strokes a little out of place count less than
    strokes that are missing. Dividing by the image's energy keeps much ink from passing for much anomaly.
    """

    SIGMA = 1 / 28  # of the smaller side
    FLOOR = 5 / 784

    def heat_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        sigma = self.SIGMA * min(images.shape[-2:])
        error = blur(images - outputs.reconstruction, sigma, round(4 * sigma)).square().mean(dim=1)
        energy = images.square().mean(dim=(1, 2, 3)) + self.FLOOR
        return error / energy[:, None, None]
