"""An autoencoder that repairs defects and says where they were."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Outputs, Shape
from anomaly_ae.autoencoders.blocks import SMALLEST_SIDE, Size, activation, require_side, up
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting

DEFECT = "defect"  # the head: the logit of each pixel's being part of a defect, float32 (N, 1, H, W)
PLANTED = "planted"  # the head that a training adds: where defects were planted, 0 or 1, (N, 1, H, W)
STAGE_WIDTHS = (16, 32, 64, 96, 128)  # channels at the full size, at half of it, a quarter …
RISING = (8, 16, 32, 64, 96)  # and on the way back
LATENT_MAPS = 16
DIFFERENCE = 4.0  # times the difference between image and reconstruction, which is small beside what lies next to it
CONTRAST_FLOOR = 0.05  # keeps images that are all of one brightness from being divided by nothing


class RepairAutoencoder(Autoencoder):
    """`repair`: convolutions down to a small map of 16 channels, the latent, and a way back that repairs, since it is
    trained on images in which defects were planted; and a second way back, which sees every stage of the encoder and
    the difference between image and reconstruction, and tells for each pixel whether it is defective.

    Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, for the second way; that a network learns from planted
    defects what no defect is like, DRAEM, https://arxiv.org/abs/2108.07610. Up to four times the size is halved, as
    long as the smaller side stays at 4 pixels or more.
    """

    objective = "repair"
    learning_rate = 4e-3
    defects = 0.7

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        channels, height, width = shape
        require_side(shape, SMALLEST_SIDE)
        sizes = _halvings(height, width)
        widths, rising = STAGE_WIDTHS[: len(sizes)], RISING[: len(sizes)]
        maps = _latent_maps(config.latent, sizes[-1])
        self.latent_shape = (maps, *sizes[-1])
        self.encoder = nn.Sequential(
            Contrast(),
            _stage(2 * channels, widths[0], config),  # 16 × H × W
            # 32 × H/2 × W/2, 64 × H/4 …
            *(nn.Sequential(*_stage(i, o, config, 2), *_stage(o, o, config)) for i, o in itertools.pairwise(widths)),
            nn.Conv2d(widths[-1], maps, 1),
            nn.Flatten(),
        )
        steps = zip(rising[:0:-1], rising[-2::-1], sizes[-2::-1], strict=True)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, self.latent_shape),
            _stage(maps, rising[-1], config),
            *(nn.Sequential(up(size), *_stage(i, o, config)) for i, o, size in steps),
            nn.Conv2d(rising[0], channels, 3, padding=1),
            nn.Sigmoid(),
        )
        self.segmentation = Segmentation(channels, widths, config)

    def forward(self, images: Tensor) -> Outputs:
        latent, features = self.encode(images)
        repaired = self.decode(latent)
        logits = self.segmentation(images - repaired.detach(), features)
        return Outputs(repaired, latent, features, {DEFECT: logits})


class Contrast(nn.Module):
    """Images (N, C, H, W) in [0, 1] as they are, about zero, and with mean 0 and contrast 1 each, (N, 2C, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        mean, spread = images.mean(dim=(2, 3), keepdim=True), images.std(dim=(2, 3), keepdim=True, correction=0)
        return torch.cat([2 * images - 1, (images - mean) / (spread + CONTRAST_FLOOR)], dim=1)


class Segmentation(nn.Module):
    """Which pixels are defective, by the features of the encoder and the difference to the repaired image.

    It works at half the size of the images, which is where the time goes, and its logits are enlarged.
    """

    def __init__(self, channels: int, widths: Sequence[int], config: RunConfig) -> None:
        super().__init__()
        pairs = [*itertools.pairwise(widths[1:])]
        self.stages = nn.ModuleList(_stage(i + o, o, config) for o, i in reversed(pairs))
        self.last = nn.Sequential(_stage(widths[1] + channels, widths[1], config), nn.Conv2d(widths[1], 1, 1))

    def forward(self, difference: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Logits (N, 1, H, W) of differences (N, C, H, W) and features from the full size down."""
        values = features[-1]
        for stage, larger in zip(self.stages, reversed(features[1:-1]), strict=True):
            values = stage(torch.cat([_resize(values, larger.shape[-2:]), larger], dim=1))
        small = DIFFERENCE * _resize(difference, values.shape[-2:])
        return _resize(self.last(torch.cat([values, small], dim=1)), difference.shape[-2:])


def _latent_maps(latent: int | None, size: Size) -> int:
    """How many maps of a size have so many latent dimensions. Raises `UsageError` for a number that is not whole."""
    if latent and latent % math.prod(size):
        raise UsageError(
            f"the latent of autoencoder repair is made of maps, here of {size[0]}×{size[1]}, and "
            f"{setting('latent', latent)} was asked; leave it out, or name a multiple of {math.prod(size)}"
        )
    return latent // math.prod(size) if latent else LATENT_MAPS


def _halvings(height: int, width: int) -> list[Size]:
    """The sizes of the stages: halved, rounding up, until the smaller side is below 8 pixels, or four times."""
    sizes = [(height, width)]
    while len(sizes) < len(STAGE_WIDTHS) and min(sizes[-1]) >= SMALLEST_SIDE:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes


def _stage(channels_in: int, channels_out: int, config: RunConfig, stride: int = 1) -> nn.Sequential:
    """A 3×3 convolution, batch norm unless told otherwise, ReLU, and dropout where asked for."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=config.batch_norm is False)
    return nn.Sequential(convolution, *activation(channels_out, config))


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear; halved maps are means of neighbours."""
    return functional.interpolate(maps, tuple(size), mode="bilinear")
