"""Scores for surfaces and objects, where a defect is a small part of the picture."""

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.feature_conv import RESTORED, SEEN
from anomaly_ae.autoencoders.repair import DEFECT
from anomaly_ae.errors import UsageError
from anomaly_ae.objectives.ssim import blur
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scorers.neighbors import shrink
from anomaly_ae.scorers.scorer import ImageBatches, MapScorer, PlaceScorer
from anomaly_ae.storage.schema import TensorSpec

TOP = 0.001  # share of the pixels, the highest, whose mean is the score
LARGEST_BLURRED = 256  # pixels of the smaller side
LEAST_ERROR = 1e-6  # of a feature, on the average
SMOOTH = 1 / 128  # σ of the Gaussian that takes single pixels back, of the smaller side


class DefectProbability(PlaceScorer):
    """`defect`: -log of the segmentation head's probability that a place, or pixel, is sound; mean of the highest
    0.1 %.
    """

    reads_reconstruction = False
    top_fraction = TOP

    def check(self, outputs: Outputs) -> None:
        if DEFECT not in outputs.heads:
            raise UsageError(
                "scorer defect needs a network that says where defects are; take "
                f"{setting('autoencoder', 'repair')} or feature-conv"
            )

    def places(self, outputs: Outputs) -> Tensor:
        return functional.softplus(outputs.heads[DEFECT]).squeeze(1)


class FeatureError(PlaceScorer):
    """`feature-error`: squared error of the features that a network gives back, each channel's divided by
    what it is on the average for the fit images; mean of the highest 0.3 %.
    """

    reads_reconstruction = False
    top_fraction = 0.003

    def check(self, outputs: Outputs) -> None:
        if RESTORED not in outputs.heads:
            raise UsageError(
                "scorer feature-error needs a network that gives features back; take "
                f"{setting('autoencoder', 'feature-conv')}"
            )

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        sums = [_squared_errors(outputs).mean(dim=(2, 3)).sum(dim=0) for _, outputs in fit_set]
        self.learned["usual"] = (torch.stack(sums).sum(dim=0) / fit_set.count).clamp_min(LEAST_ERROR)

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        return {"usual": TensorSpec((outputs.heads[SEEN].shape[1],), positive=True)}

    def places(self, outputs: Outputs) -> Tensor:
        errors, usual = _squared_errors(outputs), self.learned["usual"]
        weights = 1 / (len(usual) * usual)
        return (weights @ errors.flatten(2)).view(-1, *errors.shape[2:])  # the mean, in one pass over the errors


class ContrastError(MapScorer):
    """`contrast`: blurred squared difference of x and x̂, both with mean 0 and contrast 1 about each pixel."""

    top_fraction = 0.01

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        difference = normalise_locally(images) - normalise_locally(outputs.reconstruction)
        return smooth(difference.square().mean(dim=1, keepdim=True)).squeeze(1)


class GradientError(MapScorer):
    """`gradient`: blurred squared difference of the gradients of x and x̂."""

    top_fraction = 0.01

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        difference = images - outputs.reconstruction
        padded = functional.pad(difference, (1, 1, 1, 1), mode="replicate")
        across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
        down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
        return smooth((across.square() + down.square()).mean(dim=1, keepdim=True)).squeeze(1)


def _squared_errors(outputs: Outputs) -> Tensor:
    """Of the features that were given back, (N, D, h, w)."""
    return (outputs.heads[RESTORED] - outputs.heads[SEEN]).square_()


def smooth(maps: Tensor) -> Tensor:
    """Maps (N, 1, H, W), blurred by a Gaussian of σ = 1/128 of the smaller side, half a pixel at the least."""
    sigma = max(0.5, SMOOTH * min(maps.shape[-2:]))
    return blur(maps, sigma, round(4 * sigma))


def normalise_locally(images: Tensor) -> Tensor:
    """Images (N, C, H, W) less their blurred selves, divided by their blurred deviation from these."""
    centred = images - _blur_widely(images)
    return centred / (_blur_widely(centred.square()).sqrt() + 0.02)


def _blur_widely(images: Tensor) -> Tensor:
    """Images (N, C, H, W) blurred by a Gaussian of σ = 1/16 of the smaller side; large ones made smaller for it, as
    little is lost and the time grows with σ.
    """
    small = shrink(images, LARGEST_BLURRED)
    sigma = min(small.shape[-2:]) / 16
    blurred = blur(small, sigma, round(3 * sigma))
    same = small.shape == images.shape
    return blurred if same else functional.interpolate(blurred, images.shape[-2:], mode="bilinear")
