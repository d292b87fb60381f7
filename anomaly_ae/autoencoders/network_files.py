"""An encoder, a decoder or a whole network in a file of its own: safetensors, and in the header what built it."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from anomaly_ae.autoencoders import Autoencoder, Shape, build_autoencoder
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import ModelError, ModelNotFound, UsageError
from anomaly_ae.storage.atomic import expand, write_bytes

ENCODER, DECODER, WHOLE_NETWORK = "encoder", "decoder", "autoencoder"
# That a network depends on
NETWORK_SETTINGS = ("latent", "batch_norm", "dropout", "tile", "backbone", "folds", "objective")
NETWORK_PARTS = (ENCODER, DECODER, WHOLE_NETWORK)


def save_parts(folder: Path, network: Autoencoder, name: str, shape: Shape, config: RunConfig) -> None:
    """Write encoder.safetensors, decoder.safetensors and autoencoder.safetensors.

    name, shape, config: what the network was built from
    """
    settings = {key: getattr(config, key) for key in NETWORK_SETTINGS}
    about = {"name": name, "shape": json.dumps(shape), "options": json.dumps(settings)}
    for part in NETWORK_PARTS:
        weights = {key: value.cpu().contiguous() for key, value in _part(network, part).state_dict().items()}
        write_bytes(folder / f"{part}.safetensors", save_tensors(weights, about | {"part": part}))


def load_part(path: str | Path) -> nn.Module:
    """Load an encoder, a decoder or a whole network of a run, ready for use. Nothing in the file is executed.

    An encoder maps float images (N, C, H, W) in [0, 1] to latents (N, D), a decoder latents to images; a whole
    network is an `Autoencoder`.

    Args:
        path: `encoder.safetensors`, `decoder.safetensors` or `autoencoder.safetensors` in the run's `network/`

    Raises:
        ModelNotFound: there is no such file
        ModelError: it is damaged or something else

    Examples:
        >>> import torch
        >>> from anomaly_ae import RunConfig, load_part, train
        >>> run = train(RunConfig(normal="0,1,2", epochs=1))
        >>> encoder = load_part(f"{run.run_folder}/network/encoder.safetensors")
        >>> encoder(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 12])
    """
    path = expand(path)
    if not path.is_file():
        raise ModelNotFound(f"there is no file {path}; name the encoder, decoder or autoencoder.safetensors of a run")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
        channels, height, width = json.loads(about["shape"])
        config = RunConfig.build(json.loads(about["options"]))
        part = _part(build_autoencoder(about["name"], (channels, height, width), config), about["part"])
        part.load_state_dict(load_tensors(path.read_bytes()))
    except (SafetensorError, UsageError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path} is damaged, or no part of a network that anomaly-ae saved; save it again"
        ) from error
    return part.eval()


def _part(network: Autoencoder, part: str) -> nn.Module:
    return {ENCODER: network.encoder, DECODER: network.decoder, WHOLE_NETWORK: network}[part]
