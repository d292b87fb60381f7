"""What a network is trained for, and the catalogue of names."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.errors import UnknownName
from anomaly_ae.objectives.similarity import ssim_map

Objective = Callable[[Tensor, Outputs], Tensor]  # images (N, C, H, W) in [0, 1], outputs -> loss ()


def mse(images: Tensor, outputs: Outputs) -> Tensor:
    """Mean squared reconstruction error over all pixels and channels."""
    return functional.mse_loss(outputs.reconstruction, images)


def bce(images: Tensor, outputs: Outputs) -> Tensor:
    """Mean binary cross-entropy, each pixel read as the probability of being white."""
    return functional.binary_cross_entropy(outputs.reconstruction, images)


def ssim(images: Tensor, outputs: Outputs) -> Tensor:
    """1 - mean SSIM."""
    return 1 - ssim_map(images, outputs.reconstruction).mean()


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue."""

    about: str
    objective: Objective


OBJECTIVES: dict[str, Entry] = {
    "mse": Entry("mean squared reconstruction error", mse),
    "bce": Entry("binary cross-entropy", bce),
    "ssim": Entry("1 - structural similarity", ssim),
}


def find_objective(name: str) -> Objective:
    """The objective called `name`. Raises `UnknownName`."""
    if name not in OBJECTIVES:
        raise UnknownName("objective", name, OBJECTIVES)
    return OBJECTIVES[name].objective
