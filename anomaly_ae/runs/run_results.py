"""What commands make of runs, as `result.json` keeps it, `--json` prints it and people read it.

Nothing here needs PyTorch, for lists of runs are not to wait for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from anomaly_ae.config.run_config import FLOAT32
from anomaly_ae.detector.evaluation import MarksUsed, ScorerRow
from anomaly_ae.runtime.printed import Columns, Printed, from_dict
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
class SystemRow:
    """A system in the comparison of a pipeline, by its first cell; figures are None where they were not measured.

    `train_mse` and so on are mean squared reconstruction errors of images in [0, 1], `train_mse_own` and so on those
    on the network's own scale.

    Attributes:
        columns: the AUROC of every set of normal classes with its interval, then the source's last figure, if any
    """

    system: str
    dataset: str
    normal: str
    objective: str | None
    encoder_parameters: int | None
    decoder_parameters: int | None
    epochs: int | None
    seconds: float | None
    train_mse: float | None
    validation_mse: float | None
    test_mse: float | None
    train_mse_own: float | None
    validation_mse_own: float | None
    test_mse_own: float | None
    columns: Columns


@dataclass(frozen=True)
class PublishedRow:
    """A published figure: the source's number, ours, and the difference."""

    system: str
    measure: str
    source: float
    ours: float | None
    difference: float | None


@dataclass(frozen=True)
class CellRow:
    """A cell of a pipeline: settings that tell it apart, sizes, times, errors, AUROC with interval."""

    cell: str
    run: str
    status: str
    normal: str
    autoencoder: str | None
    objective: str | None
    scorer: str | None
    seed: int
    epochs: int | None
    seconds: float | None
    train_mse: float | None
    validation_mse: float | None
    test_mse: float | None
    train_mse_own: float | None
    validation_mse_own: float | None
    test_mse_own: float | None
    encoder_parameters: int | None
    decoder_parameters: int | None
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None


@dataclass(frozen=True)
class ScorerMeans:
    """A scorer of a system over the cells of a pipeline: its mean AUROC with a 95 % interval, in how many cells it is
    better or worse than the cell's own scorer, and the AUROC by normal or novel classes,
    None where a cell is missing.
    """

    system: str
    scorer: str
    auroc: float
    low: float | None
    high: float | None
    seeds: int
    better: int
    worse: int
    cells: int
    by_class: Columns


@dataclass(frozen=True)
class ClassMeans:
    """A novel class of a detector in a pipeline, such as a kind of defect, or all of them together: means over seeds.

    Attributes:
        system: the detector, whatever its seed
        images: of this class, in the first seed's test images
        low: to high, the 95 % interval of the AUROC, against all normal test images, by DeLong, of its mean over the
            seeds; `bootstrap_low` to `bootstrap_high` that by the bootstrap. They are for other test images, not for
            other networks; None where the seeds were tested on different images
        pixel_auroc: of the heat maps, as are the next two; None without masks or heat map
    """

    system: str
    class_: str
    images: int
    seeds: int
    auroc: float
    low: float | None
    high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    detection_rate: float
    false_alarm_rate: float
    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None


@dataclass(frozen=True)
class PipelineResult(Printed):
    """What a pipeline came to: tables as rows, and cells that failed with the reason."""

    run_id: str
    name: str
    comparison: list[SystemRow]
    published: list[PublishedRow]
    cells: list[CellRow]
    scorers: list[ScorerMeans]
    classes: list[ClassMeans]
    failed: dict[str, str]
    run_folder: str

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "PipelineResult":
        """That of a run's `result.json`."""
        rows = {
            "comparison": SystemRow,
            "published": PublishedRow,
            "cells": CellRow,
            "scorers": ScorerMeans,
            "classes": ClassMeans,
        }
        typed: dict[str, Any] = {
            name: [from_dict(kind, row) for row in content.get(name) or []] for name, kind in rows.items()
        }
        return replace(from_dict(cls, content), **typed)


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
