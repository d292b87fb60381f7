"""The default: strided convolutions down to a small map, a linear bottleneck, and the way back."""

import math

from torch import nn

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Shape
from anomaly_ae.autoencoders.blocks import require_side, to_latent
from anomaly_ae.config.run_config import RunConfig

SMALLEST = 8  # pixels a side
FIRST_CHANNELS, MOST_CHANNELS = 16, 128
LATENT = 12


class ConvAutoencoder(Autoencoder):
    """Convolutional autoencoder for images of any size from 8×8 and any number of channels.

    Each stage halves the size (4×4 convolution, stride 2, batch norm unless told otherwise, ReLU) until the smaller
    side is below 8 pixels: one stage for 8×8, two for 28×28, eight for 1024×1024, with 16, 32, 64, then 128 channels.
    A linear layer leads to the latent and another back; transposed convolutions restore each stage's exact
    size, odd ones included, and a sigmoid keeps the reconstruction in [0, 1].
    """

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        channels, height, width = shape
        require_side(shape, SMALLEST)
        sizes = stage_sizes(height, width)
        widths = [channels, *(min(FIRST_CHANNELS << i, MOST_CHANNELS) for i in range(len(sizes) - 1))]
        maps, latent = (widths[-1], *sizes[-1]), config.latent or LATENT
        self.latent_shape = (latent,)
        self.encoder = nn.Sequential(
            *(_down(i, o, config) for i, o in zip(widths, widths[1:], strict=False)),  # 16 × H/2 × W/2, 32 × H/4 …
            *to_latent(maps, latent),
        )
        steps = zip(widths[:0:-1], widths[-2::-1], sizes[-2::-1], strict=True)
        self.decoder = nn.Sequential(
            nn.Linear(latent, math.prod(maps)),
            nn.Unflatten(1, maps),
            *(_up(i, o, size, config) for i, o, size in steps),
            nn.Sigmoid(),
        )


def stage_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width before the first stage and after each, e.g. (28, 28), (14, 14), (7, 7)."""
    sizes = [(height, width)]
    while min(sizes[-1]) >= SMALLEST:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def _down(channels_in: int, channels_out: int, config: RunConfig) -> nn.Module:
    """Halve height and width, rounding down."""
    plain = config.batch_norm is False
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=plain)
    return nn.Sequential(convolution, *_activation(channels_out, config))


def _up(channels_in: int, channels_out: int, size: tuple[int, int], config: RunConfig) -> nn.Module:
    """Double height and width to `size`: one more where that is odd."""
    odd = (size[0] % 2, size[1] % 2)
    convolution = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, output_padding=odd)
    return nn.Sequential(*_activation(channels_in, config), convolution)


def _activation(channels: int, config: RunConfig) -> list[nn.Module]:
    """Batch norm, unless told otherwise, ReLU, and dropout where asked for."""
    norm = [] if config.batch_norm is False else [nn.BatchNorm2d(channels)]
    return [*norm, nn.ReLU(), *([nn.Dropout(config.dropout)] if config.dropout else [])]
