"""What came of training, calibrating, evaluating and exporting."""

from collections.abc import Sequence
from textwrap import indent

from anomaly_ae.config.run_config import FLOAT32
from anomaly_ae.detector.evaluation import ClassRow, ErrorRow, Evaluation, Exported, MarksUsed, ScorerRow
from anomaly_ae.escaping import counted
from anomaly_ae.reporting.text.phrases import (
    NUMBER_COLUMNS,
    PIXEL_FIGURES,
    NamedText,
    discovered,
    figure,
    interval,
    moved,
    named_lines,
    no_p_values,
    p_value,
    table,
    unranked,
)
from anomaly_ae.runs.run_results import CalibrateResult, KnownAnomalies, TrainResult
from anomaly_ae.runtime.printed import as_text
from anomaly_ae.runtime.spelling import from_here


@as_text.register
def trained(result: TrainResult) -> str:
    where = result.device if result.precision == FLOAT32 else f"{result.device} in {result.precision}"
    speed = f"{result.train_seconds:.1f} s on {where}, {result.images_per_second:,.0f} images/s"
    best = f"validation {result.validation_loss:.5f} (best, epoch {result.best_epoch})"
    images = counted(result.calibration_images, "normal image")
    asked = f"from {images} by {result.scorer}; rates from {result.smallest_rate:g} on can be asked for"
    rate = f"a false-alarm rate of {result.target_fpr:g} ({result.guarantee})"
    rows = [
        ("run", result.run_id),
        ("trained", f"{counted(result.epochs, 'epoch')} in {speed}, {result.parameters:,} parameters"),
        ("loss", f"{result.final_loss:.5f} · {best}"),
        ("threshold", f"{result.threshold:.4f} for {rate}, {asked}"),
        ("warning", result.threshold_warning),
        ("kept in", from_here(result.run_folder)),
        ("next", " · ".join(result.next)),
    ]
    return named_lines(rows, 14)


@as_text.register
def calibrated(result: CalibrateResult) -> str:
    rates = [f"{name} from {rate:g}" for name, rate in result.smallest_rates.items() if name != "tail"]
    rates += ["tail for less, as an extrapolation"] if "tail" in result.smallest_rates else []
    bad = f"; {counted(result.unreadable, 'file')} could not be read" if result.unreadable else ""
    left_out = counted(result.left_out, "is", "are")
    bad += f"; {left_out} left out, known to the detector, there twice, or normal and not" if result.left_out else ""
    rate = f"a false-alarm rate of {result.target_fpr:g} ({result.guarantee})"
    rows = [
        ("run", result.run_id),
        ("calibrated on", f"{counted(result.images, 'normal image')}: {result.calibrated_on}{bad}"),
        *marks_words(result.marks),
        ("threshold", f"{result.threshold:.4f} for {rate}; before {result.threshold_before:.4f}"),
        ("rates possible", " · ".join(rates)),
        *(("warning", text) for text in result.differences),
        ("moved", f"{moved(result.drift)} a new image scores above an old one" if result.drift else None),
        *(_anomalies(result.anomalies) if result.anomalies else []),
        ("kept in", from_here(result.run_folder)),
        ("next", " · ".join(result.next)),
    ]
    return named_lines(rows, 16)


def _anomalies(anomalies: KnownAnomalies) -> list[NamedText]:
    share = f"{anomalies.detection_rate:.1%} of {anomalies.images:,} are found"
    if anomalies.detection_rate_ci:
        low, high = anomalies.detection_rate_ci
        share += f" (95 % interval {low:.1%} to {high:.1%})"
    else:
        expected = anomalies.expected_detection_rate
        share += f", for which the threshold was chosen; of new ones like them {expected:.1%} are to be expected"
    best = f"{anomalies.best_f1:.4f} with threshold {anomalies.best_f1_threshold:.4f}, chosen on these very images"
    rates = f"{anomalies.best_f1_detection_rate:.1%} found, {anomalies.best_f1_false_positive_rate:.2%} false alarms"
    return [("anomalies", share), ("best F1", f"{best}, without a guarantee: {rates}")]


def marks_words(marks: MarksUsed | None) -> list[NamedText]:
    """How many there are, which do not count, and which contradict the folders or each other."""
    if marks is None:
        return []
    rest = [f"{marks.undecided:,} undecided"] if marks.undecided else []
    rest += [f"{marks.changed:,} left out, for their files have changed"] if marks.changed else []
    rest += [f"{marks.copies:,} left out, for copies of one image are marked good and bad"] if marks.copies else []
    rest += [f"{counted(marks.damaged, 'line')} of the file left out, damaged"] if marks.damaged else []
    rows: list[NamedText] = [("marks", "; ".join([f"{marks.good:,} good, {marks.bad:,} bad", *rest]))]
    if marks.contradictions:
        those = _first_of(marks.contradictions, marks.examples)
        rows.append(("contradictions", f"to the names of their folders: {those}"))
    if marks.copies:
        rows.append(("contradictions", f"of copies of one image: {_first_of(marks.copies, marks.copies_examples)}"))
    return rows


def _first_of(count: int, examples: list[str]) -> str:
    more = count - len(examples)
    return "; ".join(examples) + (f"; and {more:,} more" if more else "")


@as_text.register
def evaluated(result: Evaluation) -> str:
    mse, drift = result.reconstruction_mse, result.drift
    rate = f"a false-alarm rate of {result.target_fpr:g} ({result.calibration})"
    rows = [
        *marks_words(result.marks),
        *_ranking(result),
        ("", ""),
        ("reconstruction MSE", None if mse is None else f"{mse:.5f}   of the normal test images, in [0, 1]"),
        ("threshold", f"{result.threshold:.4f}   for {rate}"),
        ("warning", result.threshold_warning),
        ("false-alarm rate", figure(result.false_positive_rate, ".2%") or "none: no normal test image"),
        ("detection rate", figure(result.true_positive_rate, ".2%") or "none: no anomalous test image"),
        ("", _why_missed(result)),
        ("precision", figure(result.precision, ".2%") or None),
        ("F1", figure(result.f1, ".2%") or None),
        (
            "drift",
            f"{moved(drift)} a normal test image scores above a calibration image"
            if drift
            else "not measured: fewer than 20 normal images to compare",
        ),
        *(_pixels(result) if result.pixel_auroc is not None else []),
        *([("", ""), *discovered(result.discoveries)] if result.discoveries else []),
    ]
    dataset = result.dataset.rstrip("/").rpartition("/")[2]  # of a folder its own name
    heading = f"{dataset}: normal {', '.join(result.normal)} · {counted(result.images, 'test image')}"
    blocks = [named_lines(rows, 19), _by_class(result.per_class)]
    compared = {row.scorer for row in result.beside or ()}
    errors = [row for row in result.reconstruction_errors or () if row.scorer not in compared]
    blocks += [_errors(errors)] if errors else []
    blocks += [_scorers(result.beside)] if result.beside else []
    return "\n\n".join([f"{heading} · scorer {result.scorer}", *(indent(block, "  ") for block in blocks)])


def _ranking(result: Evaluation) -> list[NamedText]:
    if result.auroc_ci is None or result.auroc_ci_method is None:
        return [("AUROC", f"none: {unranked(result.false_positive_rate)}")]
    method = result.auroc_ci_method
    between = method if method.startswith("none") else f"{interval(*result.auroc_ci)} ({method})"
    return [
        ("AUROC", f"{result.auroc:.4f}   95 % interval {between}"),
        ("average precision", f"{result.average_precision:.4f}"),
        ("FPR@95TPR", f"{result.fpr_at_95_tpr:.4f}"),
        ("partial AUROC", f"{result.partial_auroc:.4f}   to 10 % FPR, standardised"),
    ]


def _why_missed(result: Evaluation) -> str | None:
    """Where anomalies rank high and few are found, that it is the threshold, and what helps."""
    if (missed := result.missed) is None:
        return None
    why = f"they rank high, and lie below a threshold set by {counted(result.calibration_images, 'normal image')}"
    if missed.rate_without_odd is not None:
        why += f"; without what looks odd among these, {missed.rate_without_odd:.0%} would be found"
    if missed.target_fpr is None:
        return f"{why}; no rate up to a half finds most of them, but they may set it themselves: {missed.command}"
    return f"{why}; a rate of {missed.target_fpr:g} would find {missed.detection_rate:.0%} of them: {missed.command}"


def _pixels(result: Evaluation) -> list[NamedText]:
    return [
        ("", ""),
        ("pixel AUROC", f"{result.pixel_auroc:.4f}   of the heat maps against the masks"),
        ("pixel AP", f"{result.pixel_average_precision:.4f}"),
        ("PRO", f"{result.pro:.4f}   mean share of a defect found, to 30 % FPR; chance is 0.15"),
    ]


def _by_class(rows: Sequence[ClassRow]) -> str:
    """The table by class, normal classes first; with figures of the heat maps where there are masks."""
    pixels = PIXEL_FIGURES if any(row.pixel_auroc is not None for row in rows) else {}
    lines = [
        {
            "class": row.class_,
            "role": row.role,
            "images": f"{row.images:,}",
            "AUROC": figure(row.auroc),
            "95 % interval": interval(row.auroc_low, row.auroc_high),
            "detected": figure(row.detection_rate, ".2%"),
            "false alarms": figure(row.false_alarm_rate, ".2%"),
        }
        | {heading: figure(getattr(row, name)) for name, heading in pixels.items()}
        for row in sorted(rows, key=lambda row: row.role != "normal")
    ]
    return table(lines, NUMBER_COLUMNS | {"images"})


def _errors(rows: Sequence[ErrorRow]) -> str:
    """The plain reconstruction errors below the detector's own scorer, each with what it is."""
    return table(
        [
            {
                "scorer": row.scorer,
                "AUROC": f"{row.auroc:.4f}",
                "95 % interval": interval(row.auroc_low, row.auroc_high),
                "what it is": row.about,
            }
            for row in rows
        ]
    )


def _scorers(rows: Sequence[ScorerRow]) -> str:
    """The scorers side by side, the detector's own first, which has no difference to itself and took no time."""
    pixels = {name: heading for name, heading in PIXEL_FIGURES.items() if any(row.pixels.get(name) for row in rows)}
    lines = [
        {
            "scorer": row.scorer,
            "AUROC": f"{row.auroc:.4f}",
            "95 % interval": interval(row.auroc_low, row.auroc_high),
            "FPR@95TPR": f"{row.fpr_at_95_tpr:.4f}",
            "difference": "" if row.seconds is None else f"{row.difference:+.4f}",
            "p (DeLong)": "" if row.seconds is None else p_value(row.p_value),
            "seconds": figure(row.seconds, ".1f"),
        }
        | {heading: figure(row.pixels[name]) for name, heading in pixels.items()}
        for row in rows
    ]
    return "\n".join([table(lines), *no_p_values(row.no_p_value for row in rows)])


@as_text.register
def exported(result: Exported) -> str:
    deviations = ", ".join(f"{name} {value:.1g}" for name, value in result.deviations.items())
    checked = f"against PyTorch on {counted(result.images, 'image')}; largest relative deviations: {deviations}"
    rows = [
        ("written", f"{result.file}, {result.bytes / 1e6:,.1f} MB, opset {result.opset}"),
        *(("in", f"{name}: {kind}") for name, kind in result.inputs.items()),
        *(("out", f"{name}: {kind}") for name, kind in result.outputs.items()),
        ("no heat map", None if "heat_map" in result.outputs else "the scorer has none"),
        ("threshold", f"{result.threshold:.4f}   of the score, and in the file's metadata"),
        ("checked", checked),
    ]
    return named_lines(rows, 14)
