"""Score by distance to the nearest training images, after every part of the image was let move a little."""

import functools
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.inference import split_batches
from anomaly_ae.scorers.neighbors import FeatureNeighbors, distances, last_features, shrink
from anomaly_ae.scorers.scorer import ImageBatches, MapScorer
from anomaly_ae.storage.pixel_values import as_bytes
from anomaly_ae.storage.schema import TensorSpec

COMPARED_SIDE = 32  # pixels of the smaller side at which images are compared
REACH = 3 / 28  # how far a part may move, of the smaller side
CANDIDATES, FINALISTS, NEAREST = 64, 12, 3  # fit images compared at half the size, compared at the full one, counted
EDGE_ENERGY_FLOOR = 0.1  # keeps images that are almost empty from being divided by nothing
TOGETHER = 16  # images compared at a time, so that their maps stay in the processor's cache


class AlignedNeighbors(MapScorer):
    """`aligned-knn`: distance of the image's edges to those of the three nearest fit images, locally aligned.

    A deformation that leaves an image normal, a stroke a little longer or further left, hardly changes it; a stroke
    too many does. Each pixel's gradient is compared with the closest one within 3/28 of the side in the other image,
    in both directions: e(p) = min |∇x(p) - ∇y(q)|² over q near p, and likewise from y to x. The distance is
    sqrt(mean of e² over both) / (mean |∇x|² + mean |∇y|² + 0.1). The zero-order image distortion model of Keysers
    et al. 2007, https://doi.org/10.1109/TPAMI.2007.1153, made symmetric and relative to the edges there are.

    The 64 fit images nearest in the encoder's last feature map are compared at half the size, and the 12 best of them
    in full. Of the fit set at most 20,000 images are kept, the smaller side 32 pixels at the most, so that neither
    memory nor time grows further with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = FeatureNeighbors()

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        features, self.learned["images"] = fit_set.remember(
            last_features, lambda images, _: as_bytes(shrink(images, COMPARED_SIDE))
        )
        self.features.learn(features)

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        features = {f"features.{name}": spec for name, spec in self.features.specs(images, outputs).items()}
        return features | {"images": TensorSpec(("memories", *shrink(images, COMPARED_SIDE).shape[1:]), "U8")}

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        pairs = self._finalists(images, outputs)
        return torch.cat([_nearest(aligned_distance(*pair, _reach(pair[0]))) for pair in pairs])

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        """The errors against the nearest fit image, float32 (N, H, W): what the image has too much at its place, what
        it lacks where the fit image has it.
        """
        return self.score_and_map(images, outputs)[1]

    def score_and_map(self, images: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
        scores, maps = [], []
        for query, reference in self._finalists(images, outputs):
            errors = aligned_errors(query, reference, _reach(query))  # (H, W, N·K) each
            apart = _distance(errors, query, reference)  # (N, K)
            chosen = (
                torch.arange(apart.shape[0], device=apart.device),
                apart.argmin(dim=1),
            )  # no len, which a graph fixes
            # (H, W, N·K) -> (N, K, H, W) -> (N, H, W), in each direction
            there, back = (error.view(*reference.shape[1:]).permute(2, 3, 0, 1)[chosen] for error in errors)
            scores.append(_nearest(apart))
            maps.append(there + back)
        heat = torch.cat(maps).unsqueeze(1)
        return torch.cat(scores), functional.interpolate(heat, images.shape[-2:], mode="bilinear").squeeze(1)

    def _finalists(self, images: Tensor, outputs: Outputs) -> Iterator[tuple[Tensor, Tensor]]:
        """For some images at a time: their edges (2C, H, W, N, 1), and those of the closest fit images, (…, N, K)."""
        keys, memory = self.features.keys(images, outputs), self.features.learned["memory"]
        count = min(CANDIDATES, len(memory))
        candidates = distances(keys, memory).topk(count, dim=1, largest=False).indices  # (N, candidates)
        for queries, near in zip(
            split_batches(shrink(images, COMPARED_SIDE), TOGETHER), split_batches(candidates, TOGETHER), strict=True
        ):
            query, reference = edges(queries.unsqueeze(1)), edges(self.learned["images"][near])
            rough = aligned_distance(_half(query), _half(reference), max(1, _reach(query) // 2))  # (N, candidates)
            best = rough.topk(min(FINALISTS, count), dim=1, largest=False).indices
            yield query, reference.gather(4, best.expand(*reference.shape[:3], *best.shape))

    def state(self) -> dict[str, Tensor]:
        return self.learned | {f"features.{name}": value for name, value in self.features.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.learned = {"images": state["images"]}
        prefix = "features."
        self.features.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _nearest(apart: Tensor) -> Tensor:
    """The mean of the smallest distances, (N,), of (N, K)."""
    return apart.topk(min(NEAREST, apart.shape[1]), dim=1, largest=False).values.mean(dim=1)


def aligned_distance(query: Tensor, reference: Tensor, reach: int) -> Tensor:
    """Distances (N, K) of the edges of N images, float (2C, H, W, N, 1), to those of K others for each, (…, N, K)."""
    return _distance(aligned_errors(query, reference, reach), query, reference)


def _distance(errors: tuple[Tensor, Tensor], query: Tensor, reference: Tensor) -> Tensor:
    """Errors (H, W, N·K) in both directions as distances (N, K), relative to the edges there are."""
    forward, backward = errors
    size = (forward.square().mean(dim=(0, 1)) + backward.square().mean(dim=(0, 1))).sqrt()
    energy = query.square().mean(dim=(0, 1, 2)) + reference.square().mean(dim=(0, 1, 2))  # (N, K)
    return size.view_as(energy) / (energy + EDGE_ENERGY_FLOOR)


def aligned_errors(query: Tensor, reference: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Squared distance of each pixel to the closest within `reach` pixels in the other image, from query to reference
    and back, (H, W, N·K) each; edges as in `aligned_distance`.
    """
    a, b = (maps.expand_as(reference).flatten(3) for maps in (query, reference))  # (2C, H, W, N·K)
    if torch.compiler.is_exporting():
        return _errors_to_closest(a, b, reach), _errors_to_closest(b, a, reach)
    forward, backward, first, second = torch.full((4, *a.shape[1:]), torch.inf, device=a.device)
    for dy, dx in itertools.product(range(-reach, reach + 1), repeat=2):
        (rows, moved_rows), (columns, moved_columns) = _overlap(dy), _overlap(dx)
        error = _squared_distance(a[:, rows, columns], b[:, moved_rows, moved_columns], first, second)
        for best in (forward[rows, columns], backward[moved_rows, moved_columns]):
            torch.minimum(best, error, out=best)
    return forward, backward


def _errors_to_closest(a: Tensor, b: Tensor, reach: int) -> Tensor:
    """One direction of `aligned_errors`, (H, W, P), of two (2C, H, W, P), written into nothing, as graphs need it."""
    _, height, width, _ = a.shape
    around = functional.pad(b, (0, 0, *[reach] * 4), value=torch.inf)
    moves = range(2 * reach + 1)
    across = torch.stack([around[:, :, dx : dx + width] for dx in moves])  # (2·reach + 1, 2C, H + 2·reach, W, P)
    errors = ((a - across[:, :, dy : dy + height]).square().sum(dim=1).amin(dim=0) for dy in moves)
    return functools.reduce(torch.minimum, errors)


def edges(images: Tensor) -> Tensor:
    """Sobel's vertical and horizontal differences of every channel, with zeros beyond the border.

    Images, float or uint8 (N, K, C, H, W), become (2C, H, W, N, K): pairs that are compared lie side by side in
    memory, which makes this several times faster than a convolution.
    """
    maps = images.permute(2, 3, 4, 0, 1).contiguous().float()  # (C, H, W, N, K)
    maps = maps.div_(255) if images.dtype == torch.uint8 else maps
    padded = functional.pad(maps, (0, 0, 0, 0, 1, 1, 1, 1))
    tall = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]  # (C, H, W + 2, N, K)
    wide = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]  # (C, H + 2, W, N, K)
    return torch.cat([wide[:, 2:] - wide[:, :-2], tall[:, :, 2:] - tall[:, :, :-2]]).div_(4)


def _squared_distance(near: Tensor, far: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Squared distance over the channels, (H, W, P), of two (2C, H, W, P), written into buffers at least as large."""
    error, part = (buffer.view(-1)[: near[0].numel()].view(near.shape[1:]) for buffer in (first, second))
    torch.sub(near[0], far[0], out=error).square_()
    for channel in range(1, len(near)):
        torch.sub(near[channel], far[channel], out=part)
        error.addcmul_(part, part)
    return error


def _reach(maps: Tensor) -> int:
    """How far a pixel of maps (2C, H, W, …) may move."""
    return max(1, round(REACH * min(maps.shape[1:3])))


def _overlap(by: int) -> tuple[slice, slice]:
    """What two rows share when the second is moved by so many pixels: in the first, and in the second."""
    return slice(max(0, -by), -by if by > 0 else None), slice(max(0, by), by if by < 0 else None)


def _half(maps: Tensor) -> Tensor:
    """Maps (2C, H, W, N, K) at half the height and width, of neighbours the mean; an odd last line is left out."""
    height, width = (side // 2 * 2 for side in maps.shape[1:3])
    rows = maps[:, 0:height:2] + maps[:, 1:height:2]
    return (rows[:, :, 0:width:2] + rows[:, :, 1:width:2]).div_(4)
