"""What was measured of a detector on labelled test images, see `measuring`, and what an export of it came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from anomaly_ae.runtime.printed import Columns, Printed, from_dict

if TYPE_CHECKING:
    from anomaly_ae.calibration.drift import Drift  # which needs torch
    from anomaly_ae.calibration.odd import OddNormals

CLASS_AUROC = "auroc "  # before the name of a novel class, in a `ScorerRow`
PIXELS = ("pixel_auroc", "pixel_average_precision", "pro")


@dataclass(frozen=True)
class ClassRow:
    """A class: its AUROC against all normal test images and its detection rate if it is novel, its false-alarm rate
    if it is normal, and the figures of the heat maps of its images and all normal ones; None where undefined.
    """

    class_: str
    role: str  # normal or novel
    images: int
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    detection_rate: float | None
    false_alarm_rate: float | None
    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None


@dataclass(frozen=True)
class ErrorRow:
    """How well a score ranks, with the 95 % interval of its AUROC, and what it is."""

    scorer: str
    auroc: float
    auroc_low: float
    auroc_high: float
    about: str


@dataclass(frozen=True)
class ScorerRow:
    """A scorer on the detector's network and the same test images.

    Attributes:
        difference: of its AUROC to that of the detector's own scorer
        p_value: of the difference, by DeLong's test; None where `no_p_value` says why
        by_class: its AUROC of each novel class
        seconds: it took to fit and to score; None for the detector's own
        pixels: the figures of its heat map where defects are known, None where it has no map
    """

    scorer: str
    auroc: float
    auroc_low: float
    auroc_high: float
    fpr_at_95_tpr: float
    difference: float
    p_value: float | None
    no_p_value: str | None
    by_class: Columns
    seconds: float | None
    pixels: Columns

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "ScorerRow":
        """That of a run's `metrics.json`."""
        by_class = Columns({key: row[key] for key in row if key.startswith(CLASS_AUROC)})
        pixels = Columns({key: row[key] for key in PIXELS if key in row})
        return replace(from_dict(cls, row), by_class=by_class, pixels=pixels)


@dataclass(frozen=True)
class FoundTogether:
    """What is found in all test images together at a false discovery rate, and the share that is found wrongly.

    Attributes:
        fewest_possible: discoveries, more than there are images where none are possible
        images_needed: of the calibration, for any
    """

    fdr: float
    images: int
    found: int
    fewest_possible: int
    images_needed: int
    false_discovery_share: float | None
    detection_rate: float | None


@dataclass(frozen=True)
class Missed:
    """What would find anomalies that rank high, and lie below the threshold.

    Attributes:
        target_fpr: the false-alarm rate whose threshold finds nine tenths of these; None where it is above a half
        threshold: at that rate
        detection_rate: the share of these that it finds
        rate_without_odd: the share that is found where normal images that look odd set no threshold; None without any
        command: that sets the threshold anew
    """

    target_fpr: float | None
    threshold: float | None
    detection_rate: float | None
    rate_without_odd: float | None
    command: str | None = None


@dataclass(frozen=True)
class MarksUsed:
    """What people's marks on images were used for: how many of each kind hold.

    Attributes:
        changed: marks on files that are no longer what was marked
        damaged: lines of the file that are none
        unmarked: images beside them that have no mark
        contradictions: marks against the names of the folders
        examples: the first of these, in words
        copies: marks that count for nothing, for copies of one image are marked good and bad
        copies_examples: the first of these, in words
    """

    file: str
    good: int
    bad: int
    undecided: int
    changed: int
    damaged: int
    unmarked: int
    contradictions: int
    examples: list[str]
    copies: int
    copies_examples: list[str]


@dataclass(frozen=True)
class Evaluation(Printed):
    """What was measured on the test images; rates and areas in [0, 1], None where undefined.

    `pixel_auroc`, `pixel_average_precision` and `pro` are of the heat maps against masks of the defects; None without
    masks or heat map.

    Attributes:
        reconstruction_mse: mean squared reconstruction error of the normal test images, in [0, 1]
        calibration: the guarantee in words
        drift: how the scores of the normal test images lie to those of the calibration, see `Drift`; None if too few
        per_class: a row for each class, be it without test images
        threshold_warning: which calibration images look odd, in words
        odd_normals: the same in numbers
        reconstruction_errors: a row for the detector's scorer and each plain reconstruction error, on the same
            images, with AUROC and what it is; none if there is nothing to rank
        discoveries: what was found in the test images together, where a false discovery rate was asked for
        beside: a row for each scorer that was measured beside the detector's own, see `measure_scorers`
        calibration_images: how many set the threshold; 0 where it was chosen
        missed: what would find the anomalies, where they rank high and the threshold finds few
        marks: those that say which test images are normal, where no folder does
    """

    run_id: str | None
    dataset: str
    normal: list[str]
    scorer: str
    images: int
    reconstruction_mse: float | None
    auroc: float | None
    auroc_ci: list[float] | None
    auroc_ci_method: str | None
    average_precision: float | None
    fpr_at_95_tpr: float | None
    partial_auroc: float | None
    threshold: float
    target_fpr: float
    calibration: str
    false_positive_rate: float | None
    true_positive_rate: float | None
    precision: float | None
    f1: float | None
    drift: "Drift | None"
    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None
    per_class: list[ClassRow]
    threshold_warning: str | None
    odd_normals: "OddNormals | None"
    reconstruction_errors: list[ErrorRow]
    discoveries: FoundTogether | None = None
    beside: list[ScorerRow] = field(default_factory=list)
    calibration_images: int = 0
    missed: Missed | None = None
    marks: MarksUsed | None = None


@dataclass(frozen=True)
class Exported(Printed):
    """What an export came to.

    file:       where it is
    inputs:     type and shape of each input, by name, as in `uint8 (N, 1, 28, 28)`; outputs: likewise
    images:     how many the graph was compared with PyTorch on
    deviations: of each output that is a measure, the largest relative deviation, see `check`
    threshold:  the score above which an image is anomalous
    opset:      ONNX's, of the graph
    bytes:      of the file
    """

    file: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    images: int
    deviations: dict[str, float]
    threshold: float
    opset: int
    bytes: int
