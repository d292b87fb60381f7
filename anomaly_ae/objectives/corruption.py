"""What a denoising autoencoder has to see through: the network gets the spoiled image, the loss the true one.

Vincent et al. 2010, https://www.jmlr.org/papers/v11/vincent10a.html
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

PATCHES = 7  # that fit along the smaller side


def corrupt(images: Tensor, noise: float, masked: float) -> Tensor:
    """Images, float (N, C, H, W) in [0, 1], with Gaussian noise of σ = `noise` and a share `masked` hidden.

    Hidden are square patches, a seventh of the smaller side, set to 0, each by chance. Nothing is drawn for zeros.
    """
    if noise:
        images = (images + noise * torch.randn_like(images)).clamp(0, 1)
    return images * _kept(images, masked) if masked else images


def _kept(images: Tensor, masked: float) -> Tensor:
    """1 where a pixel stays and 0 where it is hidden, (N, 1, H, W)."""
    height, width = images.shape[-2:]
    side = max(1, min(height, width) // PATCHES)
    cells = torch.rand(len(images), 1, math.ceil(height / side), math.ceil(width / side), device=images.device)
    kept = (cells >= masked).to(images.dtype)
    return functional.interpolate(kept, scale_factor=side, mode="nearest")[..., :height, :width]
