"""Scores by distance to what was seen in training."""

import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers.base import Passes, Scorer

MOST_MEMORIES = 20_000  # latents kept; an even sample of the fit set where it has more


class LatentNeighbours(Scorer):
    """`latent-knn`: Euclidean distance from the latent to the nearest latent of a fit image."""

    def fit(self, fit_set: Passes, validation_set: Passes) -> None:
        latents = torch.cat([outputs.latent for _, outputs in fit_set()])  # (N, D)
        count = min(len(latents), MOST_MEMORIES)
        kept = torch.linspace(0, len(latents) - 1, count, dtype=torch.float64).long()
        self.learned["memory"] = latents[kept.to(latents.device)]

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        # Not by matrix product, whose rounding makes small distances depend on the batch.
        mode = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(outputs.latent, self.learned["memory"], compute_mode=mode)  # (N, memories)
        return distances.amin(dim=1)
