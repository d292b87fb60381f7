"""Score by patches: how far what a network sees about each pixel is from all it saw in training."""

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.feature_conv import SEEN
from anomaly_ae.autoencoders.inference import split_batches
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scorers.neighbors import to_nearest
from anomaly_ae.scorers.scorer import ImageBatches, PlaceScorer, sample
from anomaly_ae.storage.schema import TensorSpec

MAPS, FINEST = 2, 0.3  # feature maps compared: so many, from the first of at most this share of the image's height on
MOST_PATCHES = 100_000  # looked at to choose those remembered, however many images there were
MEMORIES = 1_000  # of these, that are remembered
DIRECTIONS = 32  # random ones, by which they are chosen
PATCHES_AT_ONCE = 4_096  # patches compared with all of these, so that their distances fit into memory


class PatchNeighbors(PlaceScorer):
    """`patch-knn`: squared distance of the features about each place to the nearest that any of a fit image had.

    Two feature maps of the encoder, of a quarter and an eighth of the image's size, each the mean over 3×3
    neighbours, side by side at the size of the larger, every channel less its mean and divided by its deviation. In
    the manner of PatchCore, Roth et al. 2022, https://arxiv.org/abs/2106.08265, with features that were learned here;
    or those of the backbone of `feature-conv`, four neighbouring ones as one. Of an even sample the patches are
    remembered that are least like each other.
    """

    reads_reconstruction = False
    top_fraction = 0.01

    def check(self, outputs: Outputs) -> None:
        if not outputs.features:
            raise UsageError(
                "scorer patch-knn needs feature maps, which this network has none of; take "
                f"{setting('autoencoder', 'conv')} or repair, and no {setting('tile')}"
            )

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        kept = []
        for _, outputs in fit_set:
            rows = _rows(_patches(outputs))
            of_these = -(-MOST_PATCHES * len(outputs.latent) // fit_set.count)
            kept.append(rows[sample(len(rows), of_these).to(rows.device)])
        memory = torch.cat(kept)  # (M, D)
        self.learned["centre"], self.learned["spread"] = (
            memory.mean(dim=0),
            memory.std(dim=0, correction=0).clamp_min(1e-6),
        )
        patches = self._standardise(memory)
        self.learned["memory"] = patches[_unlike(patches, MEMORIES)]

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        channels = _patches(outputs).shape[1]
        moments = {"centre": TensorSpec((channels,)), "spread": TensorSpec((channels,), positive=True)}
        return moments | {"memory": TensorSpec(("memories", channels))}

    def places(self, outputs: Outputs) -> Tensor:
        patches, memory = _patches(outputs), self.learned["memory"]
        keys = self._standardise(_rows(patches))  # (N·h·w, D)
        parts = split_batches(keys, PATCHES_AT_ONCE)
        nearest = torch.cat([to_nearest(part, memory) for part in parts])
        return nearest.square().view(-1, *patches.shape[2:])

    def _standardise(self, rows: Tensor) -> Tensor:
        return (rows - self.learned["centre"]) / self.learned["spread"]


def _patches(outputs: Outputs) -> Tensor:
    """Features about each place, (N, D, h, w)."""
    height = FINEST * outputs.reconstruction.shape[2]
    maps = [each for each in outputs.features if each.shape[2] <= height][:MAPS] or outputs.features[-1:]
    if SEEN in outputs.heads:
        return functional.avg_pool2d(maps[0], 2, ceil_mode=True)  # of means over neighbours already
    means = [functional.avg_pool2d(each, 3, 1, 1, count_include_pad=False) for each in maps]
    return torch.cat([functional.interpolate(each, means[0].shape[2:], mode="bilinear") for each in means], dim=1)


def _rows(patches: Tensor) -> Tensor:
    """(N, D, h, w) to (N·h·w, D)."""
    return patches.permute(0, 2, 3, 1).flatten(0, 2)


def _unlike(rows: Tensor, count: int) -> Tensor:
    """Indices of so many rows (N, D), each the one farthest from all before it, as seen in a few random directions.

    The greedy k-centre of Sener and Savarese 2018, https://arxiv.org/abs/1708.00489, on projections as in PatchCore.
    """
    directions = torch.randn(rows.shape[1], DIRECTIONS, generator=torch.Generator().manual_seed(0))
    seen = rows @ directions.to(rows.device)
    squares = seen.square().sum(dim=1)
    distance, chosen = torch.full_like(seen[:, 0], torch.inf), [torch.zeros((), dtype=torch.int64).to(rows.device)]
    for _ in range(min(count, len(rows)) - 1):
        last = chosen[-1]
        distance = torch.minimum(distance, squares - 2 * (seen @ seen[last]) + squares[last])
        chosen.append(distance.argmax())
    return torch.stack(chosen)
