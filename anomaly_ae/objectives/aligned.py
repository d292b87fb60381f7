"""An objective by edges that may be a little out of place, as scorers compare them that align images."""

import functools
import itertools

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs

COMPARED_SIDE = 32  # pixels of the smaller side at which images are compared
REACH = 3 / 28  # how far a part may move, of the smaller side
STRONGEST = 63  # steps of an edge, in either direction, so that the difference of two fits a byte
EDGE_ENERGY_FLOOR = 0.1  # keeps images that are almost empty from being divided by nothing
ROOT_FLOOR = 1e-8  # keeps the root's slope finite where nothing differs


def aligned(images: Tensor, outputs: Outputs) -> Tensor:
    """Mean distance of the images' edges to those of their reconstructions, each pixel's to the closest within 3/28
    of the side in the other image, in both directions: sqrt(mean of e⁴ over both) / (2 · mean |∇x|² + 0.1), where
    e(p) = min ‖∇x(p) - ∇x̂(q)‖ over q near p, and likewise from x̂ to x.

    So a decoder need not blur a stroke whose exact place it does not know: what is drawn stays sharp, and may be a
    little elsewhere. It is the distance that `aligned-prototypes` ranks by, but that there the largest difference of
    a component decides. Images are compared with a smaller side of 32 pixels at the most.
    """
    image, drawn = (_edges(_shrunk(each)) for each in (images, outputs.reconstruction))
    there, back = _errors(image, drawn), _errors(drawn, image)
    size = (there.square() + back.square()).mean(dim=(1, 2)).add(ROOT_FLOOR).sqrt()
    return (size / (2 * image.square().sum(dim=0).mean(dim=(1, 2)) + EDGE_ENERGY_FLOOR)).mean()


def _errors(edges: Tensor, others: Tensor) -> Tensor:
    """Squared distance of each pixel's edge to the closest within reach in the other image, (N, H, W)."""
    reach = max(1, round(REACH * min(edges.shape[-2:])))
    padded = functional.pad(others, (reach,) * 4).flatten(2)  # (2C, N, L)
    at = _closest(edges.detach(), others.detach(), reach).flatten(1).expand(len(edges), -1, -1)
    return (edges - padded.gather(2, at).view_as(edges)).square().sum(dim=0)


def _closest(edges: Tensor, others: Tensor, reach: int) -> Tensor:
    """Where the closest edge within reach is, (N, H, W), in the other image with a border of so many pixels."""
    moves = list(itertools.product(range(2 * reach + 1), repeat=2))
    # In whole steps, times the number of moves: what is added says which of them it was, and decides between equals.
    here, there = ((STRONGEST * each).round().to(torch.int16) * len(moves) for each in (edges, others))
    padded = functional.pad(there, (reach,) * 4)
    height, width = here.shape[-2:]
    least = torch.full_like(here[0], torch.iinfo(torch.int16).max)
    for number, (down, right) in enumerate(moves):
        apart = (here - padded[..., down : down + height, right : right + width]).abs_()  # (2C, N, H, W)
        torch.minimum(least, functools.reduce(torch.maximum, apart).add_(number), out=least)
    stride = width + 2 * reach
    starts = torch.tensor([down * stride + right for down, right in moves], device=here.device)
    rows, columns = (torch.arange(side, device=here.device) for side in (height, width))
    return starts[(least % len(moves)).long()] + rows[:, None] * stride + columns


def _edges(images: Tensor) -> Tensor:
    """Vertical and horizontal differences, with zeros beyond the border, of images (N, C, H, W) in [0, 1]: float
    (2C, N, H, W), from -1 to 1.
    """
    return sobel(images) / 4


def _shrunk(images: Tensor) -> Tensor:
    """The images at a smaller side of `COMPARED_SIDE` pixels at the most."""
    height, width = images.shape[-2:]
    scale = COMPARED_SIDE / min(height, width)
    return (
        images
        if scale >= 1
        else functional.adaptive_avg_pool2d(images, (round(height * scale), round(width * scale)))
    )


def sobel(images: Tensor) -> Tensor:
    """Sobel's vertical and horizontal differences of every channel, with zeros beyond the border.

    Of images, float32 (N, C, H, W), in [0, M]; float32 (2C, N, H, W), from -4M to 4M.
    """
    padded = functional.pad(images.transpose(0, 1), (1, 1, 1, 1))  # (C, N, H + 2, W + 2)
    tall = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]  # (C, N, H, W + 2)
    wide = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]  # (C, N, H + 2, W)
    return torch.cat([wide[..., 2:, :] - wide[..., :-2, :], tall[..., 2:] - tall[..., :-2]])
