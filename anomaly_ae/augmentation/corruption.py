"""What an autoencoder has to see through: the network gets the spoiled image, the loss the true one.

Denoising: Vincent et al. 2010, https://www.jmlr.org/papers/v11/vincent10a.html
Colours and orientation taken away: Ye et al. 2019, https://arxiv.org/abs/1911.10676
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly_ae.augmentation.synthetic_defects import plant

PATCHES = 7  # that fit along the smaller side


class Corrupted(NamedTuple):
    """Spoiled images, float (N, C, H, W), and where defects were planted, 0 or 1, float (N, 1, H, W), if any were."""

    images: Tensor
    planted: Tensor | None

    def split(self, count: int) -> "list[Corrupted]":
        """In so many parts."""
        planted = [None] * count if self.planted is None else self.planted.tensor_split(count)
        return [Corrupted(*part) for part in zip(self.images.tensor_split(count), planted, strict=True)]


@dataclass(frozen=True)
class Corruption:
    """Which spoils images: planted defects first, then noise, then hidden patches. Nothing is drawn for zeros.

    defects: share of the images that get some
    noise:   σ of Gaussian noise
    masked:  share of the image hidden: square patches, a seventh of the smaller side, set to 0, each by chance
    """

    defects: float = 0.0
    noise: float = 0.0
    masked: float = 0.0

    def __call__(self, images: Tensor) -> Corrupted:
        """Spoil images, float (N, C, H, W) in [0, 1]."""
        planted = None
        if self.defects:
            images, planted = plant(images, self.defects)
        if self.noise:
            images = (images + self.noise * torch.randn_like(images)).clamp(0, 1)
        if self.masked:
            height, width = images.shape[-2:]
            side = max(1, min(height, width) // PATCHES)
            cells = len(images), 1, math.ceil(height / side), math.ceil(width / side)
            kept = (torch.rand(cells, device=images.device) >= self.masked).to(images.dtype)
            images = images * functional.interpolate(kept, scale_factor=side, mode="nearest")[..., :height, :width]
        return Corrupted(images, planted)


class Gray(nn.Module):
    """Images (N, C, H, W) without their colours: each channel is the mean of all."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=1, keepdim=True).expand_as(images)


def turned_copies(images: Tensor) -> Tensor:
    """Images (N, C, H, W) upright and turned by a quarter, a half and three quarters, (4, N, C, H, W); those that are
    no squares upright and turned by a half, (2, N, C, H, W).
    """
    turns = range(4) if images.shape[-2] == images.shape[-1] else (0, 2)
    return torch.stack([images.rot90(turn, dims=(-2, -1)) for turn in turns])
