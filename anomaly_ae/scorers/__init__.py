"""How anomalous an image is: the scorers, and the catalogue of their names."""

from dataclasses import dataclass

from anomaly_ae.config.weighted_sum import parse_weighted_sum
from anomaly_ae.errors import UsageError
from anomaly_ae.scorers.alignment import AlignedNeighbors
from anomaly_ae.scorers.baselines import IsolationForest, OneClassSVM, PrincipalComponents
from anomaly_ae.scorers.combination import Combination, PlaceCombination
from anomaly_ae.scorers.fold_scorer import fold_scorer
from anomaly_ae.scorers.neighbors import FeatureNeighbors, LatentNeighbors, PixelNeighbors
from anomaly_ae.scorers.patches import PatchNeighbors
from anomaly_ae.scorers.prototypes import AlignedPrototypes
from anomaly_ae.scorers.reconstruction import AbsoluteError, Dissimilarity, NegativeELBO, RelativeError, SquaredError
from anomaly_ae.scorers.restoration import RestorationError
from anomaly_ae.scorers.scorer import ImageBatches, MapScorer, PlaceScorer, Scorer
from anomaly_ae.scorers.surface import ContrastError, DefectProbability, FeatureError, GradientError

__all__ = ["SCORERS", "ImageBatches", "MapScorer", "Scorer", "ScorerEntry", "build_scorer", "find_scorers"]


@dataclass(frozen=True)
class ScorerEntry:
    """A line of the catalogue."""

    about: str
    build: type[Scorer]


SCORERS: dict[str, ScorerEntry] = {
    "mse": ScorerEntry("mean squared reconstruction error", SquaredError),
    "mae": ScorerEntry("mean absolute reconstruction error", AbsoluteError),
    "ssim": ScorerEntry("1 - structural similarity of image and reconstruction", Dissimilarity),
    "relative": ScorerEntry("blurred squared reconstruction error, relative to the image's energy", RelativeError),
    "contrast": ScorerEntry(
        "reconstruction error after contrast normalisation about each pixel; worst 1 %", ContrastError
    ),
    "gradient": ScorerEntry("reconstruction error of the gradients; worst 1 %", GradientError),
    "defect": ScorerEntry(
        "what autoencoder repair or feature-conv holds for a defect; worst 0.1 %", DefectProbability
    ),
    "restoration": ScorerEntry(
        "relative error of images given back from gray and turned copies, for objective restore", RestorationError
    ),
    "feature-error": ScorerEntry(
        "error of the features given back, for autoencoder feature-conv; worst 0.3 %", FeatureError
    ),
    "patch-knn": ScorerEntry(
        "squared distance of each patch's features to the nearest in training; worst 1 %", PatchNeighbors
    ),
    "elbo": ScorerEntry("negative evidence lower bound, for autoencoder vae", NegativeELBO),
    "latent-knn": ScorerEntry("distance to the nearest latent of a training image", LatentNeighbors),
    "feature-knn": ScorerEntry("distance to the nearest last feature map of a training image", FeatureNeighbors),
    "aligned-knn": ScorerEntry(
        "distance to the edges of the nearest training images, locally aligned", AlignedNeighbors
    ),
    "aligned-prototypes": ScorerEntry(
        "distance to the edges of the nearest of what the decoder draws, locally aligned",
        AlignedPrototypes,
    ),
    "pixel-knn": ScorerEntry("distance to the nearest training image; baseline without learning", PixelNeighbors),
    "pca": ScorerEntry("error of the reconstruction from 32 principal components; baseline", PrincipalComponents),
    "isolation-forest": ScorerEntry("isolation forest on pixels; baseline", IsolationForest),
    "one-class-svm": ScorerEntry("one-class support vector machine on pixels; baseline", OneClassSVM),
}


def find_scorers(name: str, top_fraction: float | None = None) -> list[type[Scorer]]:
    """The scorers in a name, which may be several joined by `+`, each with a weight, as in `a+2*b`.

    top_fraction: as for `build_scorer`. Raises `UnknownName`, `UsageError`.
    """
    scorers = [SCORERS[part].build for _, part in _parse(name)]
    if top_fraction and not any(map(_is_top_mean, scorers)):
        raise UsageError(
            "top_fraction is for scorers that are the mean of a heat map, as mse, contrast and defect are"
        )
    return scorers


def build_scorer(name: str, top_fraction: float | None = None, folds: int | None = None) -> Scorer:
    """The scorer called `name`; names joined by `+` are combined, by place where all of them go by places.

    top_fraction: of the heat map, whose highest values are the score, in place of each scorer's own
    folds: of the network that it scores by
    Raises `UnknownName`, `UsageError`.
    """
    if folds:
        return fold_scorer([build_scorer(name, top_fraction) for _ in range(folds)])
    built = [kind() for kind in find_scorers(name, top_fraction)]
    for each in built:
        if top_fraction and isinstance(each, MapScorer) and _is_top_mean(type(each)):
            each.top_fraction = top_fraction
    if len(built) == 1:
        return built[0]
    weights = [weight for weight, _ in _parse(name)]
    by_place = [each for each in built if isinstance(each, PlaceScorer)]
    return PlaceCombination(by_place, weights) if len(by_place) == len(built) else Combination(built, weights)


def _parse(name: str) -> list[tuple[float, str]]:
    """Weights and names. Raises `UnknownName`, `UsageError`."""
    if not all(part.strip() for part in name.split("+")):
        raise UsageError(f"a scorer is a name, or names joined by +, and {name!r} has a part that is empty")
    return parse_weighted_sum("scorer", name, SCORERS, "feature-error+2*patch-knn")


def _is_top_mean(kind: type[Scorer]) -> bool:
    """Whether a scorer is the mean of the highest of some values, and nothing of its own."""
    return issubclass(kind, MapScorer) and kind.score is MapScorer.score
