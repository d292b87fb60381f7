"""Perceptual loss: images compared by the features a trained network has of them.

Johnson, Alahi and Fei-Fei 2016, https://arxiv.org/abs/1603.08155
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Autoencoder, Outputs
from anomaly_ae.errors import ModelError, ModelNotFound, UnknownName, UsageError, one_line
from anomaly_ae.storage.atomic import expand

Features = Callable[[Tensor], Sequence[Tensor]]  # images (N, C, H, W) in [0, 1] -> maps (N, C', H', W')

# torchvision networks, and the layers whose outputs are compared
LAYERS = {
    "alexnet": ("features.1", "features.4", "features.7"),
    "vgg11": ("features.1", "features.4", "features.9"),
    "vgg16": ("features.3", "features.8", "features.15"),
    "vgg19": ("features.3", "features.8", "features.17"),
    "resnet18": ("relu", "layer1", "layer2"),
    "resnet50": ("relu", "layer1", "layer2"),
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the three channels


def perceptual(features: Features, images: Tensor, outputs: Outputs) -> Tensor:
    """Mean over the maps of the mean squared difference of features, each scaled to unit length over its channels."""
    pairs = zip(features(images), features(outputs.reconstruction), strict=True)
    differences = [functional.mse_loss(_unit(rebuilt), _unit(true)) * true.shape[1] for true, rebuilt in pairs]
    return torch.stack(differences).mean()


def encoder_features(network: Autoencoder) -> Features:
    """The feature maps of a trained encoder, frozen; they raise `UsageError` where a dense one has none."""
    network = network.eval().requires_grad_(False)

    def features(images: Tensor) -> Sequence[Tensor]:
        if not (maps := network.encode(images)[1]):
            raise UsageError("objective perceptual compares feature maps, and a dense encoder has none; name another")
        return maps

    return features


def torchvision_features(name: str, weights: str | Path, device: torch.device) -> Features:
    """Maps of the torchvision network `name` with the weights in a file, .safetensors or torchvision's own .pth.

    A .pth file is read by PyTorch's restricted reader, which takes tensors and nothing else.
    Raises `UnknownName`, `ModelNotFound`, and `ModelError` when the file does not fit the network.
    """
    from torchvision.models import get_model
    from torchvision.models.feature_extraction import create_feature_extractor

    if name not in LAYERS:
        raise UnknownName("torchvision network", name, LAYERS)
    path = expand(weights)
    if not path.is_file():
        raise ModelNotFound(f"there is no weights file {path}; get the one of {name} that torchvision names")
    network = get_model(name, weights=None)
    try:
        safe = path.suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # a file that holds something else makes the readers raise anything
        raise ModelError(f"{path} does not hold the weights of {name} ({one_line(error)})") from error
    extractor = create_feature_extractor(network, list(LAYERS[name])).to(device).eval().requires_grad_(False)
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))

    def features(images: Tensor) -> Sequence[Tensor]:
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]
        return list(extractor((colour - mean) / std).values())

    return features


def _unit(maps: Tensor) -> Tensor:
    return functional.normalize(maps, dim=1, eps=1e-6)
