"""Making images from latents: drawn ones, and ones between two others."""

import torch
from torch import Tensor


def draw_latents(latents: Tensor, count: int, seed: int = 0) -> Tensor:
    """Draws (count, D) from the Gaussian with mean and covariance of the latents (N, D).

    Normal weights on the centred latents have that covariance exactly, so that no D×D matrix is needed.
    """
    mean = latents.mean(dim=0)
    weights = torch.randn(count, len(latents), generator=torch.Generator().manual_seed(seed))
    spread = torch.tensor(max(1.0, len(latents) - 1.0)).sqrt()
    return mean + weights @ (latents - mean) / spread


def interpolate_latents(first: Tensor, last: Tensor, count: int) -> Tensor:
    """`count` latents (count, D) in equal steps from `first` (D,) to `last` (D,), both included."""
    share = torch.linspace(0, 1, count)[:, None]
    return (1 - share) * first + share * last
