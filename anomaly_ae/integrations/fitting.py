"""From rows to a detector: the stages of a training, without files."""

import dataclasses
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from anomaly_ae.autoencoders import AUTOENCODERS, Shape, find_autoencoder, image_size
from anomaly_ae.autoencoders.inference import pick_device
from anomaly_ae.calibration.conformal import images_needed, smallest_rate
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.feature_rows import RowLayout, Rows, Scale
from anomaly_ae.datasets.splits import Part, Split, split_rows
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.fit import fit_detector
from anomaly_ae.detector.serialization import Recipe
from anomaly_ae.errors import TooFewRows
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.preprocessing import Preprocessing, resize
from anomaly_ae.objectives import build_objective
from anomaly_ae.runtime.torch_state import left_as_found, spinning
from anomaly_ae.scorers import build_scorer
from anomaly_ae.training import Training, train_epochs

FEATURES: dict[str, Any] = {"autoencoder": "multilayer", "scorer": "mse+latent-knn"}  # for rows that are no pictures
FEW_VALUES = 128  # values, from which a latent of 64 is narrow
SPARE = 2  # calibration scores that may lie at the threshold or above: by the highest alone it would vary more
ROWS, NORMAL = "rows", "normal"  # the names of a data set that has none, and of its class


def fill(config: RunConfig, layout: RowLayout) -> RunConfig:
    """The config with what suits such images where nothing was said. Raises `UnknownName`."""
    usual = {} if layout.is_picture else FEATURES
    own = {name: value for name, value in usual.items() if getattr(config, name) is None}
    config = dataclasses.replace(config, **own).filled()
    network = find_autoencoder(str(config.autoencoder))
    latent = config.latent or _narrow(str(config.autoencoder), layout)
    objective = config.objective or network.objective
    return dataclasses.replace(config, latent=latent, objective=objective, defects=network.defects)


def fit_rows(rows: Rows, layout: RowLayout, config: RunConfig) -> tuple[Detector, Scale]:
    """A detector of rows (N, D), 3 at the least, and the scale that brings rows to the [0, 1] it takes.

    config: filled. With too few rows for its rate, the threshold is set for the smallest that they can hold, and the
    warning `TooFewRows` says so, a `RuntimeWarning` where torch's threads will be slow beside other programs. What
    torch draws elsewhere stays as it was. Raises `UsageError`, `TrainingError`.
    """
    parts = split_rows(len(rows), config.seed, images_needed(config.target_fpr / SPARE))
    rate = _possible_rate(config.target_fpr, len(parts[2]), len(rows))
    scale = Scale.of(rows[torch.cat(parts[:2]).numpy()], layout.is_picture)  # the calibration has no say in it
    preprocessing = Preprocessing.for_shape(_seen_shape(str(config.autoencoder), layout))
    split, images = _divide(to_images(rows, layout, scale, preprocessing), parts)
    recipe = _recipe(config)
    device = pick_device(config.device)
    if device.type == "cpu" and (reason := spinning()):
        warnings.warn(reason, RuntimeWarning, stacklevel=3)  # whoever called the estimator's fit
    with left_as_found():
        best = _train(recipe, config, images["fit"].images, images["validation"].images).best
        return fit_detector(recipe, preprocessing, best, images, split, rate, device), scale


def to_images(rows: Rows, layout: RowLayout, scale: Scale, preprocessing: Preprocessing) -> Tensor:
    """Rows (N, D) as a detector's network sees them, (N, C, H, W): uint8, or float32, [0, 1] for what is usual."""
    images = layout.images(scale.apply(rows))
    return resize(images, (preprocessing.height, preprocessing.width))


def _narrow(autoencoder: str, layout: RowLayout) -> int | None:
    """A latent size that keeps a dense network from copying its few inputs; None for the architecture's own."""
    is_dense = AUTOENCODERS[autoencoder].family == "dense"
    values = math.prod(layout.shape)
    return max(1, values // 2) if is_dense and values < FEW_VALUES else None


def _possible_rate(target_fpr: float, calibrating: int, count: int) -> float:
    """The rate asked for, or the smallest that so many of `count` rows can hold, and a warning."""
    smallest = smallest_rate(calibrating)
    if target_fpr >= smallest:
        return target_fpr
    warnings.warn(
        f"a false-alarm rate of {target_fpr:g} needs {images_needed(target_fpr):,} samples to set the threshold "
        f"with, and twice as many in all, and {count:,} were given: it is set for a rate of {smallest:g}; fit more "
        "samples, or ask for a higher target_fpr",
        TooFewRows,
        stacklevel=4,  # whoever called the estimator's fit
    )
    return smallest


def _seen_shape(autoencoder: str, layout: RowLayout) -> Shape:
    """Channels, height and width of what the network sees: pictures at its size, features as they are."""
    channels, height, width = layout.shape
    return (channels, *image_size(autoencoder, None, (height, width))) if layout.is_picture else layout.shape


def _divide(images: Tensor, parts: tuple[Tensor, ...]) -> tuple[Split, dict[str, ImageSet]]:
    """The record of which image went where, with a test part that is empty, and the images of the other parts."""
    dataset = Dataset(ROWS, (NORMAL,), {"train": ImageSet(images, torch.zeros(len(images), dtype=torch.int64))})
    nothing = torch.zeros(0, dtype=torch.int64)
    split = Split(*(Part.of(dataset, "train", positions) for positions in (*parts, nothing)))
    return split, {name: getattr(split, name).take(dataset) for name in ("fit", "validation", "calibration")}


def _recipe(config: RunConfig) -> Recipe:
    names = str(config.autoencoder), str(config.scorer)
    build_scorer(names[1])  # an unknown name is said before the training
    return Recipe(ROWS, (NORMAL,), (NORMAL,), *names, latent=config.latent)


def _train(recipe: Recipe, config: RunConfig, fit: Tensor, validation: Tensor) -> Training:
    """Train a network on images (N, C, H, W)."""
    torch.manual_seed(config.seed)
    shape = fit.shape[1], fit.shape[2], fit.shape[3]
    training = Training(recipe.build(shape).to(pick_device(config.device)), config)
    for _ in train_epochs(training, build_objective(str(config.objective)), fit, validation):
        pass
    return training
