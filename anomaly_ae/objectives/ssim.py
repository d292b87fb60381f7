"""Gaussian windows, and what is made of them: a blurred error, and the structural similarity."""

import torch
from torch import Tensor
from torch.nn import functional

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # an 11×11 window
RELATIVE_SIGMA, ENERGY_FLOOR = 1 / 28, 5 / 784
C1, C2 = 0.01**2, 0.03**2  # for a data range of 1


def blur(maps: Tensor, sigma: float, radius: int) -> Tensor:
    """Gaussian blur of (N, C, H, W), `sigma` in pixels, cut off at `radius`; the border is reflected.

    The radius shrinks to what the smaller side allows, so that images from 2×2 up can be blurred.
    """
    radius = min(radius, (min(maps.shape[-2:]) - 1) // 2)
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    window = window / window.sum()  # (2·radius + 1,)
    channels = maps.shape[1]
    kernel = window.expand(channels, 1, -1)  # (C, 1, 2·radius + 1)
    padded = functional.pad(maps, (radius, radius, radius, radius), mode="reflect")
    rows = functional.conv2d(padded, kernel.unsqueeze(2), groups=channels)
    return functional.conv2d(rows, kernel.unsqueeze(3), groups=channels)  # (N, C, H, W)


def relative_error_map(images: Tensor, reconstruction: Tensor) -> Tensor:
    """(G * (x - x̂))² / (mean of x² + ε), mean over the channels, (N, H, W), of x and x̂ in [0, 1].

    G is a Gaussian of σ = 1/28 of the smaller side, so that strokes a little out of place count less than strokes
    that are missing. Dividing by the image's energy, with ε = 0.0064, keeps much ink from passing for much anomaly.
    """
    sigma = RELATIVE_SIGMA * min(images.shape[-2:])
    error = blur(images - reconstruction, sigma, round(4 * sigma)).square().mean(dim=1)
    energy = images.square().mean(dim=(1, 2, 3)) + ENERGY_FLOOR
    return error / energy[:, None, None]


def ssim_map(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity at each pixel, float (N, C, H, W), in [-1, 1], of two sets of images in [0, 1].

    Gaussian window of σ = 1.5 pixels, 11×11 where the image is large enough; K1 = 0.01, K2 = 0.03.
    Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861
    """
    stacked = torch.cat([images, others, images * images, others * others, images * others])
    blurred = blur(stacked, SSIM_SIGMA, SSIM_RADIUS).view(5, *images.shape)
    mean_x, mean_y, xx, yy, xy = blurred.unbind()
    variances = (xx - mean_x**2) + (yy - mean_y**2)
    covariance = xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance * (2 * covariance + C2) / (variances + C2)
