"""A score by how well images are given back from copies without their colours and their orientation."""

import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.restoring import RESTORATIONS, RESTORE
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scorers.scorer import ImageBatches, MapScorer
from anomaly_ae.storage.schema import TensorSpec

LEAST_USUAL = 1e-12  # keeps an error of nothing from being divided by


class RestorationError(MapScorer):
    """`restoration`: mean over channels, pixels and copies of |x - x̂|, x̂ being what is made of a gray and turned
    copy; each copy's by what is usual for it, its mean over the validation normals.

    Ye et al. 2019, https://arxiv.org/abs/1911.10676
    """

    reads_reconstruction = False

    def check(self, outputs: Outputs) -> None:
        if RESTORATIONS not in outputs.heads:
            raise UsageError(
                "scorer restoration needs a network that restores gray and turned images; take "
                f"{setting('objective', RESTORE)} with it"
            )

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        errors = torch.cat([_errors(*each).mean(dim=(2, 3)) for each in validation_set])  # (N, T)
        self.learned["usual"] = errors.mean(dim=0).clamp_min(LEAST_USUAL)

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        return {"usual": TensorSpec((_copies(images, outputs),), positive=True)}

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return (_errors(images, outputs) / self.learned["usual"][:, None, None]).mean(dim=1)


def _copies(images: Tensor, outputs: Outputs) -> int:
    """Of how many copies of each image something was made."""
    return outputs.heads[RESTORATIONS].shape[1] // images.shape[1]


def _errors(images: Tensor, outputs: Outputs) -> Tensor:
    """The mean over the channels of |x - x̂| for each copy, (N, T, H, W)."""
    restorations = outputs.heads[RESTORATIONS].chunk(_copies(images, outputs), dim=1)
    return torch.stack([(images - each).abs().mean(dim=1) for each in restorations], dim=1)
