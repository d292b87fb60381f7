"""Edges of images as whole numbers of a byte: they compare several times faster than floats, and alike everywhere."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.objectives.aligned import STRONGEST, sobel

FULL_SCALE = 1_020  # what Sobel's filter gives where black meets white
LEVEL_PARTS = 16  # of a level of brightness, to which the lines of what is shrunk are rounded
WEIGHT_PARTS = 1_024  # that the weights of shrinking are whole numbers of
USUAL_SHARE = 0.95  # the share of images whose strongest edges are not cut off
EDGES_AT_ONCE = 256  # images whose edges are worked out at a time


@dataclass(frozen=True)
class EdgeRows:
    """Edges of images at one scale, in whole steps, each image a row: its lines with zeros to their right, and lines
    of zeros below. So an image that is moved by some pixels is the same row, read from elsewhere on.

    values: int8 (2C, …, L), where L = (height + reach) · (width + reach)
    energy: float32 (…), the mean square of an image's edges, where black against white is 1
    unit: float32 (), what a step is on that scale
    """

    values: Tensor
    energy: Tensor
    unit: Tensor
    height: int
    width: int
    reach: int

    @classmethod
    def of(cls, maps: Tensor, step: Tensor, reach: int) -> "EdgeRows":
        """Of edges (2C, N, H, W), as `sobel` gives them, in steps."""
        whole = (maps / step).round_().clamp_(-STRONGEST, STRONGEST)
        unit = step / FULL_SCALE
        energy = whole.square().mean(dim=(0, 2, 3)) * unit.square()
        steps = whole if torch.compiler.is_exporting() else whole.to(torch.int8)  # runtimes reckon in floats alone
        rows = functional.pad(steps, (0, reach, 0, reach)).flatten(2)
        return cls(rows, energy, unit, maps.shape[2], maps.shape[3], reach)

    def take(self, images: Tensor) -> "EdgeRows":
        """Those of the images with these indices (N, K)."""
        rows = self.values.index_select(1, images.flatten()), self.energy[images.flatten()]
        return self._with(*rows).shaped(images.shape)

    def shaped(self, shape: tuple[int, ...]) -> "EdgeRows":
        """Those of (N·K,) images as of (N, K)."""
        return self._with(self.values.view(len(self.values), *shape, -1), self.energy.view(shape))

    @property
    def moves(self) -> list[int]:
        """By how much a row is moved for each way that a pixel may move, ascending."""
        within = range(-self.reach, self.reach + 1)
        return [down * (self.width + self.reach) + right for down, right in itertools.product(within, repeat=2)]

    def moved(self, rows: Tensor, count: int) -> list[Tensor]:
        """Views of `count` values of rows (…, count + 2 · `moves[-1]`), for each of `moves` read from there on."""
        side, line = 2 * self.reach + 1, self.width + self.reach
        views = rows.as_strided((side, side, *rows.shape[:-1], count), (line, 1, *rows.stride()))
        return [view for lines in views.unbind() for view in lines.unbind()]

    def as_maps(self, rows: Tensor) -> Tensor:
        """Rows (…, L) as maps (…, H, W)."""
        lines = rows.view(*rows.shape[:-1], self.height + self.reach, self.width + self.reach)
        return lines[..., : self.height, : self.width]

    def _with(self, values: Tensor, energy: Tensor) -> "EdgeRows":
        return EdgeRows(values, energy, self.unit, self.height, self.width, self.reach)

    @staticmethod
    def joined(parts: "list[EdgeRows]") -> "EdgeRows":
        """The images of several, (N,) each, in one."""
        values = torch.cat([part.values for part in parts], dim=1)
        return parts[0]._with(values, torch.cat([part.energy for part in parts]))


def usual_step(images: Tensor) -> Tensor:
    """The step, float32 (), by which the strongest edge of images, uint8 (N, C, H, W), is at most `STRONGEST` in all
    but the most contrasty, and never so small that it tells apart what bytes do not.
    """
    strongest = torch.cat(
        [sobel(part.float()).abs().amax(dim=(0, 2, 3)) for part in torch.split(images, EDGES_AT_ONCE)]
    )
    usual = strongest.sort().values[int(USUAL_SHARE * (len(strongest) - 1))]
    return (usual / STRONGEST).clamp_min(1)


def brightness(images: Tensor, side: int) -> Tensor:
    """Images, float in [0, 1], (N, C, H, W), as brightness from 0 to 255, shrunk to a smaller side of so
    many pixels at the most.

    What is computed of bytes is exact in float32, whatever the order of the sums: weights are whole 1024ths, and each
    result is rounded to a sixteenth. So it is the same on all devices and in all runtimes.
    """
    exact = images.float() * 255
    scale = side / min(images.shape[-2:])
    if scale >= 1:
        return exact
    height, width = (_weights(each, max(1, round(each * scale))).to(images.device) for each in images.shape[-2:])
    return _to_parts(_to_parts(height @ exact) @ width.T)


def _to_parts(values: Tensor) -> Tensor:
    return (values * LEVEL_PARTS).round() / LEVEL_PARTS


def _weights(size: int, smaller: int) -> Tensor:
    """How much each of `size` pixels has of each of fewer ones that cover them, float32 (smaller, size): its share of
    their length, in `WEIGHT_PARTS`, which add up to 1.
    """
    ends = torch.arange(smaller + 1, dtype=torch.float64) * size / smaller
    pixels = torch.arange(size, dtype=torch.float64)
    upto = (ends[:, None] - pixels).clamp(0, 1).cumsum(dim=1)  # of the length up to each end, what lies up to a pixel
    covered = torch.diff(upto, dim=0) * smaller / size  # ascends from 0 to 1 along a row
    return torch.diff((covered * WEIGHT_PARTS).round(), dim=1, prepend=torch.zeros(smaller, 1)).float() / WEIGHT_PARTS


def half(maps: Tensor) -> Tensor:
    """Maps (…, H, W) at half the height and width, of neighbours the mean; an odd last line is left out."""
    height, width = (side // 2 * 2 for side in maps.shape[-2:])
    rows = maps[..., 0:height:2, :] + maps[..., 1:height:2, :]
    return (rows[..., 0:width:2] + rows[..., 1:width:2]) / 4
