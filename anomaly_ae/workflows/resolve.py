"""From what was asked to an experiment and its images: every check is passed before anything is written."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from anomaly_ae.autoencoders import Shape, find_autoencoder, image_size
from anomaly_ae.autoencoders.folds import fold_count
from anomaly_ae.autoencoders.inference import pick_device
from anomaly_ae.calibration.rates import images_needed, require_enough, smallest_rate
from anomaly_ae.config.run_config import AUTO, CROSS, DEFAULT, MARGINAL, SURFACE, RunConfig
from anomaly_ae.datasets.catalogue import Data, normal_classes, open_data, whole_name
from anomaly_ae.datasets.copies import find_copies
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.datasets.splits import SPLIT_PARTS, Split, split_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment, check_names, fill_defaults, say_what_prototypes_lack
from anomaly_ae.detector.fit import MARKED_NORMAL, in_folds
from anomaly_ae.errors import DataChanged, ModelError, UsageError, one_line
from anomaly_ae.escaping import counted, times
from anomaly_ae.images.decode import LARGEST_PICTURE
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.images.roi_file import read_roi
from anomaly_ae.objectives.perceptual import Features, encoder_features, torchvision_features
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger, report_skipped
from anomaly_ae.runtime.renamed import with_current_names
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import expand
from anomaly_ae.storage.schema import parse
from anomaly_ae.training import epoch_count
from anomaly_ae.workflows.find_model import find_model
from anomaly_ae.workflows.more_normals import MoreNormals

PHOTO_SIDE, MOST_PHOTOS = 128, 5_000  # pixels of the smaller side from which, and up to how many, pictures are photos
FEW_SET_ASIDE = 60  # images for the threshold, fewer of which are few
MOST_UNLIKE = 1.02  # times other proportions that a mask may have than the images
MOST_FOLDED = (
    180  # images to learn from and for the threshold, up to which folds are made rather than so many set aside
)


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
    division = Division.of_record(begun, data, view, config.folds) if is_begun else Division.draw(config, data, view)
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
        intensity=None if intensity is None else intensity.setting,
        epochs=epoch_count(experiment.config, len(trained_on)),
    )
    return dataclasses.replace(experiment, config=config), TrainingData(split, images, record, marks)


def _with_preset(config: RunConfig, data: Data, roi: RegionOfInterest | None) -> RunConfig:
    """The config with the preset that suits the images, where it is to be found; it is said which, for photos."""
    if config.preset != AUTO:
        return config
    choices = ("autoencoder", "scorer", "objective", "tile", "defects", "noise", "masked", "latent")
    if not isinstance(data, PictureData) or any(getattr(config, name) for name in choices):
        return dataclasses.replace(config, preset=DEFAULT)
    learned = data.learning(normal_classes(config.normal or data.normal or "", data), roi)
    side = min(config.size or learned.shape[1:])
    if side < PHOTO_SIDE or len(learned.listing) > MOST_PHOTOS:
        return dataclasses.replace(config, preset=DEFAULT)
    logger.info(
        f"preset surface, for photos of {PHOTO_SIDE} pixels a side or more: an autoencoder of what a network trained "
        f"on photographs sees in them; {setting('preset', DEFAULT)} learns from the pixels alone"
    )
    return dataclasses.replace(config, preset=SURFACE)


@dataclass(frozen=True)
class Looking:
    """The region of interest of a training, the setting that names it, and height and width of the mask it is of."""

    roi: RegionOfInterest | None = None
    setting: str | None = None
    mask_size: tuple[int, int] | None = None

    @classmethod
    def find(cls, config: RunConfig, begun: Mapping[str, Any]) -> "Looking":
        """That of a training that is gone on with, whatever has become of the mask since, or the one asked for."""
        if config.roi is None:
            return cls()
        if begun.get("roi"):
            with _of_record():
                return cls(parse(RegionOfInterest, begun["roi"]), config.roi)
        roi, mask_size = read_roi(config.roi)
        return cls(roi, str(expand(config.roi).resolve()) if mask_size else config.roi, mask_size)

    def words(self, sizes: Sequence[tuple[int, int]]) -> list[str]:
        """What is looked at of images of these heights and widths, of one of the most frequent size. Raises
        `UsageError` where a mask has other proportions than all of them.
        """
        if self.roi is None:
            return []
        (size, _), *_ = Counter(sizes).most_common(1)
        about = f"region of interest: {self.roi.area:.1%} of each image, within {times(self.roi.part_size(size))}"
        words = [f"{about} of its {times(size)}"]
        if self.mask_size and (unlike := sum(not _alike(self.mask_size, each) for each in sizes)):
            name, mask = self.setting, times(self.mask_size)
            if unlike == len(sizes):
                raise UsageError(
                    f"the region of interest {name} has {mask} pixels and the images have {times(size)}, which are "
                    "other proportions; draw it over one of the images"
                )
            words.append(
                f"region of interest: {unlike / len(sizes):.0%} of the images have other proportions than {mask}; "
                "there it lies elsewhere"
            )
        return words


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two heights and widths have the same proportions, or nearly so."""
    return 1 / MOST_UNLIKE < one[0] * other[1] / (one[1] * other[0]) < MOST_UNLIKE


@dataclass(frozen=True)
class View:
    """How a training sees images, and what is normal among them: known before all are read.

    classes, normal: names, as they were when the training began
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    normal: tuple[str, ...]

    @classmethod
    def find(cls, config: RunConfig, data: Data, asked: Looking = Looking()) -> "View":
        """By the images that are learned from; it is said what was found."""
        normal = normal_classes(config.normal, data)
        if isinstance(data, PictureData):
            logger.info(data.describe(normal))
        learned = data.learning(normal, asked.roi)
        shape = _shape(config, learned)  # now, for it may download
        for words in asked.words(learned.sizes):
            logger.info(words)
        if isinstance(learned, PictureData):
            for words in learned.size_words(
                shape[1:], find_autoencoder(str(config.autoencoder)).side, config.resize_mode
            ):
                logger.info(words)
        intensity = learned.find_intensity(config.intensity)
        preprocessing = Preprocessing(*shape, config.resize_mode, intensity, asked.roi)
        return cls(preprocessing, data.classes, tuple(data.classes[position] for position in normal))

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "View":
        """The one that `record` made a record of. Raises `ModelError`."""
        with _of_record():
            preprocessing = parse(Preprocessing, with_current_names(record["preprocessing"]))
            return cls(preprocessing, tuple(record["classes"]), tuple(record["normal"]))


@dataclass(frozen=True)
class Division:
    """The images of a training, and which of them go where.

    folds:    of the guarantee cross, which is taken then
    files:    how many there were
    left_out: what is used for nothing, each with the reason
    """

    dataset: Dataset
    view: View
    split: Split
    folds: int | None = None
    files: int = 0
    left_out: tuple[str, ...] = ()

    @classmethod
    def draw(cls, config: RunConfig, data: Data, view: View) -> "Division":
        """Load the images and divide them; it is said what goes where, if that is enough."""
        dataset = data.load(view.preprocessing)
        normal = [dataset.classes.index(name) for name in view.normal]
        report_skipped(dataset.left_out)
        copies = find_copies(dataset, normal)
        for line in copies.about:
            logger.info(line)
        divide = partial(split_dataset, dataset, normal, config.seed, config.contamination, copies=copies)
        guarantee, folds = config.guarantee or MARGINAL, None
        split = divide(0 if guarantee == CROSS else images_needed(config.target_fpr, guarantee))
        aside = len(split.calibration.indices)
        is_few = config.guarantee is None and aside < FEW_SET_ASIDE and _has_cheap_folds(config, split)
        are_many = split.trainable > MOST_FOLDED and images_needed(config.target_fpr) <= FEW_SET_ASIDE
        if is_few and are_many:
            split = divide(FEW_SET_ASIDE)
        elif is_few:
            logger.info(
                f"{counted(aside, 'normal image')} set aside would be few for the threshold: with guarantee cross "
                f"all are learned from, and scored in turn; {setting('guarantee', MARGINAL)} sets them aside"
            )
            guarantee, split = CROSS, divide(0)
        if guarantee == CROSS:
            folds = _folds(config, split)
            count = split.trainable // folds * folds
            require_enough(count, config.target_fpr, CROSS)
        else:
            count = len(split.calibration.indices)
            require_enough(count, config.target_fpr, guarantee, most=split.most_calibration)
        rate = smallest_rate(count, guarantee)
        logger.info(f"{split.about(dataset, normal, folds)}; false-alarm rates from {rate:g} on are possible")
        files = len(data.listing) if isinstance(data, PictureData) else 0
        return cls(dataset, view, split, folds, files, (*dataset.left_out, *copies.names(dataset)))

    @classmethod
    def of_record(cls, record: Mapping[str, Any], data: Data, view: View, folds: int | None = None) -> "Division":
        """The one that `record` made a record of, with its own pictures alone. Raises `ModelError`."""
        with _of_record():
            split = Split.of_pictures(record["parts"], record["pictures"], record["copies"])
            before = int(record["files"])
        if isinstance(data, PictureData) and (more := len(data.listing) - before) > 0:
            logger.info(f"{counted(more, 'file')} more than when this training began in {data.name}: not used")
        return cls(data.load(view.preprocessing, split.names()), view, split, folds)

    def take(self, part: str) -> ImageSet:
        """The images of a part as the detector sees them. Raises `DataChanged`."""
        taken = getattr(self.split, part).take(self.dataset).relabelled(self.dataset.classes, self.view.classes)
        return self.view.preprocessing.prepare_set(taken, self.dataset)

    def record(self, split: Split) -> dict[str, Any]:
        """What split.json has of it, as plain JSON values; `split` has the hashes of what the detector sees."""
        pictures = split.pictures()
        more = {
            "pictures": pictures,
            "copies": split.copies.tolist(),
            "preprocessing": dataclasses.asdict(self.view.preprocessing),
            "classes": self.view.classes,
            "normal": self.view.normal,
            "files": self.files,
        }
        return {
            "digest": self.dataset.digest(),
            "parts": split.summary(),
            "left_out": list(self.left_out),
            "roi": (roi := self.view.preprocessing.roi) and dataclasses.asdict(roi),
            **(more if pictures else {}),
        }


def _has_cheap_folds(config: RunConfig, split: Split) -> bool:
    """Whether folds can be made of the images, and would cost little."""
    plain = not (split.groups or config.trim_training or config.contamination or config.tile)
    return plain and find_autoencoder(str(config.autoencoder)).cheap_folds


def _folds(config: RunConfig, split: Split) -> int:
    """Into how many folds the images are divided that are learned from. Raises `UsageError` where they cannot be."""
    if split.groups:
        raise UsageError(
            f"the guarantee cross is for images that are each for itself, and these are of {split.groups:,} parts or "
            f"patients, whose images stay together; leave {setting('guarantee', CROSS)} out"
        )
    folds = config.folds or fold_count(split.trainable)
    if folds > split.trainable:
        raise UsageError(
            f"{counted(split.trainable, 'image')} cannot be divided into {folds} folds; leave {setting('folds')} out"
        )
    return folds


@contextmanager
def _of_record() -> Iterator[None]:
    """Turn what a damaged split.json raises inside into `ModelError`."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the run's split.json is damaged ({one_line(error)}); train anew") from error


def _shape(config: RunConfig, data: Data) -> Shape:
    """Channels, height and width of the images that the network sees."""
    channels, height, width = data.shape
    if config.channels and config.channels != channels and not isinstance(data, PictureData):
        raise UsageError(f"the images of {config.dataset} have {channels} channels; leave {setting('channels')} out")
    height, width = image_size(str(config.autoencoder), config.size, (height, width), bool(config.tile))
    if height * width > LARGEST_PICTURE:
        raise UsageError(f"images of {height}×{width} are too large; the most are {LARGEST_PICTURE:,} pixels")
    return config.channels or channels, height, width


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
