"""Scores by distance to what was seen in training."""

import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers.base import Passes, Scorer

MOST_MEMORIES = 20_000  # latents kept; an even sample of the fit set where it has more
MOST_DIMENSIONS = 256  # of a latent; larger ones, which are maps, are projected at random to so many


class LatentNeighbours(Scorer):
    """`latent-knn`: Euclidean distance from the latent to the nearest latent of a fit image.

    A random projection keeps distances to within a few per cent: Johnson and Lindenstrauss 1984,
    https://doi.org/10.1090/conm/026/737400
    """

    def fit(self, fit_set: Passes, validation_set: Passes) -> None:
        latents = torch.cat([self._projected(outputs.latent) for _, outputs in fit_set()])  # (N, D)
        count = min(len(latents), MOST_MEMORIES)
        kept = torch.linspace(0, len(latents) - 1, count, dtype=torch.float64).long()
        self.learned["memory"] = latents[kept.to(latents.device)]

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        # Not by matrix product, whose rounding makes small distances depend on the batch.
        mode = "donot_use_mm_for_euclid_dist"
        latents = self._projected(outputs.latent)
        distances = torch.cdist(latents, self.learned["memory"], compute_mode=mode)  # (N, memories)
        return distances.amin(dim=1)

    def _projected(self, latents: Tensor) -> Tensor:
        """Latents (N, D) as they are, or with `MOST_DIMENSIONS` where they have more."""
        size = latents.shape[1]
        if size <= MOST_DIMENSIONS:
            return latents
        if "projection" not in self.learned:
            draws = torch.randn(size, MOST_DIMENSIONS, generator=torch.Generator().manual_seed(0))
            self.learned["projection"] = (draws / MOST_DIMENSIONS**0.5).to(latents.device)
        return latents @ self.learned["projection"]
