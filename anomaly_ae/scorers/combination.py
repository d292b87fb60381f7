"""Several scorers as one."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers.scorer import ImageBatches, Parts, PlaceScorer, Scorer
from anomaly_ae.storage.schema import TensorSpec

LEAST_SCORE = 1e-12  # keeps the log of a perfect reconstruction finite
AROUND = 3 / 16  # of the smaller side of a map, how far what lies about a place reaches each way


class Combination(Parts[Scorer]):
    """`a+b`: mean over the parts of (log s - μ) / σ, with μ and σ those of log s on the validation normals; weighted
    where the name says so, as in `a+2*b`.
    """

    def __init__(self, parts: Sequence[Scorer], weights: Sequence[float]) -> None:
        super().__init__(parts)
        self.weights = [weight / sum(weights) for weight in weights]

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        for part in self.parts:
            part.fit(fit_set, validation_set)
        logs = torch.cat([self._logs(images, outputs) for images, outputs in validation_set])  # (N, parts)
        spread = logs.std(dim=0, correction=0)
        self.learned = {"centre": logs.mean(dim=0), "spread": torch.where(spread > 0, spread, 1.0)}

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        each = (len(self.parts),)
        own = {"centre": TensorSpec(each), "spread": TensorSpec(each, positive=True)}
        return own | super().specs(images, outputs)

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        standardised = (self._logs(images, outputs) - self.learned["centre"]) / self.learned["spread"]
        return standardised @ standardised.new_tensor(self.weights)

    def _logs(self, images: Tensor, outputs: Outputs) -> Tensor:
        """log s of each part, (N, parts)."""
        return torch.stack([part.score(images, outputs) for part in self.parts], dim=1).clamp_min(LEAST_SCORE).log()

    def iter_parts(self) -> Iterator[Scorer]:
        for part in self.parts:
            yield from part.iter_parts()


class PlaceCombination(Parts[PlaceScorer], PlaceScorer):
    """`a+b` of scorers that go by places: the sum of their values of each place, divided by what each scores the
    validation normals on the average, and set off against what lies about the place (`peaks`). So the heat map is
    that of the score, and few validation images are enough. The score is the mean of as large a share of the
    highest places as that of the first part.
    """

    def __init__(self, parts: Sequence[PlaceScorer], weights: Sequence[float]) -> None:
        super().__init__(parts)
        self.weights = weights
        self.top_fraction = parts[0].top_fraction

    def check(self, outputs: Outputs) -> None:
        for part in self.parts:
            part.check(outputs)

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        for part in self.parts:
            part.fit(fit_set, validation_set)
        scores = [
            torch.stack([part.score(images, outputs) for part in self.parts], dim=1)
            for images, outputs in validation_set
        ]
        self.learned["usual"] = torch.cat(scores).mean(dim=0).clamp_min(LEAST_SCORE)

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        return {"usual": TensorSpec((len(self.parts),), positive=True)} | super().specs(images, outputs)

    def places(self, outputs: Outputs) -> Tensor:
        each = [
            weight * part.places(outputs)[:, None] / usual
            for part, weight, usual in zip(self.parts, self.weights, self.learned["usual"], strict=True)
        ]
        finest = max((values.shape[2:] for values in each), key=math.prod)
        return peaks(torch.stack([functional.interpolate(v, finest, mode="bilinear") for v in each]).sum(dim=0)[:, 0])


def peaks(maps: Tensor) -> Tensor:
    """Maps (N, h, w) of values of at least 0, each divided by the square root of the mean about it: a small defect is
    a peak, and what is high all over the image counts still, but less.
    """
    reach = max(1, round(AROUND * min(maps.shape[1:])))
    about = maps[:, None]
    for down, right in ((reach, 0), (0, reach)):  # one after the other, which is far less work than a square
        box = 2 * down + 1, 2 * right + 1
        about = functional.avg_pool2d(about, box, 1, (down, right), count_include_pad=False)
    return maps / about[:, 0].clamp_min(LEAST_SCORE).sqrt()
