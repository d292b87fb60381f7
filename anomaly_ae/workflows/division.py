"""How a training sees images, what is normal among them, and which of them go where."""

import dataclasses
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from anomaly_ae.autoencoders import Shape, find_autoencoder, image_size
from anomaly_ae.autoencoders.folds import MOST_FOLDS, fold_count
from anomaly_ae.calibration.group import proven_in_folds
from anomaly_ae.calibration.rates import (
    LARGEST_UNASKED,
    can_hold,
    default_rate,
    images_needed,
    require_enough,
    smallest_rate,
)
from anomaly_ae.config.run_config import CROSS, MARGINAL, RunConfig
from anomaly_ae.datasets.catalogue import Data, normal_classes
from anomaly_ae.datasets.copies import find_copies
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.datasets.splits import SPLIT_PARTS, Split
from anomaly_ae.datasets.splitting import count_trainable, split_dataset
from anomaly_ae.errors import ModelError, UsageError, one_line
from anomaly_ae.escaping import counted, times
from anomaly_ae.images.decode import LARGEST_PICTURE
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.images.roi_file import read_roi
from anomaly_ae.runtime.messages import logger, report_skipped
from anomaly_ae.runtime.renamed import with_current_names
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import expand
from anomaly_ae.storage.schema import parse

MOST_UNLIKE = 1.02  # times other proportions that a mask may have than the images
FEW_SET_ASIDE = 60  # images for the threshold, fewer of which are few
# Images to learn from and for the threshold, up to which folds are made rather than so many set aside
MOST_FOLDED = 180


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


@dataclass(frozen=True)
class Division:
    """The images of a training, and which of them go where.

    rate:     of false alarms, to hold
    folds:    of the guarantee cross, which is taken then
    files:    how many there were
    left_out: what is used for nothing, each with the reason
    """

    dataset: Dataset
    view: View
    split: Split
    rate: float
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
        guarantee, folds = config.guarantee or MARGINAL, None
        needed = images_needed(config.rate, guarantee)
        may_fold = guarantee == CROSS or (config.guarantee is None and _has_cheap_folds(config))
        enough = 0
        if may_fold:  # three more for each further class: so much may be lost by rounding
            fewest = images_needed(config.target_fpr or LARGEST_UNASKED, guarantee)
            enough = enough_in_folds(config, fewest, "test" in dataset.files) + 3 * (len(normal) - 1)
        divide = partial(
            split_dataset, dataset, normal, config.seed, config.contamination, copies=copies, enough_in_folds=enough
        )
        split = divide(0 if guarantee == CROSS else needed)
        aside = split.calibrating()
        is_few = guarantee != CROSS and may_fold and not split.groups and aside < max(FEW_SET_ASIDE, needed)
        are_many = split.trainable > MOST_FOLDED and needed <= FEW_SET_ASIDE
        if is_few and are_many:
            split = divide(FEW_SET_ASIDE)
        elif is_few:
            logger.info(
                "few normal images would be set aside for the threshold: with guarantee cross all are learned from, "
                f"and scored in turn; {setting('guarantee', MARGINAL)} sets them aside"
            )
            guarantee, split = CROSS, divide(0)
        if guarantee == CROSS:
            folds = _folds(config, split)
            count, rate = split.calibrating(folds), _rate(config, split, folds)
            require_enough(count, rate, CROSS, enough=split.enough)
            proven = f" (for {rate:g}, at most {proven_in_folds(count, folds, rate):.3g} is proven)"
        else:
            if config.target_fpr is None and not can_hold(split.calibrating(), config.rate, guarantee):
                split = divide(images_needed(default_rate(split.most_calibration, guarantee), guarantee))
            count, rate, proven = split.calibrating(), _rate(config, split), ""
            out = f"leave {setting('guarantee', guarantee)} out" if _holds_by_itself(config, split, rate) else ""
            most, enough = split.most_calibration, split.enough
            require_enough(count, rate, guarantee, most=most, enough=enough, instead=out)
        rates = f"false-alarm rates from {smallest_rate(count, guarantee):g} on can be asked for{proven}"
        logger.info(f"{split.about(dataset, normal, folds)}; {rates}")
        files = len(data.listing) if isinstance(data, PictureData) else 0
        return cls(dataset, view, split, rate, folds, files, (*dataset.left_out, *copies.names(dataset)))

    @classmethod
    def of_record(cls, config: RunConfig, data: Data, view: View, record: Mapping[str, Any]) -> "Division":
        """The one that `record` made a record of, with its own pictures alone. Raises `ModelError`."""
        with _of_record():
            split = Split.of_pictures(record["parts"], record["pictures"], record["copies"])
            before = int(record["files"])
        if isinstance(data, PictureData) and (more := len(data.listing) - before) > 0:
            logger.info(f"{counted(more, 'file')} more than when this training began in {data.name}: not used")
        rate = _rate(config, split, config.folds)
        return cls(data.load(view.preprocessing, split.names()), view, split, rate, config.folds)

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


def _rate(config: RunConfig, split: Split, folds: int | None = None) -> float:
    """The false-alarm rate asked; where none is, one that the images for the threshold can hold, and that is said."""
    if config.target_fpr is not None:
        return config.target_fpr
    guarantee, count = CROSS if folds else config.guarantee or MARGINAL, split.calibrating(folds)
    rate = default_rate(count, guarantee)
    if rate > config.rate and can_hold(count, rate, guarantee):
        logger.info(
            f"too few normal images for a false-alarm rate of {config.rate:g}, the usual one: {rate:g} is taken, the "
            f"smallest that {count} for the threshold can hold; {setting('target_fpr')} asks for another"
        )
    return rate


def _has_cheap_folds(config: RunConfig) -> bool:
    """Whether folds of images that are no groups can be made, and would cost little."""
    plain = not (config.trim_training or config.contamination or config.tile)
    return plain and find_autoencoder(str(config.autoencoder)).cheap_folds


def _holds_by_itself(config: RunConfig, split: Split, rate: float) -> bool:
    """Whether the rate can be held where another guarantee than the one asked for is chosen."""
    if config.guarantee is None:
        return False
    counts = {MARGINAL: split.most_calibration}
    if _has_cheap_folds(config) and not split.groups:
        counts[CROSS] = split.calibrating(config.folds or fold_count(split.trainable))
    return any(can_hold(count, rate, name) for name, count in counts.items())


def enough_in_folds(config: RunConfig, needed: int, has_test: bool) -> int:
    """The fewest normal images of one class of which, and of any more, as many as are needed are scored in folds."""

    def scored(count: int) -> int:
        images = count_trainable(count, has_test)
        folds = config.folds or fold_count(images)
        return images // folds * folds

    counts = range(len(SPLIT_PARTS), len(SPLIT_PARTS) + 2 * needed)
    first = counts[bisect_left(counts, needed, key=lambda count: count_trainable(count, has_test))]
    near = range(first, first + 2 * (config.folds or MOST_FOLDS) + 1)  # where those in no fold may be too many
    return 1 + max((count for count in near if scored(count) < needed), default=first - 1)


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
