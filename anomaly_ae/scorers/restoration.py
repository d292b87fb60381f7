"""A score by how well images are given back from copies without their colours and their orientation."""

import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.restoring import RESTORATIONS, RESTORE
from anomaly_ae.errors import UsageError
from anomaly_ae.objectives.ssim import relative_error_map
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scorers.scorer import ImageBatches, MapScorer
from anomaly_ae.storage.schema import TensorSpec

LEAST_USUAL = 1e-12  # keeps an error of nothing from being divided by


class RestorationError(MapScorer):
    """`restoration`: mean over pixels and copies of the error, blurred, squared and relative to the image's energy as
    `relative` has it, of what is made of a gray and turned copy; each copy's by what is usual for it, its mean over
    the validation normals.

    Ye et al. 2019, https://arxiv.org/abs/1911.10676, who take absolute errors, which grow with the image's ink.
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
        self.learned["usual_error"] = errors.mean(dim=0).clamp_min(LEAST_USUAL)

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        return {"usual_error": TensorSpec((_copies(images, outputs),), positive=True)}

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return (_errors(images, outputs) / self.learned["usual_error"][:, None, None]).mean(dim=1)


def _copies(images: Tensor, outputs: Outputs) -> int:
    """Of how many copies of each image something was made."""
    return outputs.heads[RESTORATIONS].shape[1] // images.shape[1]


def _errors(images: Tensor, outputs: Outputs) -> Tensor:
    """The blurred squared errors of each copy, relative to the image's energy, (N, T, H, W)."""
    restorations = outputs.heads[RESTORATIONS].chunk(_copies(images, outputs), dim=1)
    return torch.stack([relative_error_map(images, each) for each in restorations], dim=1)
