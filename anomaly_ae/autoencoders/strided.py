"""Strided convolutions down, transposed ones back. Shapes in comments are those of 28×28 gray images."""

from torch import nn

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Shape, fixed_latent
from anomaly_ae.autoencoders.blocks import Rescale, Size, block, to_latent
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting


class Strided32(Autoencoder):
    """Two strided convolutions, a latent of 32, and back to a tanh; it works on images in [-1, 1].

    Open in the source and chosen here: 3×3 convolutions of stride 2 and padding 1 give the shapes it prints,
    ReLU between them, and after the decoder's linear layer.
    """

    native = (28, 28)
    learning_rate = 2e-3
    span = 2.0

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        channels, *size = shape
        full = (size[0], size[1])
        half = _strided(full)
        quarter = _strided(half)
        maps, latent = (32, *quarter), config.latent or 32
        self.latent_shape = (latent,)
        self.encoder = nn.Sequential(
            Rescale(2, -1),  # [0, 1] to [-1, 1]
            block(nn.Conv2d(channels, 16, 3, stride=2, padding=1), config=config),  # 16 × 14 × 14
            block(nn.Conv2d(16, 32, 3, stride=2, padding=1), config=config),  # 32 × 7 × 7
            *to_latent(maps, latent),  # 32
        )
        self.decoder = nn.Sequential(
            block(nn.Linear(latent, 32 * quarter[0] * quarter[1]), config=config),  # 1568
            nn.Unflatten(1, maps),  # 32 × 7 × 7
            block(_back(32, 16, half), config=config),  # 16 × 14 × 14
            _back(16, channels, full),  # 1 × 28 × 28
            nn.Tanh(),
            Rescale(0.5, 0.5),  # [-1, 1] to [0, 1]
        )


class WideKernel(Autoencoder):
    """A first kernel of 15×15, then strides down to 64×1×1; for 28×28 images only.

    Open in the source and chosen here: ReLU between the layers, sigmoid on the output.
    """

    native = (28, 28)
    learning_rate = 2e-3

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        channels, *size = shape
        if tuple(size) != self.native:
            raise UsageError(
                f"autoencoder wide-kernel takes images of 28×28 pixels, and {size[0]}×{size[1]} was asked; "
                f"leave {setting('image_size')} out, and they are resized"
            )
        self.latent_shape = fixed_latent(config, "wide-kernel", (64, 1, 1))
        self.encoder = nn.Sequential(
            block(nn.Conv2d(channels, 8, 15, stride=1, padding=1), config=config),  # 8 × 16 × 16
            block(nn.Conv2d(8, 16, 3, stride=2, padding=1), config=config),  # 16 × 8 × 8
            block(nn.Conv2d(16, 32, 3, stride=2, padding=1), config=config),  # 32 × 4 × 4
            nn.Conv2d(32, 64, 5, stride=2, padding=1),  # 64 × 1 × 1
            nn.Flatten(),  # 64
        )
        self.decoder = nn.Sequential(
            nn.Unflatten(1, self.latent_shape),  # 64 × 1 × 1
            block(nn.ConvTranspose2d(64, 32, 4, stride=1), config=config),  # 32 × 4 × 4
            block(nn.ConvTranspose2d(32, 16, 2, stride=2), config=config),  # 16 × 8 × 8
            block(nn.ConvTranspose2d(16, 8, 2, stride=2), config=config),  # 8 × 16 × 16
            nn.ConvTranspose2d(8, channels, 4, stride=2, padding=3),  # 1 × 28 × 28
            nn.Sigmoid(),
        )


def _strided(size: Size) -> Size:
    """What a 3×3 convolution of stride 2 and padding 1 makes of a size: half, rounded up."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _back(channels_in: int, channels_out: int, size: Size) -> nn.ConvTranspose2d:
    """The way back to `size` from what `_strided` makes of it."""
    even = (1 - size[0] % 2, 1 - size[1] % 2)
    return nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=even)
