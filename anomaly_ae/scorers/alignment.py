"""Score by distance to the nearest training images, after every part of the image was let move a little."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.inference import split_batches
from anomaly_ae.objectives.aligned import COMPARED_SIDE, EDGE_ENERGY_FLOOR, REACH, STRONGEST, sobel
from anomaly_ae.scorers.edges import EDGES_AT_ONCE, EdgeRows, brightness, half, usual_step
from anomaly_ae.scorers.neighbors import Neighbors, PrincipalNeighbors, last_features, nearest_rows
from anomaly_ae.scorers.scorer import ImageBatches, MapScorer
from anomaly_ae.storage.schema import TensorSpec

CANDIDATES, FINALISTS, NEAREST = 96, 12, 3  # fit images compared at half the size, compared at the full one, counted
TOGETHER = 64 * 28 * 28  # values of images compared at a time on a CPU, so that their rows stay in its cache
WORKING_OUT = threading.Lock()  # held while edges are, which others who need them at the same time wait for

Scale = Callable[[Tensor, Tensor], EdgeRows]  # edges as `sobel` gives them, (2C, N, H, W), and a step -> in steps


class AlignedNeighbors(MapScorer):
    """`aligned-knn`: distance of the image's edges to those of the three nearest fit images, locally aligned.

    A deformation that leaves an image normal, a stroke a little longer or further left, hardly changes it; a stroke
    too many does. Each pixel's gradient is compared with the closest one within 3/28 of the side in the other image,
    in both directions: e(p) = min ‖∇x(p) - ∇y(q)‖ over q near p, and likewise from y to x, by the largest difference
    of a component. The distance is sqrt(mean of e⁴ over both) / (mean |∇x|² + mean |∇y|² + 0.1). Gradients are in
    whole steps, 63 of which are the strongest usual one in the fit images, or one level of brightness at the least.
    The zero-order image distortion model of Keysers et al. 2007, https://doi.org/10.1109/TPAMI.2007.1153, made
    symmetric and relative to the edges there are.

    The 96 fit images nearest in the encoder's last feature map are compared at half the size, and the 12 best of them
    in full. Of the fit set at most 20,000 images are kept, the smaller side 32 pixels at the most, so that neither
    memory nor time grows further with it.
    """

    reads_reconstruction = False

    def __init__(self) -> None:
        super().__init__()
        self.features: Neighbors = PrincipalNeighbors()
        self._kept: dict[Scale, EdgeRows] = {}  # edges of what is remembered, worked out when they are first needed

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        features, images = fit_set.remember(
            last_features, lambda images, _: brightness(images, COMPARED_SIDE).round().to(torch.uint8)
        )
        self.learned, self._kept = {"images": images, "step": usual_step(images)}, {}
        nearest = PrincipalNeighbors()
        nearest.learn(features)
        self.features = nearest

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        features = {f"features.{name}": spec for name, spec in self.features.specs(images, outputs).items()}
        compared = brightness(images, COMPARED_SIDE).shape[1:]
        return features | {"images": TensorSpec(("memories", *compared), "U8"), "step": TensorSpec(())}

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        return torch.cat([_nearest(aligned_distance(*pair)) for pair in self._finalists(images, outputs)])

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        """The errors against the nearest fit image, float32 (N, H, W): what the image has too much at its place, what
        it lacks where the fit image has it.
        """
        return self.score_and_map(images, outputs)[1]

    def score_and_map(self, images: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
        scores, maps = [], []
        for query, reference in self._finalists(images, outputs):
            errors = errors_to_closest(query, reference)  # (N, K, L) each
            apart = _distance(errors, query, reference)  # (N, K)
            scores.append(_nearest(apart))
            # no len, which a graph fixes
            nearest = torch.arange(apart.shape[0], device=apart.device), apart.argmin(dim=1)
            # (N, K, L) -> (N, L) -> (N, H, W), in each direction
            there, back = (reference.as_maps(each[nearest]).to(apart.dtype) for each in errors)
            maps.append((there.square() + back.square()) * reference.unit.square())
        heat = functional.interpolate(torch.cat(maps).unsqueeze(1), images.shape[-2:], mode="bilinear")
        return torch.cat(scores), heat.squeeze(1)

    def _finalists(self, images: Tensor, outputs: Outputs) -> Iterator[tuple[EdgeRows, EdgeRows]]:
        """For some images at a time: their edges, (N,), and those of the closest fit images, (N, K)."""
        step, memory = self.learned["step"], self.features.learned["memory"]
        count = min(CANDIDATES, len(memory))
        candidates = nearest_rows(self.features.keys(images, outputs), memory, count)
        compared = brightness(images, COMPARED_SIDE)
        together = max(1, TOGETHER // compared[0].numel()) if images.device.type == "cpu" else len(images)
        for some, near in zip(split_batches(compared, together), split_batches(candidates, together), strict=True):
            edges = sobel(some)
            rough = aligned_distance(half_size(edges, step), self._nearby(near, half_size))  # (N, candidates)
            best = rough.topk(min(FINALISTS, count), dim=1, largest=False).indices
            yield full_size(edges, step), self._nearby(near.gather(1, best), full_size)

    def _nearby(self, near: Tensor, scale: Scale) -> EdgeRows:
        """Edges, at one scale, of the fit images with these indices (N, K)."""
        images, step = self.learned["images"], self.learned["step"]
        if torch.compiler.is_exporting():
            return scale(sobel(images[near.flatten()].float()), step).shaped(near.shape)
        with WORKING_OUT:
            if scale not in self._kept:
                parts = torch.split(images, EDGES_AT_ONCE)
                self._kept[scale] = EdgeRows.joined([scale(sobel(part.float()), step) for part in parts])
        return self._kept[scale].take(near)

    def state(self) -> dict[str, Tensor]:
        return self.learned | {f"features.{name}": value for name, value in self.features.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.learned, self._kept = {name: state[name] for name in ("images", "step")}, {}
        prefix = "features."
        self.features.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}  # a copy, or another process, works it out again


def full_size(edges: Tensor, step: Tensor) -> EdgeRows:
    """Edges (2C, N, H, W) in steps."""
    return EdgeRows.of(edges, step, _reach(edges))


def half_size(edges: Tensor, step: Tensor) -> EdgeRows:
    """The same at half the height and width."""
    return EdgeRows.of(half(edges), step, max(1, _reach(edges) // 2))


def _reach(edges: Tensor) -> int:
    """How far a pixel may move that has edges (…, H, W)."""
    return max(1, round(REACH * min(edges.shape[-2:])))


def _nearest(apart: Tensor) -> Tensor:
    """The mean of the smallest distances, (N,), of (N, K)."""
    return apart.topk(min(NEAREST, apart.shape[1]), dim=1, largest=False).values.mean(dim=1)


def aligned_distance(query: EdgeRows, reference: EdgeRows) -> Tensor:
    """Distances (N, K) of N images to K others for each, by the edges (N,) and (N, K)."""
    return _distance(errors_to_closest(query, reference), query, reference)


def _distance(errors: Sequence[Tensor], query: EdgeRows, reference: EdgeRows) -> Tensor:
    """Errors (N, K, L) in both directions as distances (N, K), relative to the edges there are."""
    there, back = (_fourth_powers(error, reference.energy.dtype) for error in errors)
    energy = query.energy.unsqueeze(1) + reference.energy
    size = ((there + back) / (reference.height * reference.width)).sqrt() * reference.unit.square()
    return size / (energy + EDGE_ENERGY_FLOOR)


def _fourth_powers(errors: Tensor, dtype: torch.dtype) -> Tensor:
    """Their sum over the last dimension."""
    powers = errors.to(dtype, copy=True)
    return powers.mul_(powers).mul_(powers).sum(dim=-1)


def errors_to_closest(query: EdgeRows, reference: EdgeRows) -> tuple[Tensor, Tensor]:
    """How far the edge of each pixel is from the closest within reach in the other image, in steps: from N images to
    K others for each, and back, int8 (N, K, L) both; 0 where rows have no pixel.
    """
    a, b, moves = query.values.unsqueeze(2), reference.values, reference.moves  # (2C, N, 1, L), (2C, N, K, L)
    if torch.compiler.is_exporting():
        return _closest(a, b, moves), _closest(b, a, moves)
    # All images in one row, with zeros before and after it: to move them is to read it from elsewhere on.
    furthest, shape = moves[-1], b.shape[1:]
    count = furthest + shape.numel()
    here, there = b.new_zeros(len(b), count), b.new_zeros(len(b), count + 2 * furthest)
    here[:, furthest:].view(b.shape).copy_(a.expand_as(b))
    there[:, 2 * furthest : -furthest].view(b.shape).copy_(b)
    forward, backward = (torch.full_like(each[0], 2 * STRONGEST) for each in (here, there))
    apart, largest = torch.empty_like(here), torch.empty_like(forward)
    one, other = apart if len(apart) == 2 else (largest, largest)
    for moved, back in zip(reference.moved(there, count), reference.moved(backward, count), strict=True):
        torch.sub(here, moved, out=apart).abs_()
        if other is largest:
            torch.amax(apart, dim=0, out=largest)
        # at most what was found before, else the larger of the two
        torch.clamp(one, other, forward, out=forward)
        torch.clamp(one, other, back, out=back)
    return forward[furthest:].view(shape), backward[2 * furthest : -furthest].view(shape)


def _closest(a: Tensor, b: Tensor, moves: Sequence[int]) -> Tensor:
    """One direction of `errors_to_closest`, (N, K, L), of rows (2C, N, …, L), written into nothing, as graphs need
    it.
    """
    furthest, length = moves[-1], a.shape[-1]
    around = functional.pad(b, (furthest, furthest))
    moved = (around[..., furthest + move : furthest + move + length] for move in moves)
    return functools.reduce(torch.minimum, ((a - each).abs().amax(dim=0) for each in moved))
