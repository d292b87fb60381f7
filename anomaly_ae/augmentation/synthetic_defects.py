"""Synthetic defects, planted in normal images: spots, blots and scars, filled with what does not belong there.

In the manner of CutPaste (Li et al. 2021, https://arxiv.org/abs/2104.04015), DRAEM (Zavrtanik et al. 2021,
https://arxiv.org/abs/2108.07610) and NSA (Schlüter et al. 2022, https://arxiv.org/abs/2109.15222), all at once for a
batch and on the device where it is. Random numbers are PyTorch's own.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

DEFECTS = 3  # tried in an image,
AGAIN = 0.4  # the second and third with this probability
SCARS = 0.4  # share of defects that are long and thin
BLOT, SCAR, SCAR_WIDTH = (0.012, 0.16), (0.05, 0.4), (0.006, 0.02)  # half axes, of the smaller side
VISIBLE = 0.03  # of a change in brightness, the mean over 3×3 pixels, from which a pixel counts as defective
DARKER = 0.65  # share of the defects of another brightness that are darker
OPAQUE = 0.5  # share of defects through which nothing of the image shows


def plant(images: Tensor, share: float, others: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Plant defects in a share of the images, float (N, C, H, W) in [0, 1].

    others: of which parts are planted, one for each image, (N, C, H, W); else they are of the images
    The images with defects, (N, C, H, W), and where they can be seen, 0 or 1, float (N, 1, H, W).
    """
    chosen = torch.rand(len(images)) < share
    spoiled, covered = images.clone(), torch.zeros_like(images[:, :1])
    for i in range(DEFECTS):
        rows = torch.nonzero(chosen & (torch.rand(len(images)) < AGAIN) if i else chosen).flatten().to(images.device)
        if len(rows):  # no others, for what follows takes its time
            whole = spoiled[rows]
            opaque = torch.where(_uniform(whole, 0, 1) < OPAQUE, 1.0, _uniform(whole, 0.3, 1.0))
            cover = _shapes(whole) * opaque
            spoiled[rows] = torch.lerp(whole, _fillings(whole, None if others is None else others[rows]), cover)
            covered[rows] = torch.maximum(covered[rows], cover)
    change = functional.avg_pool2d((spoiled - images).abs().mean(dim=1, keepdim=True), 3, 1, 1)
    return spoiled, ((change > VISIBLE) & (covered > 0.1)).to(images.dtype)


def _shapes(images: Tensor) -> Tensor:
    """One irregular, turned and bent ellipse an image, its edge sharp or soft, (N, 1, H, W) in [0, 1]."""
    height, width = images.shape[-2:]
    side = min(height, width)
    y = torch.arange(height, device=images.device)[:, None] - _uniform(images, 0, height)  # (N, 1, H, 1)
    x = torch.arange(width, device=images.device) - _uniform(images, 0, width)  # (N, 1, 1, W)
    angle = _uniform(images, 0, 2 * math.pi)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()  # (N, 1, H, W)
    scar = _uniform(images, 0, 1) < SCARS
    length = torch.where(scar, _log_uniform(images, *SCAR), _log_uniform(images, *BLOT)) * side
    round_ = length * _log_uniform(images, 0.35, 1.0)
    breadth = torch.where(scar, _log_uniform(images, *SCAR_WIDTH) * side, round_).clamp_min(0.8)
    fine, coarse = _clouds(images, max(3, side // 40)), _clouds(images, max(6, side // 12))
    bend = 0.35 * torch.randn(len(images), 1, 1, 1, device=images.device)
    bent = across + bend * along.square() / length + 1.5 * scar * breadth * coarse
    distance = ((along / length).square() + (bent / breadth).square()).sqrt() + 0.25 * (fine + coarse * ~scar)
    edge = (1.5 * breadth * _uniform(images, 0, 1) ** 3).clamp_min(1.0)  # pixels; most are sharp
    return ((1 - distance) * breadth / edge).clamp(-1, 1) * 0.5 + 0.5


def _fillings(images: Tensor, others: Tensor | None) -> Tensor:
    """What fills a defect, (N, C, H, W): part of another image, another brightness, noise, or one flat value."""
    kinds = torch.randint(4, (len(images),))
    parts = images[torch.randperm(len(images)).to(images.device)] if others is None else others
    filled = torch.empty_like(images)
    for kind, (filling, of) in enumerate(((_moved, parts), (_tinted, images), (_grainy, images), (_flat, images))):
        rows = torch.nonzero(kinds == kind).flatten().to(images.device)
        if len(rows):
            filled[rows] = filling(of[rows])
    return filled.clamp(0, 1)


def _moved(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    moved = images.roll((int(torch.randint(height, ())), int(torch.randint(width, ()))), (2, 3))
    return moved.flip(2) if torch.rand(()) < 0.5 else moved


def _tinted(images: Tensor) -> Tensor:
    amount = _log_uniform(images, 0.08, 0.7)
    tint = _uniform(images, 0.5, 1.0, images.shape[1]) if images.shape[1] > 1 else 1.0  # so that stains have a colour
    darker, brighter = images * (1 - amount * tint), images + 0.8 * amount * tint * (1 - images)
    return torch.where(_uniform(images, 0, 1) < DARKER, darker, brighter)


def _grainy(images: Tensor) -> Tensor:
    local = functional.avg_pool2d(images, 9, 1, 4, count_include_pad=False)
    grain = _clouds(images, int(2 ** torch.randint(3, ()).item()), channels=images.shape[1])
    return local + grain * _log_uniform(images, 0.04, 0.3)


def _flat(images: Tensor) -> Tensor:
    return _uniform(images, 0, 1, images.shape[1]) + 0.03 * torch.randn_like(images)


def _clouds(images: Tensor, cell: int, channels: int = 1) -> Tensor:
    """Smooth noise of about variance 1 and a grain of `cell` pixels, (N, channels, H, W)."""
    height, width = images.shape[-2:]
    size = max(2, math.ceil(height / cell) + 1), max(2, math.ceil(width / cell) + 1)
    coarse = torch.randn(len(images), channels, *size, device=images.device)
    return functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)


def _uniform(images: Tensor, low: float, high: float, channels: int = 1) -> Tensor:
    """A number for each image, or each of its channels, (N, channels, 1, 1)."""
    return torch.rand(len(images), channels, 1, 1, device=images.device) * (high - low) + low


def _log_uniform(images: Tensor, low: float, high: float) -> Tensor:
    return _uniform(images, math.log(low), math.log(high)).exp()
