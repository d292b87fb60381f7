"""Several scorers as one."""

from collections.abc import Iterator

import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers.scorer import ImageBatches, Parts, Scorer
from anomaly_ae.storage.schema import TensorSpec

LEAST_SCORE = 1e-12  # keeps the log of a perfect reconstruction finite


class Combination(Parts):
    """`a+b`: mean over the parts of (log s - μ) / σ, with μ and σ those of log s on the validation normals."""

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
        return standardised.mean(dim=1)

    def _logs(self, images: Tensor, outputs: Outputs) -> Tensor:
        """log s of each part, (N, parts)."""
        return torch.stack([part.score(images, outputs) for part in self.parts], dim=1).clamp_min(LEAST_SCORE).log()

    def iter_parts(self) -> Iterator[Scorer]:
        for part in self.parts:
            yield from part.iter_parts()
