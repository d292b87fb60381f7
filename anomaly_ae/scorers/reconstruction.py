"""Scores by reconstruction error. Below, x is the image, x̂ its reconstruction, both in [0, 1]."""

from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.objectives.ssim import relative_error_map, ssim_map
from anomaly_ae.scorers.scorer import MapScorer


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
