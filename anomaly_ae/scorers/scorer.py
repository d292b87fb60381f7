"""What every scorer is. A score is higher for the more anomalous image, and has no upper bound."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Autoencoder, Outputs
from anomaly_ae.autoencoders.inference import map_images
from anomaly_ae.storage.schema import TensorSpec, prefixed

FEWEST_PIXELS = 5  # pixels of a heat map that decide
MOST_MEMORIES = 20_000  # images of which something is kept, an even sample where there are more


def sample(count: int, most: int | None = None) -> Tensor:
    """Even indices among `count` images, int64, as many as may be remembered unless another number is given."""
    most = MOST_MEMORIES if most is None else most
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).long()


@dataclass(frozen=True)
class ImageBatches:
    """A set of images to go through in batches, float (B, C, H, W) in [0, 1], each with what the network makes of it.

    count: of all images
    start: begins to go through them; the network is run anew each time
    decode: images, float (M, C, H, W) in [0, 1] on the CPU, that the network makes of latents (M, D)
    """

    count: int
    start: Callable[[], Iterable[tuple[Tensor, Outputs]]]
    decode: Callable[[Tensor], Tensor]

    def __iter__(self) -> Iterator[tuple[Tensor, Outputs]]:
        return iter(self.start())

    def remember(self, *reads: Callable[[Tensor, Outputs], Tensor], most: int | None = None) -> list[Tensor]:
        """What each of `reads`, which give (B, …) of a batch, has of an even sample of the images, (M, …): they are
        gone through once, and no more than that is ever held.
        """
        wanted, kept, first = sample(self.count, most), [list[Tensor]() for _ in reads], 0
        for images, outputs in self:
            here = wanted[(wanted >= first) & (wanted < first + len(images))] - first
            for values, read in zip(kept, reads, strict=True):
                values_read = read(images, outputs)
                values.append(values_read[here.to(values_read.device)])
            first += len(images)
        return [torch.cat(values) for values in kept]


class Scorer(ABC):
    """Turns images and what the network made of them into scores."""

    reads_reconstruction: bool = True  # without, it may be handed the outputs of `Autoencoder.undecoded`

    def __init__(self) -> None:
        self.learned: dict[str, Tensor] = {}

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        """Learn from normal images: memories from the fit set, scales from the validation set."""

    def check(self, outputs: Outputs) -> None:
        """Raise `UsageError` when the network's outputs lack what the score needs."""

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        """What `state` has after `fit`, by an image (1, C, H, W) and its outputs, whatever their values; one that
        learns must name here all that it learns, or it could not be loaded.
        """
        return {}

    @abstractmethod
    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        """Scores, float32 (N,), of images, float (N, C, H, W) in [0, 1], and their outputs."""

    def score_all(self, network: Autoencoder, images: Tensor, whole: bool = False) -> Tensor:
        """Scores, float32 (N,), on the CPU, of images, (N, C, H, W) uint8 or float in [0, 1], that a network sees.

        whole: see `map_jointly`
        """
        return map_images(network, images, self.score, whole=whole, decoded=self.reads_reconstruction)

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
    """A scorer that can say where; unless it says otherwise, its score is the mean of the highest of the values that
    decide, which are its heat map: of `top_fraction` of them, all by default, so that no single pixel decides.
    """

    top_fraction = 1.0

    @abstractmethod
    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        """The part of each pixel in the score, float32 (N, H, W)."""

    def map_all(self, network: Autoencoder, images: Tensor) -> Tensor:
        """`anomaly_map`, on the CPU, of images, (N, C, H, W) uint8 or float in [0, 1], that a network sees."""
        return map_images(network, images, self.anomaly_map, decoded=self.reads_reconstruction)

    def deciding(self, images: Tensor, outputs: Outputs) -> Tensor:
        """The values whose highest are the score, float32 (N, h, w)."""
        return self.anomaly_map(images, outputs)

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        return top_mean(self.deciding(images, outputs), self.top_fraction)

    def score_and_map(self, images: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """`score` and `anomaly_map`, bit for bit, with their common work done once; a scorer with a score of its own
        has its own of this.
        """
        heat = self.anomaly_map(images, outputs)
        return top_mean(heat, self.top_fraction), heat


class PlaceScorer(MapScorer):
    """A map scorer with one value for each place of the feature maps: the score goes by these, and the heat map has
    them enlarged.
    """

    @abstractmethod
    def places(self, outputs: Outputs) -> Tensor:
        """The value of each place, float32 (N, h, w)."""

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        return _enlarged(self.places(outputs), images)

    def deciding(self, images: Tensor, outputs: Outputs) -> Tensor:
        return self.places(outputs)

    def score_and_map(self, images: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
        places = self.places(outputs)
        return top_mean(places, self.top_fraction), _enlarged(places, images)


def _enlarged(places: Tensor, images: Tensor) -> Tensor:
    """Values of places, (N, h, w), at the size of images, (N, H, W)."""
    return functional.interpolate(places[:, None], images.shape[-2:], mode="bilinear").squeeze(1)


Part = TypeVar("Part", bound=Scorer)


class Parts(Scorer, Generic[Part]):
    """A scorer made of others, all of a kind."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.parts = list(parts)
        self.reads_reconstruction = any(part.reads_reconstruction for part in parts)

    def seen_by_parts(self, outputs: Outputs) -> Sequence[Outputs]:
        """What each part goes by."""
        return [outputs] * len(self.parts)

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        pairs = zip(self.parts, self.seen_by_parts(outputs), strict=True)
        each = [prefixed(f"{i}.", part.specs(images, own)) for i, (part, own) in enumerate(pairs)]
        return {name: spec for specs in each for name, spec in specs.items()}

    def state(self) -> dict[str, Tensor]:
        parts = {f"{i}.{key}": v for i, part in enumerate(self.parts) for key, v in part.state().items()}
        return self.learned | parts

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.learned = {key: value for key, value in state.items() if "." not in key}
        for i, part in enumerate(self.parts):
            prefix = f"{i}."
            part.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def top_mean(maps: Tensor, share: float) -> Tensor:
    """Mean of the highest `share`, in (0, 1], of the pixels of each map (N, H, W), a few at the least; (N,)."""
    if share == 1:
        return maps.mean(dim=(1, 2))
    flat = maps.flatten(1)
    count = max(min(FEWEST_PIXELS, flat.shape[1]), round(share * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(dim=1)
