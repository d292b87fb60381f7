"""What every scorer is. A score is higher for the more anomalous image, and has no upper bound."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.storage.schema import TensorSpec

FEWEST = 5  # pixels of a heat map that decide
# Calling it starts a fresh pass over a set of images: batches of images, float (B, C, H, W), and outputs.
BatchFactory = Callable[[], Iterable[tuple[Tensor, Outputs]]]


class Scorer(ABC):
    """Turns images and what the network made of them into scores."""

    def __init__(self) -> None:
        self.learned: dict[str, Tensor] = {}

    def fit(self, fit_set: BatchFactory, validation_set: BatchFactory) -> None:
        """Learn from normal images: memories from the fit set, scales from the validation set."""

    def check(self, outputs: Outputs) -> None:
        """Raise `UsageError` when the network's outputs lack what the score needs."""

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        """What `state` has after `fit`, by an image (1, C, H, W) and its outputs, whatever their values."""
        return {}

    @abstractmethod
    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        """Scores, float32 (N,), of images, float (N, C, H, W) in [0, 1], and their outputs."""

    def iter_parts(self) -> "Iterator[Scorer]":
        """This scorer, or for a combination each of its parts."""
        yield self

    def state(self) -> dict[str, Tensor]:
        """What `fit` has learned, to be saved."""
        return dict(self.learned)

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what another scorer of this kind has learned."""
        self.learned = dict(state)


class MapScorer(Scorer):
    """A scorer that can say where; unless it says otherwise, its score is the mean of the highest values of its heat
    map: of `top_share` of the pixels, all by default, so that no single pixel decides.
    """

    top_share = 1.0

    @abstractmethod
    def heat_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        """The part of each pixel in the score, float32 (N, H, W)."""

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        return top_mean(self.heat_map(images, outputs), self.top_share)


def top_mean(maps: Tensor, share: float) -> Tensor:
    """Mean of the highest `share`, in (0, 1], of the pixels of each map (N, H, W), a few at the least; (N,)."""
    if share == 1:
        return maps.mean(dim=(1, 2))
    flat = maps.flatten(1)
    count = max(min(FEWEST, flat.shape[1]), round(share * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(dim=1)
