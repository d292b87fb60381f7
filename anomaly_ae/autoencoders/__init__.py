"""The architectures and the catalogue of their names."""

import dataclasses
import math
from dataclasses import dataclass

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Outputs, Shape, parameter_count
from anomaly_ae.autoencoders.conv import ConvAutoencoder, SkipAutoencoder, VariationalAutoencoder
from anomaly_ae.autoencoders.dense import Multilayer, Vanilla
from anomaly_ae.autoencoders.feature_conv import FeatureAutoencoder
from anomaly_ae.autoencoders.folds import FoldAutoencoders
from anomaly_ae.autoencoders.pooled import ConvPool, DeepCNN, DenseBottleneck64, ShallowCNN
from anomaly_ae.autoencoders.repair import RepairAutoencoder
from anomaly_ae.autoencoders.restoring import Restoring, is_restored
from anomaly_ae.autoencoders.strided import Strided32, WideKernel
from anomaly_ae.autoencoders.tiling import Tiled
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UnknownName, UsageError
from anomaly_ae.runtime.spelling import setting

__all__ = [
    "AUTOENCODERS",
    "Autoencoder",
    "AutoencoderEntry",
    "Outputs",
    "Shape",
    "build_autoencoder",
    "find_autoencoder",
    "image_size",
    "parameter_count",
    "require_room",
]


@dataclass(frozen=True)
class AutoencoderEntry:
    """A line of the catalogue: its class, what it is in a few words, its family, and where it comes from."""

    build: type[Autoencoder]
    about: str
    family: str
    origin: str


LARGEST_IMAGES = {
    False: 2**25,
    True: 2**28,
}  # values, of what a network sees whole, and of what it sees in tiles
OURS = "this project"
SHALLOW_DEEP = "MNIST project comparing a shallow and a deep CNN"
BOTTLENECK = "MNIST project with a dense bottleneck (Keras)"
LATENTS = "MNIST project with t-SNE and generation (PyTorch)"
THREE = "MNIST project comparing three autoencoders (Keras)"
KERNELS = "MNIST project with a 15×15 kernel (PyTorch)"

AUTOENCODERS: dict[str, AutoencoderEntry] = {
    "conv": AutoencoderEntry(ConvAutoencoder, "strided convolutions, depth by image size", "strided", OURS),
    "skip-conv": AutoencoderEntry(
        SkipAutoencoder, "conv with skips from each stage to the way back", "strided", "arXiv:1505.04597"
    ),
    "vae": AutoencoderEntry(VariationalAutoencoder, "conv with a Gaussian latent", "variational", "arXiv:1312.6114"),
    "repair": AutoencoderEntry(RepairAutoencoder, "repairs planted defects and says where they are", "repair", OURS),
    "feature-conv": AutoencoderEntry(
        FeatureAutoencoder, "gives back what a network trained on photographs sees", "features", "arXiv:2012.07122"
    ),
    "shallow-cnn": AutoencoderEntry(ShallowCNN, "one block down, one back", "pooled", SHALLOW_DEEP),
    "deep-cnn": AutoencoderEntry(DeepCNN, "three blocks to a 128×7×7 map", "pooled", SHALLOW_DEEP),
    "dense-bottleneck-64": AutoencoderEntry(
        DenseBottleneck64, "convolutions and a dense latent", "pooled", BOTTLENECK
    ),
    "strided-32": AutoencoderEntry(Strided32, "two strided convolutions, tanh", "strided", LATENTS),
    "vanilla": AutoencoderEntry(Vanilla, "784 → 64 → 784", "dense", THREE),
    "multilayer": AutoencoderEntry(Multilayer, "784 → 256 → 128 → 64 and back", "dense", THREE),
    "conv-pool": AutoencoderEntry(ConvPool, "64, 128, 64 filters; back with 64, 128, 256", "pooled", THREE),
    "wide-kernel": AutoencoderEntry(WideKernel, "a 15×15 kernel first, 64×1×1 latent", "strided", KERNELS),
}


def find_autoencoder(name: str) -> type[Autoencoder]:
    """The architecture called `name`. Raises `UnknownName`."""
    if name not in AUTOENCODERS:
        raise UnknownName("autoencoder", name, AUTOENCODERS)
    return AUTOENCODERS[name].build


def image_size(
    name: str, requested: tuple[int, int] | None, data: tuple[int, int], tiled: bool = False
) -> tuple[int, int]:
    """Height and width that were asked for, else those the architecture was made for, else those of the data, made
    smaller where the architecture's usual side is less than the smaller of both; in tiles, those of the data.
    """
    build = find_autoencoder(name)
    scale = 1.0 if tiled else min(1.0, build.side / min(data))
    native = None if tiled else build.native
    return requested or native or (round(data[0] * scale), round(data[1] * scale))


def build_autoencoder(name: str, shape: Shape, config: RunConfig = RunConfig()) -> Autoencoder:
    """A new network for images of `shape` (C, H, W), or as many as there are folds.

    Raises `UnknownName`, and `UsageError` when the architecture does not take that shape or those settings.
    """
    if config.folds:
        single = dataclasses.replace(config, folds=None)
        return FoldAutoencoders(
            [build_autoencoder(name, shape, single) for _ in range(config.folds)], shape, config.seed
        )
    build, tile = find_autoencoder(name), config.tile_size
    seen = (shape[0], *tile) if tile else shape
    network = build(seen, config)
    for part in ("encoder", "decoder", "latent_shape"):
        if not hasattr(network, part):
            raise NotImplementedError(f"{build.__name__} sets no {part}, which every autoencoder has")
    if is_restored(config):
        network = Restoring(network, seen)
    return Tiled(network, shape, tile) if tile else network


def require_room(shape: Shape, config: RunConfig) -> None:
    """Raise `UsageError` for images of `shape` (C, H, W) so large that there is no room for what is made of them."""
    most = LARGEST_IMAGES[config.tile is not None]
    if math.prod(shape) > most:
        size = "×".join(map(str, shape))
        remedy = setting("image_size") if config.tile else f"{setting('image_size')}, or {setting('tile')}"
        raise UsageError(
            f"images of {size} have more than the {most:,} values that there is room for; name a smaller {remedy}"
        )
