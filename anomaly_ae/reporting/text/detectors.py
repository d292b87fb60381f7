"""What came of training, calibrating, evaluating and exporting."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anomaly_ae.detector.evaluation import ClassRow, ErrorRow, Evaluation, ScorerRow
from anomaly_ae.detector.exported import Exported
from anomaly_ae.escaping import counted
from anomaly_ae.reporting.text.phrases import (
    PIXEL_FIGURES,
    discovered,
    figure,
    interval,
    moved,
    no_p_values,
    p_value,
    percent,
    unranked,
)
from anomaly_ae.runs.run_results import CalibrateResult, KnownAnomalies, TrainResult
from anomaly_ae.runtime.printed import as_text
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.runtime.tables import columns

if TYPE_CHECKING:
    from anomaly_ae.calibration.drift import Drift

GOOD_AUROC, FEW_FOUND = 0.8, 0.2  # from where a low detection rate is the threshold's doing


@as_text.register
def trained(result: TrainResult) -> str:
    return "\n".join(
        [
            f"run           {result.run_id}",
            f"trained       {counted(result.epochs, 'epoch')} in {result.train_seconds:.1f} s "
            f"on {result.device}, {result.images_per_second:,.0f} images/s, "
            f"{result.parameters:,} parameters",
            f"loss          {result.final_loss:.5f} · validation {result.validation_loss:.5f} "
            f"(best, epoch {result.best_epoch})",
            f"threshold     {result.threshold:.4f} for a false-alarm rate of {result.target_fpr:g} (marginal), "
            f"from {counted(result.calibration_images, 'normal image')}, which hold rates from "
            f"{result.smallest_rate:g} ({result.scorer})",
            *([f"warning       {result.threshold_warning}"] if result.threshold_warning else []),
            f"kept in       {result.run_folder}",
            f"next          {' · '.join(result.next)}",
        ]
    )


@as_text.register
def calibrated(result: CalibrateResult) -> str:
    rates = [f"{name} from {rate:g}" for name, rate in result.smallest_rates.items() if name != "tail"]
    rates += ["tail for less, as an extrapolation"] if "tail" in result.smallest_rates else []
    bad = f"; {counted(result.unreadable, 'file')} could not be read" if result.unreadable else ""
    bad += f"; {result.left_out:,} were left out, known to the detector or there twice" if result.left_out else ""
    rows = [
        ("run", result.run_id),
        ("calibrated on", f"{counted(result.images, 'normal image')}: {result.calibrated_on}{bad}"),
        (
            "threshold",
            f"{result.threshold:.4f} for a false-alarm rate of {result.target_fpr:g} ({result.guarantee}); "
            f"before {result.threshold_before:.4f}",
        ),
        ("rates possible", " · ".join(rates)),
        *(("warning", text) for text in result.differences),
        *([("moved", f"{moved(result.drift)} a new image scores above an old one")] if result.drift else []),
        *(_anomalies(result.anomalies) if result.anomalies else []),
        ("kept in", result.run_folder),
        ("next", " · ".join(result.next)),
    ]
    return "\n".join(f"{name:<16}{text}" for name, text in rows)


def _anomalies(found: KnownAnomalies) -> list[tuple[str, str]]:
    share = f"{found.detection_rate:.1%} of {found.images:,} are found"
    if found.detection_rate_ci:
        low, high = found.detection_rate_ci
        share += f" (95 % interval {low:.1%} to {high:.1%})"
    else:
        expected = found.expected_detection_rate
        share += f", for which the threshold was chosen; of new ones like them {expected:.1%} are to be expected"
    return [
        ("anomalies", share),
        (
            "best F1",
            f"{found.best_f1:.4f} with threshold {found.best_f1_threshold:.4f}, chosen on these very images, "
            f"without a guarantee: {found.best_f1_detection_rate:.1%} found, "
            f"{found.best_f1_false_positive_rate:.2%} false alarms",
        ),
    ]


@as_text.register
def evaluated(result: Evaluation) -> str:
    rows = [
        *_ranked(result),
        ("", ""),
        *_mse(result.reconstruction_mse),
        (
            "threshold",
            f"{result.threshold:.4f}   for a false-alarm rate of {result.target_fpr:g} ({result.calibration})",
        ),
        *([("warning", result.threshold_warning)] if result.threshold_warning else []),
        ("false-alarm rate", percent(result.false_positive_rate) or "none: no normal test image"),
        ("detection rate", percent(result.true_positive_rate) or "none: no anomalous test image"),
        *_missed(result),
        *([("precision", percent(result.precision))] if result.precision is not None else []),
        *([("F1", percent(result.f1))] if result.f1 is not None else []),
        ("drift", _drift(result.drift)),
        *(_pixels(result) if result.pixel_auroc is not None else []),
        *(discovered(result.discoveries) if result.discoveries else []),
    ]
    dataset = result.dataset.rstrip("/").rpartition("/")[2]  # of a folder its own name
    heading = f"{dataset}: normal {', '.join(result.normal)} · {counted(result.images, 'test image')}"
    lines = [
        f"{heading} · scorer {result.scorer}",
        "",
        *(f"  {name:<18} {text}".rstrip() for name, text in rows),
    ]
    tables = [_by_class(result.per_class)]
    tables += [_errors(result.reconstruction_errors)] if result.reconstruction_errors else []
    tables += [_beside(result.beside)] if result.beside else []
    return "\n".join([*lines, *(line for table in tables for line in ("", *table))])


def _missed(result: Evaluation) -> list[tuple[str, str]]:
    """Where anomalies rank high and yet hardly any is found, that it is the threshold."""
    auroc, found = result.auroc, result.true_positive_rate
    is_missed = auroc is not None and found is not None and auroc >= GOOD_AUROC and found < FEW_FOUND
    if not is_missed or not result.calibration_images:
        return []
    images = counted(result.calibration_images, "calibration image")
    return [
        (
            "",
            f"they rank high, and lie below a threshold set by {images}; more normal images, a higher "
            f"{setting('target_fpr')}, or calibrate {setting('detect')} with known anomalies may lower it",
        )
    ]


def _ranked(result: Evaluation) -> list[tuple[str, str]]:
    if result.auroc_ci is None or result.auroc_ci_method is None:
        return [("AUROC", f"none: {unranked(result.false_positive_rate)}")]
    (low, high), method = result.auroc_ci, result.auroc_ci_method
    is_none = method.startswith("none")
    interval = f"95 % interval {method if is_none else f'{low:.4f} to {high:.4f} ({method})'}"
    return [
        ("AUROC", f"{result.auroc:.4f}   {interval}"),
        ("average precision", f"{result.average_precision:.4f}"),
        ("FPR@95TPR", f"{result.fpr_at_95_tpr:.4f}"),
        ("partial AUROC", f"{result.partial_auroc:.4f}   to 10 % FPR, standardised"),
    ]


def _mse(value: float | None) -> list[tuple[str, str]]:
    return [] if value is None else [("reconstruction MSE", f"{value:.5f}   of the normal test images, in [0, 1]")]


def _errors(rows: Sequence[ErrorRow]) -> list[str]:
    """The plain reconstruction errors below the detector's own scorer, each with what it is."""
    head = ("scorer", "AUROC", "95 % interval", "what it is")
    lines = [(row.scorer, f"{row.auroc:.4f}", interval(row.auroc_low, row.auroc_high), row.about) for row in rows]
    return [f"  {line}" for line in columns([head, *lines], right=(1,))]


def _pixels(result: Evaluation) -> list[tuple[str, str]]:
    return [
        ("", ""),
        ("pixel AUROC", f"{result.pixel_auroc:.4f}   of the heat maps against the masks"),
        ("pixel AP", f"{result.pixel_average_precision:.4f}"),
        ("PRO", f"{result.pro:.4f}   mean share of a defect found, to 30 % FPR; chance is 0.15"),
    ]


def _drift(drift: "Drift | None") -> str:
    if drift is None:
        return "not measured: fewer than 20 normal images to compare"
    return f"{moved(drift)} a normal test image scores above a calibration image"


def _by_class(rows: Sequence[ClassRow]) -> list[str]:
    """The table by class, normal classes first; with figures of the heat maps where there are masks."""
    mapped = any(row.pixel_auroc is not None for row in rows)
    head = ("class", "role", "images", "AUROC", "95 % interval", "detected", "false alarms")
    lines = [
        (
            *(row.class_, row.role, f"{row.images:,}"),
            *(figure(row.auroc), interval(row.auroc_low, row.auroc_high)),
            *(percent(row.detection_rate), percent(row.false_alarm_rate)),
            *(map(figure, (row.pixel_auroc, row.pixel_average_precision, row.pro)) if mapped else ()),
        )
        for row in sorted(rows, key=lambda row: row.role != "normal")
    ]
    heads = (*head, *PIXEL_FIGURES.values()) if mapped else head
    return [f"  {line}" for line in columns([heads, *lines], right=(2, 3, *range(5, len(heads))))]


def _beside(rows: Sequence[ScorerRow]) -> list[str]:
    """The scorers side by side, the detector's own first."""
    pixels = {name: heading for name, heading in PIXEL_FIGURES.items() if any(row.pixels.get(name) for row in rows)}
    head = ("scorer", "AUROC", "95 % interval", "FPR@95TPR", "difference", "p (DeLong)", "seconds", *pixels.values())
    lines = [
        (
            *(row.scorer, f"{row.auroc:.4f}", interval(row.auroc_low, row.auroc_high)),
            *(f"{row.fpr_at_95_tpr:.4f}", *_against(row), *(figure(row.pixels[name]) for name in pixels)),
        )
        for row in rows
    ]
    table = columns([head, *lines], right=(1, *range(3, len(head))))
    return [f"  {line}" for line in (*table, *no_p_values(row.no_p_value for row in rows))]


def _against(row: ScorerRow) -> tuple[str, str, str]:
    """Difference to the detector's own scorer, p-value and seconds; nothing for itself."""
    if row.seconds is None:
        return ("", "", "")
    return (f"{row.difference:+.4f}", p_value(row.p_value), f"{row.seconds:.1f}")


@as_text.register
def exported(result: Exported) -> str:
    deviations = ", ".join(f"{name} {value:.1g}" for name, value in result.deviations.items())
    heat = [] if "heat_map" in result.outputs else [("no heat map", "the scorer has none")]
    rows = [
        ("written", f"{result.file}, {result.bytes / 1e6:,.1f} MB, opset {result.opset}"),
        *(("in", f"{name}: {kind}") for name, kind in result.inputs.items()),
        *(("out", f"{name}: {kind}") for name, kind in result.outputs.items()),
        *heat,
        ("threshold", f"{result.threshold:.4f}   of the score, and in the file's metadata"),
        (
            "checked",
            f"against PyTorch on {counted(result.images, 'image')}; largest relative deviations: {deviations}",
        ),
    ]
    return "\n".join(f"{name:<14}{text}" for name, text in rows)
