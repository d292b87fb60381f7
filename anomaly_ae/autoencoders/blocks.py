"""What the architectures share."""

import math

from torch import Tensor, nn

from anomaly_ae.autoencoders.autoencoder import Shape
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting

Size = tuple[int, int]  # height, width
Weighted = nn.Linear | nn.Conv2d | nn.ConvTranspose2d  # layers
SMALLEST_SIDE = 8  # pixels a side, from which images are halved


class Rescale(nn.Module):
    """x · scale + shift: between [0, 1] and the values a network works on."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, values: Tensor) -> Tensor:
        return values * self.scale + self.shift

    def extra_repr(self) -> str:
        return f"scale={self.scale}, shift={self.shift}"


def block(first: Weighted, *rest: nn.Module, config: RunConfig) -> nn.Sequential:
    """A layer with weights (batch norm after it where asked for), ReLU, (dropout), then the rest, such as pooling."""
    norm = list[nn.Module]()
    if config.batch_norm:
        norm = [
            nn.BatchNorm1d(first.out_features) if isinstance(first, nn.Linear) else nn.BatchNorm2d(first.out_channels)
        ]
    dropout = [nn.Dropout(config.dropout)] if config.dropout else []
    return nn.Sequential(first, *norm, nn.ReLU(), *dropout, *rest)


def activation(channels: int, config: RunConfig) -> list[nn.Module]:
    """Batch norm, unless told otherwise, ReLU, and dropout where asked for."""
    norm = [] if config.batch_norm is False else [nn.BatchNorm2d(channels)]
    return [*norm, nn.ReLU(), *([nn.Dropout(config.dropout)] if config.dropout else [])]


def conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3×3 convolution that keeps height and width."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


def require_side(shape: Shape, side: int) -> None:
    """Raise `UsageError` when images of `shape` (C, H, W) have fewer pixels a side, or no channel."""
    channels, height, width = shape
    if min(height, width) < side or channels < 1:
        raise too_small(side, height, width)


def too_small(side: int, height: int, width: int) -> UsageError:
    """What to say of images with fewer pixels than `side` in height or width."""
    return UsageError(
        f"this autoencoder takes images from {side}×{side} pixels, and these are {height}×{width}; a larger "
        f"{setting('image_size')} enlarges them"
    )


def halved(shape: Shape, times: int) -> list[Size]:
    """Height and width of `shape` (C, H, W), and what pooling makes of them, e.g. (28, 28), (14, 14), (7, 7).

    Raises `UsageError` when nothing would be left of a side.
    """
    _, height, width = shape
    if min(height, width) < 2**times:
        raise too_small(2**times, height, width)
    return [(height >> i, width >> i) for i in range(times + 1)]


def pool() -> nn.Module:
    """Max-pooling that halves height and width, rounding down."""
    return nn.MaxPool2d(2)


def up(size: Size) -> nn.Module:
    """Upsampling to `size` by repeating pixels."""
    return nn.Upsample(size=size)


def to_latent(maps: tuple[int, ...], latent: int) -> tuple[nn.Module, nn.Module]:
    """Maps (N, *maps) to latents (N, latent)."""
    return nn.Flatten(), nn.Linear(math.prod(maps), latent)


def start_like_keras(network: nn.Module) -> None:
    """Weights as Keras begins with: Glorot and Bengio's uniform ones (2010), larger than PyTorch's; biases zero.

    https://proceedings.mlr.press/v9/glorot10a.html
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
