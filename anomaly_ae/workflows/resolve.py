"""From what was asked to an experiment and its images: every check is passed before anything is written."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from anomaly_ae.autoencoders.inference import pick_device
from anomaly_ae.config.presets import AUTO, DEFAULT, SURFACE
from anomaly_ae.config.run_config import CROSS, MARGINAL, RunConfig
from anomaly_ae.datasets.catalogue import Data, normal_classes, open_data, whole_name
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.datasets.splits import SPLIT_PARTS, Split
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment, check_names, fill_defaults, say_what_prototypes_lack
from anomaly_ae.detector.fit import MARKED_NORMAL, in_folds
from anomaly_ae.errors import DataChanged, ModelError
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.objectives.perceptual import Features, encoder_features, torchvision_features
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import expand
from anomaly_ae.training import epoch_count
from anomaly_ae.workflows.division import Division, Looking, View
from anomaly_ae.workflows.find_model import find_model
from anomaly_ae.workflows.more_normals import MoreNormals

PHOTO_SIDE, MOST_PHOTOS = 128, 5_000  # pixels of the smaller side from which, and up to how many, pictures are photos


@dataclass(frozen=True)
class TrainingData:
    """The images of a training.

    images: by part of the split, at the network's size
    record: what split.json has of it
    marks:  those that some of the images were marked with, as a file has them
    """

    split: Split
    images: dict[str, ImageSet]
    record: dict[str, Any]
    marks: bytes = b""


def resolve(
    config: RunConfig, home: RunStore, begun: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Experiment, TrainingData]:
    """Look up every name, load and divide the data. Raises whatever is wrong with them.

    begun: the split record of a training that is gone on with, whose pictures are taken whatever has come since
    The experiment's config says what was left open: the number of epochs, the latent size, what is black and white,
    and where the data lie.
    """
    config = dataclasses.replace(config, dataset=whole_name(config.dataset, config.data_dir))
    check_names(fill_defaults(config))
    perceptual = _locate_features(config.perceptual, home)
    data, asked = open_data(config.dataset, config.data_dir), Looking.find(config, begun)
    config = fill_defaults(_with_preset(config, data, asked.roi))
    config = dataclasses.replace(
        config,
        normal=config.normal or data.normal or "",
        data_dir=data.place,
        perceptual=perceptual,
        roi=asked.setting,
    )
    device = pick_device(config.device)
    is_begun = isinstance(data, PictureData) and "pictures" in begun
    view = View.of_record(begun) if is_begun else View.find(config, data, asked)
    features = _features(perceptual, view.preprocessing, device)
    seen = view.preprocessing, view.classes, view.normal, features
    experiment = Experiment.build(config, *seen)  # what does not go together is said before the images are read
    say_what_prototypes_lack([str(config.scorer)], str(config.autoencoder))
    division = Division.of_record(config, data, view, begun) if is_begun else Division.draw(config, data, view)
    guarantee = CROSS if division.folds else config.guarantee or MARGINAL
    if division.folds:
        config = dataclasses.replace(config, guarantee=guarantee, folds=division.folds)
        experiment = Experiment.build(config, *seen)
    images = {part: division.take(part) for part in SPLIT_PARTS}
    split = division.split.with_hashes(images)
    record = dict(begun) if is_begun else division.record(split)
    if division.folds:
        images = in_folds(images)
    marks = b""
    if config.from_run:
        more = MoreNormals.find(config, home, begun)
        if any(record[key] != more.run.split.get(key) for key in ("digest", "parts")):
            raise DataChanged(f"the data are not those that run {config.from_run} was trained on; use that data")
        more.continue_from(experiment)
        images, split = more.add_to(images, config), split.with_copies(more.hashes())
        record[MARKED_NORMAL], marks = more.record(), more.read
    trained_on = experiment.network.learners(experiment.network.copies * len(images["fit"]))[0][1]
    intensity = view.preprocessing.intensity
    config = dataclasses.replace(
        experiment.config,
        guarantee=guarantee,
        target_fpr=division.rate,
        intensity=None if intensity is None else intensity.setting,
        epochs=epoch_count(experiment.config, len(trained_on)),
    )
    return dataclasses.replace(experiment, config=config), TrainingData(split, images, record, marks)


def _with_preset(config: RunConfig, data: Data, roi: RegionOfInterest | None) -> RunConfig:
    """The config with the preset that suits the images, where it is to be found; it is said which, for photos."""
    if config.preset != AUTO:
        return config
    if not isinstance(data, PictureData):
        return dataclasses.replace(config, preset=DEFAULT)
    learned = data.learning(normal_classes(config.normal or data.normal or "", data), roi)
    side = min(config.size or learned.shape[1:])
    if side < PHOTO_SIDE or len(learned.listing) > MOST_PHOTOS:
        return dataclasses.replace(config, preset=DEFAULT)
    choices = ("autoencoder", "scorer", "objective", "tile", "defects", "noise", "masked", "latent")
    if chosen := [setting(name, value) for name in choices if (value := getattr(config, name))]:
        asked = f"{' and '.join(chosen)} {'is' if len(chosen) == 1 else 'are'} asked"
        logger.info(
            f"preset default, since {asked}; without, photos get preset surface, an autoencoder of what a network "
            "trained on photographs sees in them"
        )
        return dataclasses.replace(config, preset=DEFAULT)
    logger.info(
        f"preset surface, for photos of {PHOTO_SIDE} pixels a side or more: an autoencoder of what a network trained "
        f"on photographs sees in them; {setting('preset', DEFAULT)} learns from the pixels alone"
    )
    return dataclasses.replace(config, preset=SURFACE)


def _locate_features(perceptual: str | None, home: RunStore) -> str | None:
    """The setting `perceptual` with the place it means now, for `latest` will be another run tomorrow."""
    if perceptual is None:
        return None
    name, colon, weights = perceptual.partition(":")
    if colon:
        return f"{name}:{expand(weights).resolve()}"
    return str(find_model(home, perceptual)[0].resolve())


def _features(perceptual: str | None, preprocessing: Preprocessing, device: torch.device) -> Features | None:
    """What the objective `perceptual` compares: layers of a torchvision network, or of an encoder trained here."""
    if perceptual is None:
        return None
    name, colon, weights = perceptual.partition(":")
    if colon:
        return torchvision_features(name, weights, device)
    detector = Detector.load(Path(perceptual), str(device))
    theirs_whole, ours_whole = (dataclasses.replace(p, roi=None) for p in (detector.preprocessing, preprocessing))
    if theirs_whole != ours_whole or detector.config.tile:
        theirs, ours = ("×".join(map(str, p.shape)) for p in (detector.preprocessing, preprocessing))
        raise ModelError(
            f"the encoder of {perceptual} takes images {theirs}, and these are {ours}; train one for these"
        )
    return encoder_features(detector.network)
