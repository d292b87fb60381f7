"""What commands make of runs, as `result.json` keeps it, `--json` prints it and people read it.

Nothing here needs PyTorch, for lists of runs are not to wait for it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomaly_ae.config.run_config import FLOAT32
from anomaly_ae.detector.evaluation import MarksUsed, ScorerRow
from anomaly_ae.runtime.printed import Printed
from anomaly_ae.storage.schema import Count, Share

if TYPE_CHECKING:
    from anomaly_ae.calibration.drift import Drift
    from anomaly_ae.calibration.odd import OddNormals


@dataclass(frozen=True)
class TrainResult(Printed):
    """What a training came to.

    Losses are by the objective, the validation loss that of the best epoch, whose weights are kept. `train_mse` and
    `validation_mse` are the mean squared reconstruction errors of those weights, of images in [0, 1]; on the scale
    that the network works on inside they are `span`² times as large. `guarantee` is how the threshold holds its
    rate, in words, and `proven_fpr` what is proven of it. `smallest_rate` is the smallest false-alarm rate that so
    many calibration images can hold, and every group of them; `threshold_warning` says in words which of them look
    odd, if any. `next` are commands that one may want now.
    """

    run_id: str
    epochs: int
    best_epoch: int
    train_seconds: float
    images_per_second: float
    final_loss: float
    validation_loss: float
    train_mse: float
    validation_mse: float
    parameters: int
    encoder_parameters: int
    decoder_parameters: int
    span: float
    scorer: str
    threshold: float
    target_fpr: float
    calibration_images: int
    guarantee: str
    proven_fpr: float | None
    smallest_rate: float
    threshold_warning: str | None
    odd_normals: "OddNormals | None"
    device: str
    run_folder: str
    next: list[str]
    precision: str = FLOAT32


@dataclass(frozen=True)
class KeptResult:
    """What is read of `result.json`, and what it must be; None where the run has no such thing, or another version
    did not keep it.
    """

    epochs: Count | None = None
    best_epoch: Count | None = None
    train_seconds: float | None = None
    train_mse: float | None = None
    validation_mse: float | None = None
    span: float | None = None
    parameters: Count | None = None
    encoder_parameters: Count | None = None
    decoder_parameters: Count | None = None
    threshold: float | None = None
    expected_fpr: float | None = None


@dataclass(frozen=True)
class KeptEvaluation:
    """What is read of `evaluation/metrics.json`, an `Evaluation` on the test images of a run's own, and what it must
    be; None where it was not measured, or another version did not keep it.
    """

    images: Count | None = None
    calibration: str | None = None
    reconstruction_mse: float | None = None
    auroc: Share | None = None
    auroc_ci: tuple[float, float] | None = None
    average_precision: Share | None = None
    fpr_at_95_tpr: Share | None = None
    partial_auroc: Share | None = None
    threshold: float | None = None
    false_positive_rate: Share | None = None
    true_positive_rate: Share | None = None
    precision: Share | None = None
    f1: Share | None = None
    pixel_auroc: float | None = None
    pixel_average_precision: float | None = None
    pro: float | None = None
    per_class: tuple[dict[str, Any], ...] | None = None
    beside: tuple[dict[str, Any], ...] | None = None

    @property
    def interval(self) -> tuple[float, float] | tuple[None, None]:
        """That of the AUROC."""
        return self.auroc_ci or (None, None)

    @property
    def scorers(self) -> list[ScorerRow]:
        """Those that were measured beside the detector's own, and that."""
        return [ScorerRow.read(row) for row in self.beside or ()]


@dataclass(frozen=True)
class KnownAnomalies:
    """What known anomalies show: how many of them the threshold finds, and the threshold with the best F1 against
    the calibration images, which is chosen with these very anomalies and holds no rate.

    Attributes:
        unreadable: files
        detection_rate_ci: at 95 %; None where the threshold was chosen with these anomalies
        expected_detection_rate: of new ones like them; None where the threshold was not
    """

    folder: str
    images: int
    median_score: float
    unreadable: int
    detection_rate: float
    detection_rate_ci: list[float] | None
    expected_detection_rate: float | None
    best_f1: float
    best_f1_threshold: float
    best_f1_false_positive_rate: float
    best_f1_detection_rate: float


@dataclass(frozen=True)
class CalibrateResult(Printed):
    """What a calibration came to.

    Attributes:
        left_out: images that the detector was made with, and copies of others, which count once
        smallest_rates: by guarantee, the smallest false-alarm rate that these images can hold; `tail` only if it
            can be
        drift: how the new calibration scores lie to the old ones, see `Drift`; None where they are the same
        differences: how the images look unlike those of the training, and what else speaks against them
        odd_normals: those of them that look odd
        next: commands that one may want now
        anomalies: what known anomalies show; None without any
        marks: people's, where those say which images are normal and which are not
    """

    run_id: str
    calibrated_on: str
    images: int
    unreadable: int
    left_out: int
    guarantee: str
    target_fpr: float
    expected_fpr: float
    threshold: float
    threshold_before: float
    smallest_rates: dict[str, float]
    drift: "Drift | None"
    differences: list[str]
    odd_normals: "OddNormals | None"
    anomalies: KnownAnomalies | None
    run_folder: str
    next: list[str]
    marks: MarksUsed | None = None


@dataclass(frozen=True)
class ComparedRun:
    """A run beside others: its figures, None where they were not measured, and how far its AUROC lies above the first
    run's, with DeLong's 95 % interval and p-value; None where its test images were others, or `no_p_value` says why.
    """

    run: str
    name: str
    images: int | None
    guarantee: str | None
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    average_precision: float | None
    fpr_at_95_tpr: float | None
    partial_auroc: float | None
    false_positive_rate: float | None
    true_positive_rate: float | None
    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None
    parameters: int | None
    epochs: int | None
    seconds: float | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    no_p_value: str | None = None


@dataclass(frozen=True)
class RunComparison(Printed):
    """Runs side by side: a row for each, the settings that differ, and the page about it."""

    runs: list[ComparedRun]
    settings: dict[str, list[Any]]
    page: str


@dataclass(frozen=True)
class Listed:
    """What a list says of a run; figures are None where they were not measured, settings empty for a pipeline.

    seconds: of training; here: whether it has a folder in this home; unlogged: whether MLflow may lack some of it
    """

    run_id: str
    name: str
    status: str
    kind: str
    parent: str | None
    started: str  # ISO 8601, UTC
    auroc: float | None
    false_positive_rate: float | None
    seconds: float | None
    settings: dict[str, Any]
    here: bool = True
    unlogged: bool = False


@dataclass(frozen=True)
class RunListing(Printed):
    """Runs that were asked for, how many `more` are like them, and `of` how many; `server` is the address of those
    that are not here.
    """

    runs: list[Listed]
    more: int
    of: int
    server: str | None


@dataclass(frozen=True)
class Promoted(Printed):
    """A version of a registered model. `before`: the version that had the alias until now, if another had it."""

    run_id: str
    name: str
    version: int
    alias: str
    uri: str
    before: int | None
    auroc: float | None
