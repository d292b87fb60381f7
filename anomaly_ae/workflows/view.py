"""How a training sees images, and what is normal among them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from anomaly_ae.autoencoders import Shape, find_autoencoder, image_size
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.catalogue import Data, normal_classes
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.errors import ModelError, UsageError, one_line
from anomaly_ae.escaping import times
from anomaly_ae.images.decode import LARGEST_PICTURE
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.images.roi_file import read_roi
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.renamed import with_current_names
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import expand
from anomaly_ae.storage.schema import parse

MOST_UNLIKE = 1.02  # times other proportions that a mask may have than the images


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
            with record_errors():
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
        with record_errors():
            preprocessing = parse(Preprocessing, with_current_names(record["preprocessing"]))
            return cls(preprocessing, tuple(record["classes"]), tuple(record["normal"]))


@contextmanager
def record_errors() -> Iterator[None]:
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
