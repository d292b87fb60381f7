"""The default: strided convolutions down to a small map, a bottleneck, and the way back; its variational form, and
one with skips.
"""

import copy
import math

import torch
from torch import Tensor, nn

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Outputs, Shape
from anomaly_ae.autoencoders.blocks import SMALLEST_SIDE, activation, require_side, to_latent
from anomaly_ae.config.run_config import RunConfig

FIRST_CHANNELS, MOST_CHANNELS = 16, 128
MEAN, LOG_VARIANCE = "mean", "log_variance"  # heads of the variational one, float32 (N, D) each


class ConvAutoencoder(Autoencoder):
    """Convolutional autoencoder for images of any size from 8×8 and any number of channels.

    Each stage halves the size (4×4 convolution, stride 2, batch norm unless told otherwise, ReLU) until the smaller
    side is below 8 pixels: one stage for 8×8, two for 28×28, eight for 1024×1024, with 16, 32, 64, then 128 channels.
    A linear layer leads to the latent and another back; transposed convolutions restore each stage's exact
    size, odd ones included, and a sigmoid keeps the reconstruction in [0, 1].
    """

    usual_latent = 12

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        channels, height, width = shape
        require_side(shape, SMALLEST_SIDE)
        sizes = stage_sizes(height, width)
        widths = [channels, *(min(FIRST_CHANNELS << i, MOST_CHANNELS) for i in range(len(sizes) - 1))]
        maps, latent = (widths[-1], *sizes[-1]), config.latent or self.usual_latent
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


class VariationalAutoencoder(ConvAutoencoder):
    """The default network as a variational one: an image is given a Gaussian of latents, by mean and log variance.

    The encoder gives the mean, which is the latent; in training the decoder sees a draw from the Gaussian. The heads
    `mean` and `log_variance` are for the objective and the score `elbo`.
    Kingma and Welling 2013, https://arxiv.org/abs/1312.6114
    """

    objective = "elbo"
    draws = True

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        self.to_log_variance = copy.deepcopy(self.encoder[-1])  # of the same shape

    def forward(self, images: Tensor) -> Outputs:
        values, features = self.through(self.encoder[:-1], images)  # the maps, flattened
        mean, log_variance = self.encoder[-1](values), self.to_log_variance(values)  # (N, D) each
        drawn = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean) if self.training else mean
        return Outputs(self.decode(drawn), mean, features, {MEAN: mean, LOG_VARIANCE: log_variance})


class SkipAutoencoder(ConvAutoencoder):
    """`skip-conv`: the default network with skips: to the maps on the way back those of the encoder are added that
    have their size, so that it could hand images through, and is trained to restore what it sees changed.

    A latent decoded alone lacks what the skips carry. After the U-Net of Ronneberger et al. 2015,
    https://arxiv.org/abs/1505.04597
    """

    skips = True
    objective = "restore"
    usual_latent = 128

    def forward(self, images: Tensor) -> Outputs:
        latent, features = self.encode(images)
        from_latent, unflatten, *stages, squash = self.decoder
        values = unflatten(from_latent(latent))
        for stage, skipped in zip(stages, reversed(features), strict=True):
            values = stage(values + skipped)
        return Outputs(squash(values), latent, features)


def stage_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width before the first stage and after each, e.g. (28, 28), (14, 14), (7, 7)."""
    sizes = [(height, width)]
    while min(sizes[-1]) >= SMALLEST_SIDE:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def _down(channels_in: int, channels_out: int, config: RunConfig) -> nn.Module:
    """Halve height and width, rounding down."""
    plain = config.batch_norm is False
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=plain)
    return nn.Sequential(convolution, *activation(channels_out, config))


def _up(channels_in: int, channels_out: int, size: tuple[int, int], config: RunConfig) -> nn.Module:
    """Double height and width to `size`: one more where that is odd."""
    odd = (size[0] % 2, size[1] % 2)
    convolution = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, output_padding=odd)
    return nn.Sequential(*activation(channels_in, config), convolution)
