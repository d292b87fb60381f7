"""The architectures and the catalogue of their names."""

from dataclasses import dataclass

from anomaly_ae.autoencoders.base import Autoencoder, Outputs
from anomaly_ae.autoencoders.conv import ConvAutoencoder
from anomaly_ae.errors import UnknownName

__all__ = ["AUTOENCODERS", "Autoencoder", "Entry", "Outputs", "build_autoencoder", "find_autoencoder"]


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue."""

    about: str
    build: type[Autoencoder]


AUTOENCODERS: dict[str, Entry] = {
    "conv": Entry("strided convolutions, depth by image size; any size from 8×8, gray or colour", ConvAutoencoder),
}


def find_autoencoder(name: str) -> type[Autoencoder]:
    """The architecture called `name`. Raises `UnknownName`."""
    if name not in AUTOENCODERS:
        raise UnknownName("autoencoder", name, AUTOENCODERS)
    return AUTOENCODERS[name].build


def build_autoencoder(name: str, shape: tuple[int, int, int], latent: int) -> Autoencoder:
    """A new network for images of `shape` (C, H, W) with `latent` latent dimensions.

    Raises `UnknownName`, and `UsageError` when the architecture does not take that shape.
    """
    return find_autoencoder(name)(shape, latent)
