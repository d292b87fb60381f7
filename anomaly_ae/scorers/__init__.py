"""How anomalous an image is: the scorers, and the catalogue of their names."""

from dataclasses import dataclass

from anomaly_ae.errors import UnknownName, UsageError
from anomaly_ae.scorers.base import MapScorer, Passes, Scorer
from anomaly_ae.scorers.combination import Combination
from anomaly_ae.scorers.likelihood import NegativeELBO
from anomaly_ae.scorers.neighbours import LatentNeighbours
from anomaly_ae.scorers.reconstruction import AbsoluteError, Dissimilarity, RelativeError, SquaredError

__all__ = ["SCORERS", "Entry", "MapScorer", "Passes", "Scorer", "build_scorer"]


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue."""

    about: str
    build: type[Scorer]


SCORERS: dict[str, Entry] = {
    "mse": Entry("mean squared reconstruction error", SquaredError),
    "mae": Entry("mean absolute reconstruction error", AbsoluteError),
    "ssim": Entry("1 - structural similarity of image and reconstruction", Dissimilarity),
    "relative": Entry("blurred squared reconstruction error, relative to the image's energy", RelativeError),
    "elbo": Entry("negative evidence lower bound, for autoencoder vae", NegativeELBO),
    "latent-knn": Entry("distance to the nearest latent of a training image", LatentNeighbours),
}


def build_scorer(name: str) -> Scorer:
    """The scorer called `name`; names joined by `+` are combined. Raises `UnknownName`, `UsageError`."""
    parts = [part.strip() for part in name.split("+")]
    if "" in parts:
        raise UsageError(f"a scorer is a name, or names joined by +, and {name!r} has a part that is empty")
    for part in parts:
        if part not in SCORERS:
            raise UnknownName("scorer", part, [*SCORERS, "or several joined by +"])
    built = [SCORERS[part].build() for part in parts]
    return built[0] if len(built) == 1 else Combination(built)
