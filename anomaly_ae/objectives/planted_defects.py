"""The objective of a network that repairs planted defects and says where they are."""

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.repair import DEFECT
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting

PLANTED = "planted"  # the head that a training adds: where defects were planted, 0 or 1, (N, 1, H, W)
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
    logits = outputs.heads[DEFECT]
    planted = outputs.heads.get(PLANTED, torch.zeros_like(logits))
    weight = torch.full_like(logits[:1, :, :1, :1], RARE)
    localisation = functional.binary_cross_entropy_with_logits(logits, planted, pos_weight=weight)
    return localisation + REPAIRED * functional.mse_loss(outputs.reconstruction, images)
