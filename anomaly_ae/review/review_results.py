"""What a review says of a scored folder: what the page lists, and what a threshold comes to."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from anomaly_ae.calibration.conformal import HeldRate
from anomaly_ae.detector.regions import Region
from anomaly_ae.errors import UnknownName
from anomaly_ae.metrics.ranking import proportion_interval

SKEWED = 20  # times the median is the highest score where the axis is logarithmic
Floats = npt.NDArray[np.float64]


class SortedBy(StrEnum):
    """Of what is listed."""

    NEARNESS = "nearness"  # to the threshold
    SCORE = "score"  # the highest first
    PATH = "path"
    RANDOM = "random"  # so that the first of them are a fair sample


class Shown(StrEnum):
    """Which files are listed; lost are those whose mark is, since they have changed; contradicting are copies of one
    image that are marked good and bad.
    """

    ALL = "all"
    ANOMALOUS = "anomalous"
    NORMAL = "normal"
    UNMARKED = "unmarked"
    MARKED = "marked"
    GOOD = "good"
    BAD = "bad"
    UNDECIDED = "undecided"
    LOST = "lost"
    CONTRADICTING = "contradicting"
    ERRORS = "errors"


@dataclass(frozen=True)
class Item:
    """A file as the page lists it. mark: one of `MARKS`; lost: whether the file is no longer what was marked;
    changed: whether it is no longer what was scored; state: of the file as it is now, see `state_of`;
    regions: the anomalous ones, none where the rows were written before there were any.
    """

    index: int
    path: str
    score: float | None
    p_value: float | None
    mark: str
    lost: bool
    changed: bool
    state: str
    error: str | None
    regions: list[Region]


@dataclass(frozen=True)
class Window:
    """Some items of those that were asked for, and how many there are in all."""

    total: int
    items: list[Item]


@dataclass(frozen=True)
class MarkedShare:
    """How many of the files with a mark lie above a threshold; interval: 95 %, exact, None without any."""

    marked: int
    above: int
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, scores: Floats, threshold: float) -> "MarkedShare":
        above = int((scores > threshold).sum())
        return cls(len(scores), above, proportion_interval(above, len(scores)) if len(scores) else None)


@dataclass(frozen=True)
class AtThreshold:
    """What a threshold comes to: images of the folder above it; the rate that it holds for new normal ones; of the
    files marked bad those that are detected, and of those marked good the false alarms.

    threshold: the float32 at or below what was asked
    marks:     how often each mark was given; those that count for nothing as `lost` and as `contradicting`, and as
               `changed` those on files whose score is of what they were before
    version:   changes whenever a mark does
    """

    threshold: float
    anomalous: int
    normal: int
    held: HeldRate
    detected: MarkedShare
    false_alarms: MarkedShare
    marks: dict[str, int]
    version: int


@dataclass(frozen=True)
class Axis:
    """From scores to shares of the slider's way, 0 to 1: straight, or logarithmic where scores are skewed."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, scores: Floats) -> "Axis":
        low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
        skewed = low > 0 and high > SKEWED * float(np.median(scores))
        room = 1e-6 + 0.01 * (high - low)
        return cls(low / 1.02, high * 1.02, True) if skewed else cls(low - room, high + room, False)

    def along(self, scores: npt.ArrayLike) -> Floats:
        """Where scores lie on it."""
        values = np.asarray(scores, np.float64)
        if self.logarithmic:
            low, high = np.log([self.low, self.high])
            values = np.log(np.maximum(values, self.low))
        else:
            low, high = self.low, self.high
        shares: Floats = (values - low) / (high - low)
        return shares


@dataclass(frozen=True)
class About:
    """What the page says once. folders: those with images, by how many; histograms: shares of images in each bin of
    the axis, of the folder and of the calibration.
    """

    output: str
    source: str
    detector: str
    model: str
    images: int
    errors: int
    threshold: float
    axis: Axis
    folder_bins: list[float]
    calibration_bins: list[float]
    calibration_images: int
    has_maps: bool
    folders: dict[str, int]


@dataclass(frozen=True)
class Query:
    """Which items, in which order. folder: of the paths, with those below it; empty for all."""

    sort: str = SortedBy.NEARNESS
    filter: str = Shown.ALL
    folder: str = ""
    threshold: float = 0.0

    def __post_init__(self) -> None:
        for kind, name, known in (("order", self.sort, SortedBy), ("filter", self.filter, Shown)):
            if name not in (names := [str(each) for each in known]):
                raise UnknownName(kind, name, names)


@dataclass(frozen=True)
class Kept:
    """The run that holds a threshold, and the command that scores the folder with it."""

    run_id: str
    command: str
