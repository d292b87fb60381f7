"""Score by distance to what the network draws of what is usual: a reconstruction error without a memory of images."""

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.objectives.aligned import COMPARED_SIDE
from anomaly_ae.scorers.alignment import NEAREST, AlignedNeighbors
from anomaly_ae.scorers.edges import brightness, usual_step
from anomaly_ae.scorers.neighbors import SAME, LatentNeighbors, distances
from anomaly_ae.scorers.scorer import MOST_MEMORIES, ImageBatches, sample

PROTOTYPES = 256
ROUNDS = 15  # of k-means, after which the means hardly move
MOST_LATENT_VALUES = 2**24  # of the fit set's latents that are looked at, which decides how many if they are large
LATENT_POWER = 0.5  # of the latents' distance in the score


class AlignedPrototypes(AlignedNeighbors):
    """`aligned-prototypes`: as `aligned-knn`, with images that the decoder draws in place of fit images.

    An autoencoder that learned many kinds of images reconstructs what it never saw as well, so that the error misses
    it. Here the latent is brought back to what is usual before it is decoded: to the nearest of 256 means of the fit
    images' latents, by k-means (Lloyd 1982, https://doi.org/10.1109/TIT.1982.1056489). What the decoder draws of
    these is kept, and no image. The 96 prototypes nearest by latent are compared at half the size, and the 12 best of
    them in full. The score is the mean distance of the edges to those of the three nearest, times the square root of
    the latent's mean distance to the three nearest means.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = LatentNeighbors()

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        _, outputs = next(iter(validation_set))
        most = min(MOST_MEMORIES, max(PROTOTYPES, MOST_LATENT_VALUES // outputs.latent.shape[1]))
        latents, images = fit_set.remember(lambda _, out: out.latent, lambda images, _: _compared(images), most=most)
        means = means_of(latents, PROTOTYPES)
        drawn = fit_set.decode(means).to(images.device)
        self.learned, self._kept = {"images": _compared(drawn), "step": usual_step(images)}, {}
        self.features.learned = {}
        self.features.learned["memory"] = self.features.project(means)

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        return super().score(images, outputs) * self._unusual(images, outputs)

    def score_and_map(self, images: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
        apart, maps = super().score_and_map(images, outputs)
        return apart * self._unusual(images, outputs), maps

    def _unusual(self, images: Tensor, outputs: Outputs) -> Tensor:
        """How far the latents are from the nearest means, (N,), as a factor of the score."""
        keys, means = self.features.keys(images, outputs), self.features.learned["memory"]
        nearest = distances(keys, means).topk(min(NEAREST, len(means)), dim=1, largest=False).indices  # (N, 3)
        # once more without a matrix product, as in `to_nearest`
        apart = (keys.unsqueeze(1) - means[nearest]).square().sum(dim=2).sqrt().mean(dim=1)
        return torch.maximum(apart, SAME * keys.square().sum(dim=1).sqrt()) ** LATENT_POWER


def means_of(latents: Tensor, count: int) -> Tensor:
    """`count` means, float32 (count, D), by Lloyd's k-means, of latents (M, D); all of them where there are fewer. A
    mean that is nearest to none stays where it is.
    """
    means = latents[sample(len(latents), count).to(latents.device)]
    for _ in range(ROUNDS):
        nearest = functional.one_hot(distances(latents, means).argmin(dim=1), len(means)).float()  # (M, count)
        sizes = nearest.sum(dim=0).unsqueeze(1)
        means = torch.where(sizes > 0, nearest.T @ latents / sizes.clamp_min(1), means)
    return means


def _compared(images: Tensor) -> Tensor:
    """Images, float (N, C, H, W) in [0, 1], as they are compared, uint8."""
    return brightness(images, COMPARED_SIDE).round().to(torch.uint8)
