"""The default: strided convolutions down to a small map, a linear bottleneck, and the way back."""

import torch
from torch import Tensor, nn

from anomaly_ae.autoencoders.base import Autoencoder
from anomaly_ae.errors import UsageError

SMALLEST = 8  # pixels a side
FIRST_CHANNELS, MOST_CHANNELS = 16, 128


class ConvAutoencoder(Autoencoder):
    """Convolutional autoencoder for images of any size from 8×8 and any number of channels.

    Each stage halves the size (4×4 convolution, stride 2, batch norm, ReLU) until the smaller side is below
    8 pixels: one stage for 8×8, two for 28×28, eight for 1024×1024, with 16, 32, 64, then 128 channels.
    A linear layer leads to the latent and another back; transposed convolutions restore each stage's exact
    size, odd ones included, and a sigmoid keeps the reconstruction in [0, 1].
    """

    def __init__(self, shape: tuple[int, int, int], latent: int) -> None:
        super().__init__(shape, latent)
        channels, height, width = shape
        if min(height, width) < SMALLEST or channels < 1:
            raise UsageError(f"autoencoder conv takes images from 8×8 pixels, and these are {height}×{width}")
        sizes = stage_sizes(height, width)
        widths = [channels, *(min(FIRST_CHANNELS << i, MOST_CHANNELS) for i in range(len(sizes) - 1))]
        bottleneck = (widths[-1], *sizes[-1])
        flat = bottleneck[0] * bottleneck[1] * bottleneck[2]
        self.down = nn.ModuleList(_down(i, o) for i, o in zip(widths, widths[1:], strict=False))
        self.to_latent = nn.Sequential(nn.Flatten(), nn.Linear(flat, latent))
        self.from_latent = nn.Sequential(nn.Linear(latent, flat), nn.Unflatten(1, bottleneck))
        steps = zip(widths[:0:-1], widths[-2::-1], sizes[-2::-1], strict=True)
        self.up = nn.Sequential(*(_up(i, o, size) for i, o, size in steps))

    def encode(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features = [images]  # (N, C, H, W)
        for stage in self.down:
            features.append(stage(features[-1]))  # (N, 16, H/2, W/2), (N, 32, H/4, W/4), …
        return self.to_latent(features[-1]), tuple(features[1:])  # (N, D)

    def decode(self, latent: Tensor) -> Tensor:
        return torch.sigmoid(self.up(self.from_latent(latent)))  # (N, C, H, W)


def stage_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width before the first stage and after each, e.g. (28, 28), (14, 14), (7, 7)."""
    sizes = [(height, width)]
    while min(sizes[-1]) >= SMALLEST:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def _down(channels_in: int, channels_out: int) -> nn.Module:
    """Halve height and width, rounding down."""
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


def _up(channels_in: int, channels_out: int, size: tuple[int, int]) -> nn.Module:
    """Double height and width to `size`: one more where that is odd."""
    odd = (size[0] % 2, size[1] % 2)
    convolution = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, output_padding=odd)
    return nn.Sequential(nn.BatchNorm2d(channels_in), nn.ReLU(), convolution)
