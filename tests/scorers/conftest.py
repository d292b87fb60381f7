import pytest
import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers import ImageBatches


@pytest.fixture(autouse=True)
def _the_same_draws_whatever_ran_before() -> None:
    torch.manual_seed(0)


def batches(*parts: tuple[Tensor, Outputs]) -> ImageBatches:
    """Images with outputs as a scorer goes through them, with a decoder."""
    count = sum(len(images) for images, _ in parts)
    return ImageBatches(count, lambda: parts, lambda latents: decoded(latents, *parts))


def decoded(latents: Tensor, *parts: tuple[Tensor, Outputs]) -> Tensor:
    """Of each latent (M, D) the reconstruction of the image with the nearest one."""
    known = torch.cat([outputs.latent for _, outputs in parts])
    return torch.cat([outputs.reconstruction for _, outputs in parts])[torch.cdist(latents, known).argmin(dim=1)]
