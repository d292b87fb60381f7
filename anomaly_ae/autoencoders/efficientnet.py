"""EfficientNet-Lite0 as far as its features are looked at: Tan and Le 2019, https://arxiv.org/abs/1905.11946.

The same numbers as timm's network of this kind has, in a third of the time, and without timm, whose import takes
seconds: batch norms are folded into the convolutions, and images are padded by the convolutions themselves.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

STEM = 32  # channels at half the picture's size
STAGES = ((16, 1, 3, 1, 1), (24, 6, 3, 2, 2), (40, 6, 5, 2, 2), (80, 6, 3, 2, 3), (112, 6, 5, 1, 3))
STAGES_SEEN = (1, 2, 4)  # of these, the last ones at a quarter, an eighth and a sixteenth of the picture's size
EPSILON = 1e-3  # of its batch norms
FOLDED = 5  # tensors of a convolution and its batch norm: kernel, scale, shift, mean, variance


class EfficientNetLite(nn.Module):
    """Images, float (N, 3, H, W) in [-1, 1], to feature maps of 24, 40 and 112 channels."""

    channels = sum(STAGES[i][0] for i in STAGES_SEEN)

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 3, stride=2)
        before = (STEM, *(channels for channels, *_ in STAGES))
        self.stages = nn.ModuleList(_stage(i, *stage) for i, stage in zip(before, STAGES, strict=False))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [maps[1 + i] for i in STAGES_SEEN]

    @torch.no_grad()
    def fold(self, values: Sequence[Tensor]) -> None:
        """Take over weights as they were trained, those of each convolution and then those of its batch norm."""
        for i, each in enumerate(module for module in self.modules() if isinstance(module, Convolution)):
            kernel, scale, shift, mean, variance = values[FOLDED * i : FOLDED * (i + 1)]
            factor = scale / (variance + EPSILON).sqrt()
            each.weight.copy_(kernel * factor[:, None, None, None])
            each.bias.copy_(shift - mean * factor)


class Convolution(nn.Conv2d):
    """A convolution, and ReLU6 where it is active. Where it halves an even side, the pixel that this needs more is
    added below and to the right, as TensorFlow does.
    """

    bias: nn.Parameter

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups)
        self.active = active

    def forward(self, images: Tensor) -> Tensor:
        if self.stride[0] == 1:
            result = super().forward(images)
        else:  # padded on both sides, and without the first row and column, for that moves fewer numbers
            down, right = (1 - side % 2 for side in images.shape[2:])
            around = self.kernel_size[0] // 2
            padding = (around + down, around + right)
            result = functional.conv2d(images, self.weight, self.bias, self.stride, padding, 1, self.groups)
            result = result[:, :, down:, right:]
        return functional.relu6(result, inplace=True) if self.active else result


class Block(nn.Module):
    """Widened, filtered channel by channel, narrowed, and added to what came in where that has the same shape."""

    def __init__(self, channels_in: int, channels_out: int, wider: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = wider * channels_in
        self.layers = nn.Sequential(
            *([Convolution(channels_in, width)] if wider > 1 else []),
            Convolution(width, width, kernel, stride=stride, groups=width),
            Convolution(width, channels_out, active=False),
        )
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.layers(images)
        return result + images if self.adds else result


def _stage(channels_in: int, channels_out: int, wider: int, kernel: int, stride: int, blocks: int) -> nn.Sequential:
    first = Block(channels_in, channels_out, wider, kernel, stride)
    return nn.Sequential(first, *(Block(channels_out, channels_out, wider, kernel, 1) for _ in range(1, blocks)))
