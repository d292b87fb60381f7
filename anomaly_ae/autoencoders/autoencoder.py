"""What every autoencoder is and returns."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from anomaly_ae.augmentation.transforms import Augment
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting

Shape = tuple[int, int, int]  # channels, height, width


class Outputs(NamedTuple):
    """What a network makes of images.

    reconstruction: float32 (N, C, H, W), in [0, 1] as its input
    latent:         float32 (N, D)
    features:       feature maps of the encoder, float32 (N, C', H', W') each, from large to small
    heads:          what further heads say, by name
    members:        what each network made of them, where several are as one
    """

    reconstruction: Tensor
    latent: Tensor
    features: tuple[Tensor, ...] = ()
    heads: Mapping[str, Tensor] = MappingProxyType({})
    members: "tuple[Outputs, ...]" = ()

    def first(self, count: int) -> "Outputs":
        """The outputs of the first `count` images."""
        return self.map_tensors(lambda tensor: tensor[:count])

    def float(self) -> "Outputs":
        """The same in float32."""
        return self.map_tensors(lambda tensor: tensor.float())

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> "Outputs":
        """The same with every tensor changed."""
        return Outputs(
            change(self.reconstruction),
            change(self.latent),
            tuple(map(change, self.features)),
            {name: change(head) for name, head in self.heads.items()},
            tuple(member.map_tensors(change) for member in self.members),
        )


class Prepared(NamedTuple):
    """What a network is trained and validated on: images, unless it says otherwise, and then how that is varied.

    images: what `fit` is made of, with their varied copies
    """

    images: Tensor
    fit: Tensor
    validation: Tensor
    augment: Augment | None = None


class Autoencoder(nn.Module, ABC):
    """An encoder, images (N, C, H, W) in [0, 1] to latents (N, D), and a decoder, latents to images.

    Both are whole in themselves: an encoder ends with flattening, a decoder begins with undoing it. A stage of the
    encoder that is itself an `nn.Sequential` is a block, and the maps it makes are the network's features.
    Subclasses are built from a shape and the settings `latent`, `batch_norm` and `dropout` of a `RunConfig`, and set
    `encoder`, `decoder` and `latent_shape`.
    """

    native: ClassVar[tuple[int, int] | None] = None  # height and width it was made for; None: those of the data
    side: ClassVar[int] = 128  # pixels of the smaller side at the most, unless another size is asked for
    skips: ClassVar[bool] = False  # whether maps of the encoder go past the latent to the way back
    span: float = 1.0  # of the pixel values it works on inside: 2 for [-1, 1]
    objective: str = "mse"  # what it is trained for unless another is named,
    learning_rate: float = 4e-3  # and at which peak,
    defects: float = 0.0  # and with synthetic defects in which share of the images,
    batch_size: int | None = None  # in batches of so many, and for so many steps; None: as the preset has it
    steps: int | None = None
    cheap_folds: bool = False  # whether several cost hardly more than one, since what takes long is shared
    goes_on: bool = True  # whether a training may begin with the weights of another, on other images
    perceived_shape: tuple[int, ...] | None = None  # what `perceive` makes of an image; None: the image itself
    copies: int = 1  # of each training image, varied, that it and its scorer learn from
    encoder: nn.Sequential
    decoder: nn.Sequential
    latent_shape: tuple[int, ...]  # before flattening

    @abstractmethod
    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__()

    def begin(self, config: RunConfig) -> None:
        """Take over what a training begins with that is not drawn by chance. Raises `UsageError`."""

    def prepare(self, fit: Tensor, validation: Tensor) -> Prepared:
        """What it is trained on, of images (N, C, H, W), uint8 or float in [0, 1].

        fit: with `copies` of each image, as `varied_copies` has them
        """
        return Prepared(fit, fit, validation)

    def perceive(self, images: Tensor) -> Tensor:
        """What it makes of a batch, float (N, C, H, W) in [0, 1], before all that it learns, (N, *perceived_shape);
        it takes this in place of images.
        """
        return images

    def borrow(self, other: "Autoencoder") -> None:
        """Take another's part that learns nothing for its own, where it has one."""

    def settle(self, prepared: Tensor, rows: Tensor) -> None:
        """Learn what is reckoned, not trained, of those rows, int64 (M,), of what `prepare` gave."""

    def learners(self, count: int) -> "list[tuple[Autoencoder, Tensor]]":
        """The networks that are trained, itself unless it is several as one, and the indices, int64, of those of
        `count` images, varied copies among them, that each learns from.
        """
        return [(self, torch.arange(count))]

    @property
    def draws(self) -> bool:
        """Whether it, or one that it wraps, draws by chance what it does in training."""
        return any(
            module.p > 0 if isinstance(module, nn.Dropout) else isinstance(module, Autoencoder) and module.draws
            for module in self.modules()
            if module is not self
        )

    @property
    def latent_size(self) -> int:
        """The number of latent dimensions, D."""
        return math.prod(self.latent_shape)

    def parameter_counts(self) -> tuple[int, int]:
        """The parameters of the encoder, with all that is not the decoder, and of the decoder."""
        decoder = parameter_count(self.decoder)
        return parameter_count(self) - decoder, decoder

    def encode(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Latents (N, D) and feature maps of images, float (N, C, H, W) in [0, 1]."""
        return self.through(self.encoder, images)

    @staticmethod
    def through(stages: nn.Sequential, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What stages of an encoder make of images, and the feature maps on the way."""
        features, values = [], images
        for stage in stages:
            values = stage(values)
            if isinstance(stage, nn.Sequential) and values.ndim == 4:
                features.append(values)
        return values, tuple(features)

    def decode(self, latent: Tensor) -> Tensor:
        """Images, float (N, C, H, W) in [0, 1], of latents (N, D)."""
        images: Tensor = self.decoder(latent)
        return images

    def forward(self, images: Tensor) -> Outputs:
        latent, features = self.encode(images)
        return Outputs(self.decode(latent), latent, features)

    def undecoded(self, images: Tensor) -> Outputs:
        """What `forward` gives, for who reads no reconstruction: where the network can do without, that is not made,
        and has a shape but no values, on PyTorch's device `meta`.
        """
        if type(self).forward is not Autoencoder.forward:
            whole: Outputs = self(images)
            return whole
        return Outputs(torch.empty_like(images, device="meta"), *self.encode(images))

    def outline(self, shape: Shape) -> Outputs:
        """Outputs for one image of `shape`, for their shapes and the names of the heads; the values say nothing."""
        outputs: Outputs = self(torch.zeros(1, *shape))
        return outputs


def parameter_count(module: nn.Module) -> int:
    """The number of trained numbers."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def fixed_latent(config: RunConfig, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape`, for a network whose latent is a map of that shape. Raises `UsageError` when another size was asked."""
    size = math.prod(shape)
    if config.latent not in (None, size):
        maps = "×".join(map(str, shape))
        raise UsageError(
            f"the latent of autoencoder {name} is a map, here {maps} = {size}, and "
            f"{setting('latent', config.latent)} was asked; leave it out, or take an autoencoder with a dense "
            "latent, such as conv"
        )
    return shape
