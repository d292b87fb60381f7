"""Objectives of networks that say where planted defects are, and repair them."""

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.repair import DEFECT, PLANTED
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting

RARE = 3.0  # how much more a defective pixel counts, for there are few
REPAIRED = 10.0  # weight of the mean squared error of what was repaired


def repair(images: Tensor, outputs: Outputs) -> Tensor:
    """Binary cross-entropy of the head that says where defects are, and the squared error of the repaired images,
    float (N, C, H, W), against them as they were without.

    Raises `UsageError` when the network has no such head.
    """
    if DEFECT not in outputs.heads:
        raise UsageError(
            f"objective repair needs a network that says where defects are; take {setting('autoencoder', 'repair')}"
        )
    return localise(outputs) + REPAIRED * functional.mse_loss(outputs.reconstruction, images)


def localise(outputs: Outputs) -> Tensor:
    """Binary cross-entropy of the head that says where defects are, where they were planted."""
    logits = outputs.heads[DEFECT]
    planted = outputs.heads.get(PLANTED, torch.zeros_like(logits))
    weight = torch.full_like(logits[:1, :, :1, :1], RARE)
    return functional.binary_cross_entropy_with_logits(logits, planted, pos_weight=weight)
