"""From trained weights to a detector: its scorer fitted, its threshold set."""

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anomaly_ae.autoencoders import Autoencoder
from anomaly_ae.autoencoders.inference import (
    exact_float32,
    forward_batches,
    map_images,
)
from anomaly_ae.calibration.conformal import Calibration, alarms_allowed, p_value_levels
from anomaly_ae.datasets.splits import Split
from anomaly_ae.detector.serialization import (
    Recipe,
)
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.statistics import Profile
from anomaly_ae.scorers import Scorer, build_scorer
from anomaly_ae.scorers.neighbors import sample
from anomaly_ae.storage.memmap import take_rows

if TYPE_CHECKING:
    pass
from anomaly_ae.detector.detector import Detector

REFERENCES = 500  # images by which it is told which others are unusual


def fit_detector(
    recipe: Recipe,
    preprocessing: Preprocessing,
    weights: dict[str, Tensor],
    images: dict[str, ImageSet],
    split: Split,
    target_fpr: float,
    device: torch.device,
) -> Detector:
    """Make a detector of trained weights: fit the scorer on `images["fit"]` and `["validation"]`, calibrate on
    `["calibration"]`.

    Raises `CalibrationError` when there are too few calibration images for `target_fpr`.
    """
    network = recipe.build(preprocessing.shape)
    network.load_state_dict(weights)
    network.to(device).eval()
    known = images["fit"].images, images["validation"].images
    scorer = fit_scorer(recipe.scorer, network, *known, recipe.trim_training, recipe.top_share)
    scores = map_images(network, images["calibration"].images, scorer.score, ())
    calibration = Calibration(scores, target_fpr, names=images["calibration"].names)
    profile = Profile.of(images["fit"].images)
    detector = Detector(recipe, preprocessing, network, scorer, calibration, split, profile)
    return dataclasses.replace(detector, heat_level=_heat_level(detector, images["calibration"].images))


def _heat_level(detector: Detector, images: Tensor) -> float | None:
    """What the heat maps of no more calibration images exceed than the target rate allows; None without maps."""
    some = images[sample(len(images), REFERENCES)]
    if detector.map_scorer is None:
        return None
    maps = map_images(detector.network, some, detector.map_scorer.heat_map, detector.preprocessing.shape[1:])
    rank = max(1, alarms_allowed(p_value_levels(len(some)), detector.calibration.target_fpr))
    return float(maps.flatten(1).amax(dim=1).topk(rank).values[-1])


def fit_scorer(
    name: str,
    network: Autoencoder,
    fit: Tensor,
    validation: Tensor,
    trimmed: float = 0.0,
    top_share: float | None = None,
) -> Scorer:
    """The scorer called `name`, fitted to what a network makes of images, uint8 (N, C, H, W).

    trimmed: the share of the fit images, those that score highest among the others, that it does not get to see
    Raises `UnknownName`, and `UsageError` when the network's outputs lack what it needs.
    """
    if trimmed and len(fit) > 1:
        fit = take_rows(fit, _usual(name, network, fit, validation, trimmed))
    scorer = build_scorer(name, top_share)
    with torch.inference_mode(), exact_float32(next(network.parameters()).device.type):
        _, outputs = next(iter(forward_batches(network, fit[:1])))
        for part in scorer.iter_parts():
            part.check(outputs)
        scorer.fit(lambda: forward_batches(network, fit), lambda: forward_batches(network, validation))
    return scorer


def _usual(name: str, network: Autoencoder, fit: Tensor, validation: Tensor, trimmed: float) -> Tensor:
    """Positions of the fit images but for the share `trimmed` with the highest scores.

    Each half is scored by what was learned from some of the other half, for nothing is novel to a memory that holds
    it; some, for what is rare must not find many of its kind there.
    """
    scores = torch.empty(len(fit))
    for half in range(2):
        others = fit[1 - half :: 2]
        scorer = fit_scorer(name, network, others[sample(len(others), REFERENCES)], validation)
        scores[half::2] = map_images(network, fit[half::2], scorer.score, ())
    return scores.topk(len(fit) - round(trimmed * len(fit)), largest=False).indices.sort().values
