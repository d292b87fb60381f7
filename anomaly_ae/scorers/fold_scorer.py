"""The scorers of several networks, each trained without one fold of the images, as one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers.scorer import MapScorer, Parts, Scorer


class FoldScorer(Parts[Scorer]):
    """The lowest of the scores that K scorers give an image, each by the network of its fold: what is anomalous is so
    whichever normal images were learned from. Each learns by itself, without its fold (`fit_scorer`).

    Of jackknife-minmax, Barber et al. 2021, https://doi.org/10.1214/20-AOS1965, which has a proven guarantee.
    """

    def check(self, outputs: Outputs) -> None:
        for part in self.parts[0].iter_parts():
            part.check(outputs.members[0])

    def seen_by_parts(self, outputs: Outputs) -> Sequence[Outputs]:
        return outputs.members

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        pairs = zip(self.parts, outputs.members, strict=True)
        return torch.stack([part.score(images, own) for part, own in pairs]).amin(dim=0)


class FoldMapScorer(FoldScorer, MapScorer):
    """The same of scorers with heat maps, or with a part that has one: of each pixel the lowest."""

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        pairs = zip(map(map_part, self.parts), outputs.members, strict=True)
        return torch.stack([part.anomaly_map(images, own) for part, own in pairs if part]).amin(dim=0)

    def score_and_map(self, images: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
        pairs = zip(self.parts, outputs.members, strict=True)
        scores, maps = zip(*(score_and_map(part, images, own) for part, own in pairs), strict=True)
        return torch.stack(scores).amin(dim=0), torch.stack(maps).amin(dim=0)


def fold_scorer(parts: Sequence[Scorer]) -> FoldScorer:
    """K scorers of one kind as one."""
    return FoldMapScorer(parts) if map_part(parts[0]) else FoldScorer(parts)


def map_part(scorer: Scorer) -> MapScorer | None:
    """The scorer, or its first part, that has a heat map, if there is one."""
    return next((part for part in scorer.iter_parts() if isinstance(part, MapScorer)), None)


def score_and_map(scorer: Scorer, images: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
    """The scores, (N,), and the maps of the part that has them, (N, H, W), of a scorer that has such a part."""
    if isinstance(scorer, MapScorer):
        return scorer.score_and_map(images, outputs)
    mapping = map_part(scorer)
    assert mapping is not None
    return scorer.score(images, outputs), mapping.anomaly_map(images, outputs)
