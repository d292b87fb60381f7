"""Convolutions with max-pooling down and upsampling back. Shapes in comments are those of 28×28 gray images."""

import math

from torch import nn

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Shape, fixed_latent
from anomaly_ae.autoencoders.blocks import block, conv, halved, pool, start_like_keras, to_latent, up
from anomaly_ae.config.run_config import RunConfig


class Pooled(Autoencoder):
    """What they have in common."""

    native = (28, 28)
    objective = "bce"  # with MSE their sigmoid may settle at black
    learning_rate = 1e-3


class ShallowCNN(Pooled):
    """One encoder block and one decoder block.

    Open in the source and chosen here: its one block has "32/64 filters", read as two convolutions; the decoder
    mirrors them, and a last convolution with a sigmoid makes the image.
    """

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        full, half = halved(shape, 1)
        self.latent_shape = fixed_latent(config, "shallow-cnn", (64, *half))
        self.encoder = nn.Sequential(
            block(conv(shape[0], 32), config=config),  # 32 × 28 × 28
            block(conv(32, 64), pool(), config=config),  # 64 × 14 × 14
            nn.Flatten(),  # 12544
        )
        self.decoder = nn.Sequential(
            nn.Unflatten(1, self.latent_shape),  # 64 × 14 × 14
            block(conv(64, 64), config=config),  # 64 × 14 × 14
            block(conv(64, 32), up(full), config=config),  # 32 × 28 × 28
            conv(32, shape[0]),  # 1 × 28 × 28
            nn.Sigmoid(),
        )
        start_like_keras(self)


class DeepCNN(Pooled):
    """Three encoder blocks of 32, 64 and 128 filters to a 7×7×128 bottleneck, and three decoder blocks.

    The source says convolution and max-pooling three times, which would give 3×3: the bottleneck of 7×7×128 that it
    prints asks for two, so the third block does not pool, nor the last of the decoder upsample.
    Open in the source and chosen here: the decoder has 128, 64 and 32 filters and a last convolution with a sigmoid.
    """

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        full, half, quarter = halved(shape, 2)
        self.latent_shape = fixed_latent(config, "deep-cnn", (128, *quarter))
        self.encoder = nn.Sequential(
            block(conv(shape[0], 32), pool(), config=config),  # 32 × 14 × 14
            block(conv(32, 64), pool(), config=config),  # 64 × 7 × 7
            block(conv(64, 128), config=config),  # 128 × 7 × 7
            nn.Flatten(),  # 6272
        )
        self.decoder = nn.Sequential(
            nn.Unflatten(1, self.latent_shape),  # 128 × 7 × 7
            block(conv(128, 128), up(half), config=config),  # 128 × 14 × 14
            block(conv(128, 64), up(full), config=config),  # 64 × 28 × 28
            block(conv(64, 32), config=config),  # 32 × 28 × 28
            conv(32, shape[0]),  # 1 × 28 × 28
            nn.Sigmoid(),
        )
        start_like_keras(self)


class DenseBottleneck64(Pooled):
    """Two convolutions with pooling, a dense bottleneck of 64, and the way back; 219,584 + 259,521 parameters.

    Open in the source and chosen here: both dense layers are linear. With a ReLU after the decoder's, its MSE ends at
    black within ten steps of Adam at 1e-3.
    """

    objective = "mse"

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        full, half, quarter = halved(shape, 2)
        maps, latent = (64, *quarter), config.latent or 64
        self.latent_shape = (latent,)
        self.encoder = nn.Sequential(
            block(conv(shape[0], 32), pool(), config=config),  # 32 × 14 × 14
            block(conv(32, 64), pool(), config=config),  # 64 × 7 × 7
            *to_latent(maps, latent),  # 64
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, math.prod(maps)),  # 3136
            nn.Unflatten(1, maps),  # 64 × 7 × 7
            block(conv(64, 64), up(half), config=config),  # 64 × 14 × 14
            block(conv(64, 32), up(full), config=config),  # 32 × 28 × 28
            conv(32, shape[0]),  # 1 × 28 × 28
            nn.Sigmoid(),
        )
        start_like_keras(self)


class ConvPool(Pooled):
    """Convolution and pooling with 64, 128, 64 filters; convolution and upsampling with 64, 128, 256; a last one.

    Open in the source and chosen here: three times pooled, 28 becomes 14, 7 and 3; upsampling goes back to those
    same sizes, and the last convolution has a sigmoid.
    """

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        full, half, quarter, eighth = halved(shape, 3)
        self.latent_shape = fixed_latent(config, "conv-pool", (64, *eighth))
        self.encoder = nn.Sequential(
            block(conv(shape[0], 64), pool(), config=config),  # 64 × 14 × 14
            block(conv(64, 128), pool(), config=config),  # 128 × 7 × 7
            block(conv(128, 64), pool(), config=config),  # 64 × 3 × 3
            nn.Flatten(),  # 576
        )
        self.decoder = nn.Sequential(
            nn.Unflatten(1, self.latent_shape),  # 64 × 3 × 3
            block(conv(64, 64), up(quarter), config=config),  # 64 × 7 × 7
            block(conv(64, 128), up(half), config=config),  # 128 × 14 × 14
            block(conv(128, 256), up(full), config=config),  # 256 × 28 × 28
            conv(256, shape[0]),  # 1 × 28 × 28
            nn.Sigmoid(),
        )
        start_like_keras(self)
