"""What a network is trained for, and the catalogue of names."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.feature_conv import PAINTED, RESTORED, SEEN, SMALL
from anomaly_ae.autoencoders.restoring import RESTORATIONS
from anomaly_ae.config.weighted_sum import parse_weighted_sum
from anomaly_ae.errors import UsageError
from anomaly_ae.objectives.aligned import aligned
from anomaly_ae.objectives.elbo import elbo
from anomaly_ae.objectives.perceptual import Features, perceptual
from anomaly_ae.objectives.planted_defects import localise, repair
from anomaly_ae.objectives.ssim import ssim_map
from anomaly_ae.runtime.spelling import setting

Objective = Callable[[Tensor, Outputs], Tensor]  # images (N, C, H, W) in [0, 1], outputs -> loss ()
PERCEPTUAL = "perceptual"


def mse(images: Tensor, outputs: Outputs) -> Tensor:
    """Mean squared reconstruction error over all pixels and channels."""
    return functional.mse_loss(outputs.reconstruction, images)


def bce(images: Tensor, outputs: Outputs) -> Tensor:
    """Mean binary cross-entropy, each pixel read as the probability of being white."""
    return functional.binary_cross_entropy(outputs.reconstruction, images)


def ssim(images: Tensor, outputs: Outputs) -> Tensor:
    """1 - mean SSIM."""
    return 1 - ssim_map(images, outputs.reconstruction).mean()


def negative_elbo(images: Tensor, outputs: Outputs) -> Tensor:
    """Mean negative ELBO for each pixel, in nats."""
    return -elbo(images, outputs).mean() / images[0].numel()


def features(images: Tensor, outputs: Outputs) -> Tensor:
    """Mean squared error of the features that a network gives back, and of the small picture beside them, and
    binary cross-entropy of where defects are.

    Raises `UsageError` when the network gives none back.
    """
    heads = outputs.heads
    if RESTORED not in heads:
        raise UsageError(
            "objective features needs a network that gives features back; take "
            f"{setting('autoencoder', 'feature-conv')}"
        )
    given_back = functional.mse_loss(heads[RESTORED], heads[SEEN])
    return given_back + functional.mse_loss(heads[PAINTED], heads[SMALL]) + localise(outputs)


def restore(images: Tensor, outputs: Outputs) -> Tensor:
    """Mean absolute error of what a network that sees images gray and turned gives back, over all turns it saw."""
    restorations = outputs.heads[RESTORATIONS]
    return functional.l1_loss(restorations, images.repeat(1, restorations.shape[1] // images.shape[1], 1, 1))


@dataclass(frozen=True)
class ObjectiveEntry:
    """A line of the catalogue; `perceptual` alone is made when it is known whose features to compare."""

    about: str
    objective: Objective | None


OBJECTIVES: dict[str, ObjectiveEntry] = {
    "mse": ObjectiveEntry("mean squared reconstruction error", mse),
    "bce": ObjectiveEntry("binary cross-entropy", bce),
    "ssim": ObjectiveEntry("1 - structural similarity", ssim),
    "aligned": ObjectiveEntry("distance of the edges, locally aligned, for scorer aligned-prototypes", aligned),
    "elbo": ObjectiveEntry("negative evidence lower bound, for autoencoder vae", negative_elbo),
    "repair": ObjectiveEntry("planted defects found and repaired, for autoencoder repair", repair),
    "restore": ObjectiveEntry("absolute error of images given back from gray and turned copies", restore),
    "features": ObjectiveEntry(
        "features given back, and planted defects found, for autoencoder feature-conv", features
    ),
    PERCEPTUAL: ObjectiveEntry("squared distance of features of the network named by setting perceptual", None),
}


def build_objective(name: str, features: Features | None = None) -> Objective:
    """The objective called `name`; several are joined by +, each with a weight if wanted: `mse+0.5*ssim`.

    features: what `perceptual` compares
    Raises `UnknownName`, and `UsageError` for a weight that is no positive number, or no features.
    """
    parts = list[tuple[float, Objective]]()
    for weight, part in parse_objective(name):
        objective = OBJECTIVES[part].objective
        if objective is None:
            if features is None:
                raise UsageError(
                    "objective perceptual needs to know whose features to compare; name a finished run, a detector's "
                    "folder, or a torchvision network with its weights file: "
                    f"{setting('perceptual', 'vgg16:vgg16.pth')}"
                )
            objective = partial(perceptual, features)
        parts.append((weight, objective))

    def total(images: Tensor, outputs: Outputs) -> Tensor:
        return torch.stack([weight * objective(images, outputs) for weight, objective in parts]).sum()

    return parts[0][1] if len(parts) == 1 and parts[0][0] == 1 else total


def parse_objective(name: str) -> list[tuple[float, str]]:
    """Weights and names in a sum of objectives. Raises `UnknownName`, and `UsageError` for what is no weight."""
    return parse_weighted_sum("objective", name, OBJECTIVES, "mse+0.5*ssim")
