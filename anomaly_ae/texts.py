"""Results as text for people, as the command line prints them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anomaly_ae.tables import columns, plain_table

BEHIND = " not all of it is in MLflow: anomaly-ae runs --sync"
COMPARISON_NOTE = (
    "Differences are those of the AUROC to the first run's, with DeLong's 95 % interval and two-sided p-value, given "
    "where both runs were tested on the same images."
)
RANKED = {"average_precision": "average precision", "fpr_at_95_tpr": "FPR@95TPR", "partial_auroc": "partial AUROC"}
PIXEL_FIGURES = {"pixel_auroc": "pixel AUROC", "pixel_average_precision": "pixel AP", "pro": "PRO"}


def trained(result: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"run           {result['run_id']}",
            f"trained       {result['epochs']} epochs in {result['train_seconds']:.1f} s on {result['device']}, "
            f"{result['images_per_second']:,.0f} images/s, {result['parameters']:,} parameters",
            f"loss          {result['final_loss']:.5f} · validation {result['validation_loss']:.5f} "
            f"(best, epoch {result['best_epoch']})",
            f"threshold     {result['threshold']:.4f} for a false-alarm rate of {result['target_fpr']:g} (marginal), "
            f"from {result['calibration_images']:,} normal images, which hold rates from "
            f"{_up(1 / (result['calibration_images'] + 1))} ({result['scorer']})",
            f"kept in       {result['run_folder']}",
            "next          anomaly-ae evaluate · anomaly-ae ui",
        ]
    )


def calibrated(result: Mapping[str, Any]) -> str:
    rates = " · ".join(f"{name} from {_up(rate)}" for name, rate in result["smallest_rates"].items())
    bad = f"; {result['unreadable']:,} files could not be read" if result["unreadable"] else ""
    rows = [
        ("run", result["run_id"]),
        ("calibrated on", f"{result['images']:,} normal images: {result['calibrated_on']}{bad}"),
        (
            "threshold",
            f"{result['threshold']:.4f} for a false-alarm rate of {result['target_fpr']:g} ({result['guarantee']}); "
            f"before {result['threshold_before']:.4f}",
        ),
        ("rates possible", f"{rates} · tail for less, as an extrapolation"),
        *(("warning", text) for text in result["differences"]),
        *([("moved", f"{_moved(result['drift'])} a new image scores above an old one")] if result["drift"] else []),
        *(_anomalies(result["anomalies"]) if result["anomalies"] else []),
        ("kept in", result["run_folder"]),
        ("next", f"anomaly-ae evaluate {result['run_id']} · anomaly-ae score FOLDER --model {result['run_id']}"),
    ]
    return "\n".join(f"{name:<16}{text}" for name, text in rows)


def _moved(drift: Mapping[str, Any]) -> str:
    said = "the scores as a whole have moved" if drift["moved"] else "not clearly beyond 30 to 70 %"
    low, high = drift["interval"]["low"], drift["interval"]["high"]
    return f"{said}: in {drift['effect']:.1%} of pairs (99 % interval {low:.1%} to {high:.1%})"


def _anomalies(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    low, high = found["detection_rate_ci"]
    return [
        (
            "anomalies",
            f"{found['detection_rate']:.1%} of {found['images']:,} are found (95 % interval {low:.1%} to {high:.1%})",
        ),
        (
            "best F1",
            f"{found['best_f1']:.4f} with threshold {found['best_f1_threshold']:.4f}, chosen on these very images, "
            f"without a guarantee: {found['best_f1_detection_rate']:.1%} found, "
            f"{found['best_f1_false_positive_rate']:.2%} false alarms",
        ),
    ]


def encoded(result: Mapping[str, Any]) -> str:
    bad = f", {result['errors']:,} of which could not be read: see the column error" if result["errors"] else ""
    return f"{result['images']:,} images{bad}, {result['latent_size']:,} latent numbers each, in {result['output']}"


def scored(result: Mapping[str, Any]) -> str:
    places = [(name, result[key]) for name, key in (("heat maps", "heatmaps"), ("report", "report")) if result[key]]
    return "\n".join(f"{name:<16}{text}" for name, text in [*scored_rows(result), *places])


def scored_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What came of scoring, as names and texts."""
    good = result["images"] - result["errors"]
    rate = f"{result['images_per_second']:,.0f} images/s"
    were = f"{result['scored']:,} {'image' if result['scored'] == 1 else 'images'}"
    return [
        ("detector", result["detector"]),
        ("images", f"{result['images']:,}{_resumed(result)}"),
        (
            "anomalous",
            f"{result['anomalies']:,} of {good:,} are above the threshold {result['threshold']:.4f}, "
            f"for a false-alarm rate of {result['target_fpr']:g} ({result['guarantee']})",
        ),
        *(_found(result) if result["fdr"] is not None else []),
        *([("bad files", f"{result['errors']:,} have an error and no score")] if result["errors"] else []),
        *(("", f"{count:,} × {reason}") for reason, count in result["error_kinds"].items()),
        *([("skipped", f"{result['skipped']:,} (no images)")] if result["skipped"] else []),
        *(("warning", text) for text in (*result["unread_folders"], *result["differences"])),
        *_shifted(result["drift"]),
        ("worked on", f"{were} in {_duration(result['seconds'])}, {rate}"),
        ("kept in", result["output"]),
    ]


def _resumed(result: Mapping[str, Any]) -> str:
    """What had been scored before, and what is other than it was."""
    if not result["resumed"]:
        return ""
    changes = [f"{result[word]:,} {word}" for word in ("new", "changed", "gone") if result[word]]
    said = f"; since the job began {', '.join(changes)}" if changes else ""
    before = result["images"] - result["scored"]
    return f", {before:,} of which had been scored before{said}" if before else f", all of them now{said}"


def _found(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts = {"found": result["discoveries"], "fewest_possible": result["fewest_discoveries"]}
    whole = {"fdr": result["fdr"], "images": result["images"] - result["errors"], "false_discovery_share": None}
    return [row for row in _discovered(counts | whole) if row != ("", "")]


def _shifted(drift: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """A word where scores have moved; anomalies alone may do it, if there are many."""
    if drift is None or not drift["moved"]:
        return []
    return [("drift", f"{_moved(drift)} one of these images scores above a calibration image")]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def evaluated(result: Mapping[str, Any]) -> str:
    rows = [
        *(_ranked(result) if result["auroc"] is not None else [("AUROC", "none: every class is normal")]),
        ("", ""),
        ("reconstruction MSE", f"{result['reconstruction_mse']:.5f}   of the normal test images, in [0, 1]"),
        (
            "threshold",
            f"{result['threshold']:.4f}   for a false-alarm rate of {result['target_fpr']:g} "
            f"({result['calibration']})",
        ),
        ("false-alarm rate", _percent(result["false_positive_rate"])),
        ("detection rate", _percent(result["true_positive_rate"])),
        ("precision", _percent(result["precision"])),
        ("F1", _percent(result["f1"])),
        ("drift", _drift(result["drift"])),
        *(_pixels(result) if result["pixel_auroc"] is not None else []),
        *(_discovered(result["discoveries"]) if result["discoveries"] else []),
    ]
    dataset = result["dataset"].rstrip("/").rpartition("/")[2]  # of a folder its own name
    heading = f"{dataset}: normal {', '.join(result['normal'])} · {result['images']:,} test images"
    lines = [
        f"{heading} · scorer {result['scorer']}",
        "",
        *(f"  {name:<18} {text}".rstrip() for name, text in rows),
    ]
    tables = [_by_class(result["per_class"]), *([_beside(result["beside"])] if result["beside"] else [])]
    return "\n".join([*lines, *(line for table in tables for line in ("", *table))])


def _ranked(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    low, high = result["auroc_ci"]
    interval = f"95 % interval {low:.4f} to {high:.4f} ({result['auroc_ci_method']})"
    return [
        ("AUROC", f"{result['auroc']:.4f}   {interval}"),
        ("average precision", f"{result['average_precision']:.4f}"),
        ("FPR@95TPR", f"{result['fpr_at_95_tpr']:.4f}"),
        ("partial AUROC", f"{result['partial_auroc']:.4f}   to 10 % FPR, standardised"),
    ]


def _pixels(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("", ""),
        ("pixel AUROC", f"{result['pixel_auroc']:.4f}   of the heat maps against the masks"),
        ("pixel AP", f"{result['pixel_average_precision']:.4f}"),
        ("PRO", f"{result['pro']:.4f}   mean share of a defect found, to 30 % FPR; chance is 0.15"),
    ]


def _drift(drift: Mapping[str, Any] | None) -> str:
    if drift is None:
        return "not measured: fewer than 20 normal images to compare"
    return f"{_moved(drift)} a normal test image scores above a calibration image"


def _discovered(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    possible, images = found["fewest_possible"], found["images"]
    if possible > images:
        needed = math.ceil(1 / found["fdr"] - 1e-9) - 1
        wanted = f"none possible: a false discovery rate of {found['fdr']:g} needs {needed:,} calibration images"
        return [("", ""), ("discoveries", wanted)]
    wrong = found["false_discovery_share"]
    rows = [
        ("", ""),
        (
            "discoveries",
            f"{found['found']:,} of {images:,} images at a false discovery rate of {found['fdr']:g}; "
            f"{possible:,} are the fewest possible",
        ),
    ]
    if wrong is None:
        return rows
    return [*rows, ("false among them", _percent(wrong)), ("of all novel ones", _percent(found["detection_rate"]))]


def _by_class(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table by class, normal classes first; with figures of the heat maps where there are masks."""
    mapped = any(row["pixel_auroc"] is not None for row in rows)
    head = ("class", "role", "images", "AUROC", "95 % interval", "detected", "false alarms")
    lines = [
        (
            *(row["class"], row["role"], f"{row['images']:,}"),
            *(("", "") if row["auroc"] is None else (f"{row['auroc']:.4f}", _interval(row))),
            *(_percent(row["detection_rate"]), _percent(row["false_alarm_rate"])),
            *((_figure(row[name]) for name in PIXEL_FIGURES) if mapped else ()),
        )
        for row in sorted(rows, key=lambda row: row["role"] != "normal")
    ]
    heads = (*head, *PIXEL_FIGURES.values()) if mapped else head
    return [f"  {line}" for line in columns([heads, *lines], right=(2, 3, *range(5, len(heads))))]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['auroc_low']:.4f} to {row['auroc_high']:.4f}"


def _beside(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The scorers side by side, the detector's own first."""
    pixels = {name: heading for name, heading in PIXEL_FIGURES.items() if any(row.get(name) for row in rows)}
    head = ("scorer", "AUROC", "95 % interval", "FPR@95TPR", "difference", "p (DeLong)", "seconds", *pixels.values())
    lines = [
        (
            *(row["scorer"], f"{row['auroc']:.4f}", _interval(row)),
            *(f"{row['fpr_at_95_tpr']:.4f}", *_against(row), *(_figure(row[name]) for name in pixels)),
        )
        for row in rows
    ]
    return [f"  {line}" for line in columns([head, *lines], right=(1, *range(3, len(head))))]


def _against(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Difference to the detector's own scorer, p-value and seconds; nothing for itself."""
    if row["seconds"] is None:
        return ("", "", "")
    return (f"{row['difference']:+.4f}", f"{row['p_value']:.2g}", f"{row['seconds']:.1f}")


def _up(rate: float) -> str:
    """A rate rounded up, so that it can be asked for."""
    return f"{math.ceil(1e4 * rate - 1e-9) / 1e4:g}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def autoencoders(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("name", "family", "images", "encoder", "decoder", "latent", "what it is", "where from")
    lines = [
        (
            *(row["name"], row["family"], _times(row["image_shape"])),
            *(f"{row['encoder_parameters']:,}", f"{row['decoder_parameters']:,}", _times(row["latent_shape"])),
            *(row["about"], row["origin"]),
        )
        for row in rows
    ]
    return "\n".join([*columns([head, *lines], right=(3, 4)), "", "one layer by layer: anomaly-ae autoencoders NAME"])


def layers(result: Mapping[str, Any]) -> str:
    head = ("", "layer", "output shape", "parameters")
    lines = [
        (row["part"], row["layer"], _times(row["output_shape"]), f"{row['parameters']:,}") for row in result["layers"]
    ]
    encoder, decoder = result["encoder_parameters"], result["decoder_parameters"]
    return "\n".join(
        [
            f"{result['name']} ({result['family']}): {result['about']}; from: {result['origin']}",
            f"images {_times(result['image_shape'])}, latent {_times(result['latent_shape'])}",
            "",
            *columns([head, *lines], right=(3,)),
            "",
            f"parameters: encoder {encoder:,} + decoder {decoder:,} = {encoder + decoder:,}",
        ]
    )


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A comparison without the columns that make it too wide for a terminal; the files have them all."""
    left_out = ("dataset", "normal", "objective", "measure", "source", "ours", "difference")
    return [{k: v for k, v in row.items() if k not in left_out and not k.endswith("_own")} for row in rows]


def compared(result: Mapping[str, Any]) -> str:
    shown = ("system", "scorer", "auroc", "low", "high", "seeds", "better", "worse", "cells")
    scorers = [{key: row[key] for key in shown} for row in result["scorers"]]
    tables = [scorers] if scorers else [_shown(result["comparison"]), result["published"]]
    lines = [line for table in tables if table for line in ("", *plain_table(table))][1:]
    failed = [f"failed: {name}: {reason}" for name, reason in result["failed"].items()]
    return "\n".join([*lines, *failed, "", f"kept in {result['run_folder']}"])


def exported(result: Mapping[str, Any]) -> str:
    deviations = ", ".join(f"{name} {value:.1g}" for name, value in result["deviations"].items())
    heat = [] if "heat_map" in result["outputs"] else [("no heat map", "the scorer has none")]
    rows = [
        ("written", f"{result['file']}, {result['bytes'] / 1e6:,.1f} MB, opset {result['opset']}"),
        *(("in", f"{name}: {kind}") for name, kind in result["inputs"].items()),
        *(("out", f"{name}: {kind}") for name, kind in result["outputs"].items()),
        *heat,
        ("threshold", f"{result['threshold']:.4f}   of the score, and in the file's metadata"),
        ("checked", f"against PyTorch on {result['images']} images; largest relative deviations: {deviations}"),
    ]
    return "\n".join(f"{name:<14}{text}" for name, text in rows)


def promoted(result: Mapping[str, Any]) -> str:
    before = f"; it was version {result['before']} before" if result["before"] else ""
    figures = "" if result["auroc"] is None else f", AUROC {result['auroc']:.4f}"
    rows = [
        ("registered", f"run {result['run_id']}, as version {result['version']} of {result['name']}{figures}"),
        ("alias", f"{result['alias']}{before}"),
        ("next", f"anomaly-ae score FOLDER --model {result['uri']}"),
    ]
    return "\n".join(f"{name:<14}{text}" for name, text in rows)


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def listed(entries: Mapping[str, Any]) -> str:
    width = max(map(len, entries))
    return "\n".join(f"{name:<{width}}  {about}" for name, about in entries.items())


def listed_runs(result: Mapping[str, Any]) -> str:
    rows = result["runs"]
    others = [f"those of others are at {result['server']}; see: anomaly-ae ui"] if result["server"] else []
    if not rows:
        return "\n".join(["no runs; train with: anomaly-ae train --normal 0,1,2", *others])
    head = ("run", "started", "status", "name", "AUROC", "false alarms", "seconds")
    lines = columns([head, *map(_run, rows)], right=(4, 5, 6))
    behind = any(row["unlogged"] and row["status"] != "RUNNING" for row in rows)
    return "\n".join([*lines, *(["", f"*{BEHIND}"] if behind else []), *others])


def _run(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A line of the list; the cells of a pipeline file and calibrations are set in."""
    behind = "*" if row["unlogged"] and row["status"] != "RUNNING" else ""
    name = ("└ " if row["parent"] else "") + row["name"]
    seconds = "" if row["seconds"] is None else f"{row['seconds']:,.1f}"
    about = (row["id"][:8], row["started"][:16].replace("T", " "), row["status"] + behind, name)
    return (*about, _figure(row["auroc"]), _percent(row["false_positive_rate"]), seconds)


def set_side_by_side(result: Mapping[str, Any]) -> str:
    head = (
        "run",
        "name",
        "AUROC",
        "95 % interval",
        "difference",
        "p (DeLong)",
        "FPR@95TPR",
        "false alarms",
        "detected",
    )
    lines = [
        (
            *(row["run"][:8], row["name"], _figure(row["auroc"])),
            *("" if row["auroc"] is None else _interval(row), *_compared(row), _figure(row["fpr_at_95_tpr"])),
            *(_percent(row["false_positive_rate"]), _percent(row["true_positive_rate"])),
        )
        for row in result["runs"]
    ]
    settings = [f"{name:<16}{' · '.join(map(_setting, values))}" for name, values in result["settings"].items()]
    table = columns([head, *lines], right=(2, *range(4, len(head))))
    return "\n".join([*table, "", *settings, f"{'page':<16}{result['page']}"])


def _compared(row: Mapping[str, Any]) -> tuple[str, str]:
    return ("", "") if row["p_value"] is None else (f"{row['difference']:+.4f}", f"{row['p_value']:.2g}")


def side_by_side(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What runs came to, a row for each figure that any of them has, a column for each run."""
    figures: dict[str, list[str]] = {
        "run": [row["run"][:8] for row in rows],
        "test images": [_count(row["images"]) for row in rows],
        "guarantee": [row["guarantee"] or "" for row in rows],
        "AUROC": [_figure(row["auroc"]) for row in rows],
        "95 % interval": ["" if row["auroc"] is None else _interval(row) for row in rows],
        "difference to the first": [_compared(row)[0] for row in rows],
        "95 % interval of that": ["" if row["p_value"] is None else _range(row) for row in rows],
        "p (DeLong)": [_compared(row)[1] for row in rows],
        **{text: [_figure(row[key]) for row in rows] for key, text in RANKED.items()},
        "false-alarm rate": [_percent(row["false_positive_rate"]) for row in rows],
        "detection rate": [_percent(row["true_positive_rate"]) for row in rows],
        **{text: [_figure(row[key]) for row in rows] for key, text in PIXEL_FIGURES.items()},
        "parameters": [_count(row["parameters"]) for row in rows],
        "epochs": [_count(row["epochs"]) for row in rows],
        "seconds of training": ["" if row["seconds"] is None else f"{row['seconds']:,.1f}" for row in rows],
    }
    return [["", *names], *([name, *values] for name, values in figures.items() if any(values))]


def settings_side_by_side(names: Sequence[str], settings: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    return [["", *names], *([name, *map(_setting, values)] for name, values in settings.items())]


def _setting(value: Any) -> str:
    return "–" if value is None else str(value)


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _range(row: Mapping[str, Any]) -> str:
    return f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}"
