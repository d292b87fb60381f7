"""What every autoencoder is and returns."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, nn


class Outputs(NamedTuple):
    """What a network makes of images.

    reconstruction: float32 (N, C, H, W), in [0, 1] as its input
    latent:         float32 (N, D)
    features:       feature maps of the encoder, float32 (N, C', H', W') each, from large to small
    heads:          what further heads say, by name
    """

    reconstruction: Tensor
    latent: Tensor
    features: tuple[Tensor, ...] = ()
    heads: Mapping[str, Tensor] = MappingProxyType({})

    def first(self, count: int) -> "Outputs":
        """The outputs of the first `count` images."""
        return Outputs(
            self.reconstruction[:count],
            self.latent[:count],
            tuple(features[:count] for features in self.features),
            {name: head[:count] for name, head in self.heads.items()},
        )


class Autoencoder(nn.Module, ABC):
    """An encoder and a decoder; subclasses are built from a shape (C, H, W) and a latent size."""

    @abstractmethod
    def __init__(self, shape: tuple[int, int, int], latent: int) -> None:
        super().__init__()

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Latent and feature maps of images, float (N, C, H, W) in [0, 1]."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Images, float (N, C, H, W) in [0, 1], of latents (N, D)."""

    def forward(self, images: Tensor) -> Outputs:
        latent, features = self.encode(images)
        return Outputs(self.decode(latent), latent, features)

    def parameter_count(self) -> int:
        """The number of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())
