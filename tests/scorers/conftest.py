import torch

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers import ImageBatches


def batches(*parts: tuple[torch.Tensor, Outputs]) -> ImageBatches:
    """Images with outputs as a scorer goes through them."""
    return ImageBatches(sum(len(images) for images, _ in parts), lambda: parts)
