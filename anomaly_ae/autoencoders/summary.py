"""What an architecture looks like: parameters, shapes, and a table layer by layer."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from anomaly_ae.autoencoders import AUTOENCODERS, Options, Shape, build_autoencoder, find_autoencoder, parameter_count


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


def image_shape(name: str, size: tuple[int, int] | None, channels: int) -> Shape:
    """The shape asked for, else the native one of the architecture, else 28×28."""
    height, width = size or find_autoencoder(name).native or (28, 28)
    return channels, height, width


def summarise(name: str, shape: Shape, options: Options = Options()) -> Summary:  # noqa: B008 (frozen)
    """The summary of an architecture. Raises `UnknownName`, and `UsageError` when it does not take that shape."""
    network, entry = build_autoencoder(name, shape, options), AUTOENCODERS[name]
    counts = parameter_count(network.encoder), parameter_count(network.decoder)
    return Summary(name, entry.family, entry.about, entry.origin, shape, *counts, network.latent_shape)


def layers(name: str, shape: Shape, options: Options = Options()) -> list[Layer]:  # noqa: B008 (frozen)
    """Every layer in order, each with the shape of what it gives. Raises as `summarise`."""
    network = build_autoencoder(name, shape, options).eval()
    seen: list[Layer] = []
    for part, module in (("encoder", network.encoder), ("decoder", network.decoder)):
        for layer in module.modules():
            if not isinstance(layer, nn.Sequential):
                layer.register_forward_hook(partial(_note, seen, part))
    with torch.inference_mode():
        network(torch.zeros(1, *shape))
    return seen


def _note(seen: list[Layer], part: str, layer: nn.Module, _: object, output: Tensor) -> None:
    seen.append(Layer(part, type(layer).__name__, tuple(output.shape[1:]), parameter_count(layer)))
