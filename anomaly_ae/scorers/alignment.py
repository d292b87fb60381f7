"""Score by distance to the nearest training images, after every part of the image was let move a little."""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.inference import split_batches
from anomaly_ae.scorers.neighbors import FeatureNeighbors, last_features, shrink
from anomaly_ae.scorers.scorer import ImageBatches, MapScorer
from anomaly_ae.storage.pixel_values import as_bytes
from anomaly_ae.storage.schema import TensorSpec

COMPARED_SIDE = 32  # pixels of the smaller side at which images are compared
REACH = 3 / 28  # how far a part may move, of the smaller side
CANDIDATES, FINALISTS, NEAREST = 32, 6, 3  # fit images compared at half the size, compared at the full one, counted
EDGE_ENERGY_FLOOR = 0.1  # keeps images that are almost empty from being divided by nothing
TOGETHER = 16  # images compared at a time, so that their maps stay in the processor's cache
AT_ONCE = 1_024  # fit images whose edges are found at a time
STEEPEST = 4 * 255  # what Sobel's differences of bytes can be
LARGEST = torch.iinfo(torch.int16).max


class Edges(NamedTuple):
    """Edges of images as whole numbers, int8 (M, 2C, H + r, W + r), with zeros below and to the right as far as a
    pixel may move, and the same at half the height and width.
    """

    full: Tensor
    half: Tensor

    @classmethod
    def of(cls, images: Tensor) -> "Edges":
        """Those of images, uint8 (M, C, H, W)."""
        maps, scale = sobel(images), steps(images.shape[1]) / STEEPEST
        sizes = zip((maps, _half(maps)), reaches(images), strict=True)
        return cls(*(functional.pad((size * scale).round().to(torch.int8), (0, by, 0, by)) for size, by in sizes))


class Compared(NamedTuple):
    """Of N images and K others for each: their distances, float (N, K), and the squared distance of each pixel to the
    closest in the other image, in whole numbers, (N, K, H, W) in each direction.
    """

    distances: Tensor
    forward: Tensor
    backward: Tensor


class AlignedNeighbors(MapScorer):
    """`aligned-knn`: distance of the image's edges to those of the three nearest fit images, locally aligned.

    A deformation that leaves an image normal, a stroke a little longer or further left, hardly changes it; a stroke
    too many does. Each pixel's gradient is compared with the closest one within 3/28 of the side in the other image,
    in both directions: e(p) = min |∇x(p) - ∇y(q)|² over q near p, and likewise from y to x. The distance is
    sqrt(mean of e² over both) / (mean |∇x|² + mean |∇y|² + 0.1). The zero-order image distortion model of Keysers
    et al. 2007, https://doi.org/10.1109/TPAMI.2007.1153, made symmetric and relative to the edges there are. Beyond
    the border there are none.

    The 32 fit images nearest in the encoder's last feature map are compared at half the size, and the 6 best of them
    in full. Of the fit set at most 20,000 images are kept, the smaller side 32 pixels at the most, so that neither
    memory nor time grows further with it. Edges are whole numbers as large as a squared distance in 16 bits allows,
    so that twice as many as floats are compared at a time, and exactly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = FeatureNeighbors()
        self._remembered: Edges | None = None  # those of the images, once they are needed

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        features, self.learned["images"] = fit_set.remember(
            last_features, lambda images, _: as_bytes(shrink(images, COMPARED_SIDE))
        )
        self.features.learn(features)
        self._remembered = None

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        features = {f"features.{name}": spec for name, spec in self.features.specs(images, outputs).items()}
        return features | {"images": TensorSpec(("memories", *shrink(images, COMPARED_SIDE).shape[1:]), "U8")}

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        return torch.cat([_nearest(compared.distances) for compared in self._compare(images, outputs)])

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        """The errors against the nearest fit image, float32 (N, H, W): what the image has too much at its place, what
        it lacks where the fit image has it.
        """
        return self.score_and_map(images, outputs)[1]

    def score_and_map(self, images: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
        scores, maps = [], []
        for apart, *errors in self._compare(images, outputs):
            # no len, which a graph fixes
            nearest = torch.arange(apart.shape[0], device=apart.device), apart.argmin(dim=1)
            there, back = (each[nearest].float() for each in errors)  # (N, K, H, W) -> (N, H, W)
            scores.append(_nearest(apart))
            maps.append((there + back) / steps(images.shape[1]) ** 2)
        heat = torch.cat(maps).unsqueeze(1)
        return torch.cat(scores), functional.interpolate(heat, images.shape[-2:], mode="bilinear").squeeze(1)

    def _compare(self, images: Tensor, outputs: Outputs) -> Iterator[Compared]:
        """Some images at a time, with the closest fit images."""
        candidates = self.features.nearest(images, outputs, CANDIDATES)  # (N, candidates)
        queries = as_bytes(shrink(images, COMPARED_SIDE))
        for some, near in zip(split_batches(queries, TOGETHER), split_batches(candidates, TOGETHER), strict=True):
            query, (reach, less) = Edges.of(some), reaches(some)
            rough = compare(query.half, self._recall("half", near), less).distances  # (N, candidates)
            best = near.gather(1, rough.topk(min(FINALISTS, near.shape[1]), dim=1, largest=False).indices)
            yield compare(query.full, self._recall("full", best), reach)

    def _recall(self, size: str, indices: Tensor) -> Tensor:
        """The edges of the fit images at some indices (N, K), int8 (N, K, 2C, …)."""
        images = self.learned["images"]
        if torch.compiler.is_exporting():  # a graph that held them would be the larger for it
            maps: Tensor = getattr(Edges.of(images[indices].flatten(0, 1)), size)
            return maps.view(*indices.shape, *maps.shape[1:])
        if self._remembered is None:
            parts = [Edges.of(part) for part in torch.split(images, AT_ONCE)]
            self._remembered = Edges(*(torch.cat(maps) for maps in zip(*parts, strict=True)))
        remembered: Tensor = getattr(self._remembered, size)[indices]
        return remembered

    def state(self) -> dict[str, Tensor]:
        return self.learned | {f"features.{name}": value for name, value in self.features.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.learned, self._remembered = {"images": state["images"]}, None
        prefix = "features."
        self.features.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _nearest(apart: Tensor) -> Tensor:
    """The mean of the smallest distances, (N,), of (N, K)."""
    return apart.topk(min(NEAREST, apart.shape[1]), dim=1, largest=False).values.mean(dim=1)


def steps(channels: int) -> int:
    """How many whole numbers there are from no edge to the steepest one, so that squared distances over all channels,
    twice as many differences of up to twice that, fit into 16 bits.
    """
    return math.isqrt(LARGEST // (2 * channels)) // 2


def sobel(images: Tensor) -> Tensor:
    """Sobel's vertical and horizontal differences of every channel of bytes (M, C, H, W), with zeros beyond the
    border: float (M, 2C, H, W), whole numbers up to `STEEPEST`.
    """
    padded = functional.pad(images.float(), (1, 1, 1, 1))
    tall = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]  # (M, C, H, W + 2)
    wide = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]  # (M, C, H + 2, W)
    return torch.cat([wide[:, :, 2:] - wide[:, :, :-2], tall[..., 2:] - tall[..., :-2]], dim=1)


def _half(maps: Tensor) -> Tensor:
    """Maps (M, 2C, H, W) at half the height and width, of neighbours the mean; an odd last line is left out."""
    height, width = (side // 2 * 2 for side in maps.shape[2:])
    rows = maps[:, :, 0:height:2] + maps[:, :, 1:height:2]
    return (rows[..., 0:width:2] + rows[..., 1:width:2]) / 4


def compare(query: Tensor, reference: Tensor, reach: int) -> Compared:
    """The edges of N images, one of `Edges`, compared with those of K others for each, (N, K, 2C, …), each pixel with
    those within a circle of `reach` pixels.
    """
    ours, channels, (height, width) = query.unsqueeze(1), query.shape[1], (side - reach for side in query.shape[2:])
    forward, backward = (
        errors[..., :height, :width] for errors in _to_closest(ours.expand_as(reference), reference, reach)
    )
    size, scale = math.sqrt(height * width), steps(channels // 2) ** 2
    apart = (_squares(forward) + _squares(backward)).sqrt() / (size * scale)  # (N, K)
    energy = (_squares(ours) + _squares(reference)) / (size**2 * channels * scale)
    return Compared(apart / (energy + EDGE_ENERGY_FLOOR), forward, backward)


def _squares(numbers: Tensor) -> Tensor:
    """The sum of the squares for each pair, float (N, K), of whole numbers (N, K, …)."""
    return numbers.float().square().sum(dim=tuple(range(2, numbers.ndim)))


def _to_closest(a: Tensor, b: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Squared distance of each pixel of a, int8 (N, K, 2C, H + r, W + r), to the closest within `reach` in b, and of
    b in a, (N, K, H + r, W + r) each, of no use beyond the images.

    All images lie one after the other in a row of numbers, with zeros between their rows, so that another pixel is as
    far away for all of them: a move is a place where the row is read from.
    """
    if torch.compiler.is_exporting():
        return _closest_in_graph(a, b, reach), _closest_in_graph(b, a, reach)
    width, margin = a.shape[-1], reach * (a.shape[-1] + 1)  # as far as a move leads
    first, second = (  # (2C, …), with a margin at both ends, and one around that to look for what is closest there
        functional.pad(maps.movedim(2, 0).flatten(1).to(torch.int16), (2 * margin, 2 * margin)) for maps in (a, b)
    )
    start, stop = margin, first.shape[1] - margin
    here, backward = first[:, start:stop], torch.full_like(second[0], LARGEST)
    forward, error, part = torch.full_like(here[0], LARGEST), torch.empty_like(here[0]), torch.empty_like(here[0])
    for down, right in _moves(reach):
        there = slice(start + down * width + right, stop + down * width + right)
        torch.sub(here[0], second[0, there], out=error).mul_(error)  # `square_` of whole numbers is slow
        for channel in range(1, len(first)):
            torch.sub(here[channel], second[channel, there], out=part)
            error.addcmul_(part, part)
        for best in (forward, backward[there]):
            torch.minimum(best, error, out=best)
    images = a[:, :, 0]
    return forward[margin:-margin].view_as(images), backward[2 * margin : -2 * margin].view_as(images)


def _closest_in_graph(a: Tensor, b: Tensor, reach: int) -> Tensor:
    """One direction of `_to_closest` as floats, written into nothing, as graphs need it."""
    around = functional.pad(b.float(), (reach, reach, reach, reach))
    height, width = a.shape[3:]
    errors = (
        (a - around[..., reach + down :, reach + right :][..., :height, :width]).square().sum(dim=2)
        for down, right in _moves(reach)
    )
    return functools.reduce(torch.minimum, errors)


def reaches(images: Tensor) -> tuple[int, int]:
    """How far a pixel of images (…, H, W) may move, and how far at half the size."""
    reach = max(1, round(REACH * min(images.shape[-2:])))
    return reach, max(1, reach // 2)


def _moves(reach: int) -> list[tuple[int, int]]:
    """Rows and columns to all pixels within a circle."""
    sides = range(-reach, reach + 1)
    return [(down, right) for down in sides for right in sides if down**2 + right**2 <= reach**2]
