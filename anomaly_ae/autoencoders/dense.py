"""Dense autoencoders: every pixel joined to every unit. Shapes in comments are those of 28×28 gray images."""

import math

from torch import nn

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Shape
from anomaly_ae.autoencoders.blocks import block, start_like_keras
from anomaly_ae.config.run_config import RunConfig


class Vanilla(Autoencoder):
    """784 → 64 → 784, the plain autoencoder.

    Open in the source and chosen here: ReLU on the 64, sigmoid on the output.
    """

    native = (28, 28)
    learning_rate = 1e-3

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        pixels, latent = math.prod(shape), config.latent or 64
        self.latent_shape = (latent,)
        self.encoder = nn.Sequential(
            nn.Flatten(),  # 784
            block(nn.Linear(pixels, latent), config=config),  # 64
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, pixels),  # 784
            nn.Sigmoid(),
            nn.Unflatten(1, shape),  # 1 × 28 × 28
        )
        start_like_keras(self)


class Multilayer(Autoencoder):
    """784 → 256 → 128 → 64 → 128 → 256 → 784, deep and dense.

    Open in the source and chosen here: ReLU between the layers, a linear latent, sigmoid on the output.
    """

    native = (28, 28)
    learning_rate = 1e-3

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        pixels, latent = math.prod(shape), config.latent or 64
        self.latent_shape = (latent,)
        self.encoder = nn.Sequential(
            nn.Flatten(),  # 784
            block(nn.Linear(pixels, 256), config=config),  # 256
            block(nn.Linear(256, 128), config=config),  # 128
            nn.Linear(128, latent),  # 64
        )
        self.decoder = nn.Sequential(
            block(nn.Linear(latent, 128), config=config),  # 128
            block(nn.Linear(128, 256), config=config),  # 256
            nn.Linear(256, pixels),  # 784
            nn.Sigmoid(),
            nn.Unflatten(1, shape),  # 1 × 28 × 28
        )
        start_like_keras(self)
