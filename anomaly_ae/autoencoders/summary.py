"""What an architecture looks like: parameters, shapes, and a table layer by layer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anomaly_ae.autoencoders import AUTOENCODERS, Autoencoder, Shape, build_autoencoder, parameter_count
from anomaly_ae.config.run_config import RunConfig


@dataclass(frozen=True)
class Summary:
    """An architecture at one image size; shapes are without the number of images."""

    name: str
    family: str
    about: str
    origin: str
    image_shape: Shape
    encoder_parameters: int
    decoder_parameters: int
    latent_shape: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A layer as Keras users know it; `part` is encoder or decoder."""

    part: str
    layer: str
    output_shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Architecture(Summary):
    """An architecture layer by layer."""

    layers: list[Layer]


def summarise(name: str, shape: Shape, config: RunConfig = RunConfig()) -> Summary:
    """The summary of an architecture. Raises `UnknownName`, and `UsageError` when it does not take that shape."""
    with torch.device("meta"):  # shapes without memory
        network, entry = build_autoencoder(name, shape, config), AUTOENCODERS[name]
    about = name, entry.family, entry.about, entry.origin, shape
    return Summary(*about, *network.parameter_counts(), network.latent_shape)


def list_layers(name: str, shape: Shape, config: RunConfig = RunConfig()) -> list[Layer]:
    """Every layer in order, each with the shape of what it gives. Raises as `summarise`."""
    with torch.device("meta"):
        network = build_autoencoder(name, shape, config).eval()
    seen, decoder = list[Layer](), set(network.decoder.modules())

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        part = "decoder" if layer in decoder else "encoder"
        seen.append(Layer(part, type(layer).__name__, tuple(output.shape[1:]), parameter_count(layer)))

    for layer in network.modules():
        if not isinstance(layer, nn.Sequential | Autoencoder):
            layer.register_forward_hook(note)
    with torch.inference_mode():
        network(torch.zeros(1, *shape, device="meta"))
    return seen
