"""Lists: what there is to choose from, runs, runs side by side, cells of a pipeline."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anomaly_ae.escaping import times
from anomaly_ae.reporting.text.phrases import (
    PIXEL_FIGURES,
    figure,
    interval,
    named_lines,
    no_p_values,
    p_value,
    table,
)
from anomaly_ae.runs.pipeline_results import ClassMeans, PipelineResult, ScorerMeans
from anomaly_ae.runs.record import RUNNING, RunRecord
from anomaly_ae.runs.run_results import ComparedRun, Listed, Promoted, RunComparison, RunListing
from anomaly_ae.runtime.printed import Columns, as_text, to_dict
from anomaly_ae.runtime.spelling import command, from_here, setting
from anomaly_ae.runtime.tables import columns, plain_table

if TYPE_CHECKING:
    from anomaly_ae.autoencoders.summary import Architecture, Summary

NOTE_LETTERS = 100  # to a line
COMPARISON_NOTE = (
    "Differences are those of the AUROC to the first run's, with DeLong's 95 % interval and two-sided p-value, given "
    "where both runs were tested on the same images."
)
SCORERS_NOTE = (
    "low, high: 95 % interval of the AUROC over the seeds (of a single cell, DeLong's). better, worse: among so many "
    "cells, those where DeLong's test at 5 % finds the scorer better or worse than the cell's own. any network: "
    "scorers that see the images alone."
)
CLASSES_NOTE = (
    "Novel classes against all normal test images, means over the seeds. The intervals are of that mean, for other "
    "test images, not for other networks: DeLong's, and the bootstrap's over images."
)
CELLS_NOTE = (
    "mse: mean squared reconstruction error of images in [0, 1], of the first cell of each system. auroc NORMAL: of "
    "the cell with these normal classes, and its 95 % interval."
)
FOR_FILES = ("dataset", "normal", "objective", "measure", "source", "ours", "difference")  # a terminal has no room


def listed(entries: Mapping[str, str]) -> str:
    return named_lines(entries.items(), max(map(len, entries)) + 2)


def data_sets(entries: Mapping[str, str]) -> str:
    own = {
        "FOLDER": "pictures of one's own, in folders good and bad, train and test …; or its address (s3://…)",
        "FILE.csv": "a manifest: columns path and label, and perhaps mask and split",
        "FILE.jsonl": "the same names in JSON lines, or an augmented manifest of SageMaker (FILE.manifest)",
    }
    return listed(dict(entries) | own)


def autoencoders(result: "Mapping[str, list[Summary]]") -> str:
    rows = [
        {
            "name": row.name,
            "family": row.family,
            "images": times(row.image_shape),
            "encoder": f"{row.encoder_parameters:,}",
            "decoder": f"{row.decoder_parameters:,}",
            "latent": times(row.latent_shape),
            "what it is": row.about,
            "where from": row.origin,
        }
        for row in result["autoencoders"]
    ]
    return f"{table(rows)}\n\none layer by layer: anomaly-ae autoencoders NAME"


def layers(result: "Architecture") -> str:
    rows = [
        {
            "": row.part,
            "layer": row.layer,
            "output shape": times(row.output_shape),
            "parameters": f"{row.parameters:,}",
        }
        for row in result.layers
    ]
    encoder, decoder = result.encoder_parameters, result.decoder_parameters
    return "\n".join(
        [
            f"{result.name} ({result.family}): {result.about}; from: {result.origin}",
            f"images {times(result.image_shape)}, latent {times(result.latent_shape)}",
            "",
            table(rows),
            "",
            f"parameters: encoder {encoder:,} + decoder {decoder:,} = {encoder + decoder:,}",
        ]
    )


@as_text.register
def listed_runs(result: RunListing) -> str:
    rows = result.runs
    if not rows and result.of:
        return f"none of the {result.of:,} runs is like that"
    if not rows:
        return f"no runs; train with: {command('train', normal='0,1,2')}"
    notes = []
    if result.more:
        notes.append(f"{result.more:,} more; see them with a higher {setting('limit')}, or without it")
    if any(map(_is_behind, rows)):
        notes.append(f"* not all of it is in MLflow: {command('runs', sync=True)}")
    if away := sum(not row.here for row in rows):
        notes.append(f"{away:,} of {len(rows):,} are at {result.server} alone, and are fetched when they are named")
    lines = [
        {
            "run": row.run_id[:8],
            "started": _minute(row.started),
            "status": row.status + ("*" if _is_behind(row) else ""),
            "name": ("└ " if row.parent else "") + row.name,  # cells of a pipeline file, and calibrations
            "AUROC": figure(row.auroc),
            "false alarms": figure(row.false_positive_rate, ".2%"),
            "seconds": figure(row.seconds, ",.1f"),
        }
        for row in rows
    ]
    return "\n".join([table(lines), *([""] if notes else []), *notes])


def deletable(runs: Sequence[RunRecord]) -> str:
    return "\n".join(columns([(run.id[:8], _minute(run.started), run.name) for run in runs]))


def deleted(result: Mapping[str, Sequence[str]]) -> str:
    return f"deleted {len(result['deleted']):,}; what MLflow has of that stays in its trash until: mlflow gc"


def _is_behind(row: Listed) -> bool:
    return row.unlogged and row.status != RUNNING


def _minute(started: str) -> str:
    return started[:16].replace("T", " ")


@as_text.register
def compared(result: PipelineResult) -> str:
    scorers = narrow_scorers(result.scorers)
    systems = [
        {key: value for key, value in to_dict(row).items() if key not in FOR_FILES and not key.endswith("_own")}
        for row in result.comparison
    ]
    tables = [scorers] if scorers else [systems, [*map(to_dict, result.published)]]
    lines = [line for rows in tables if rows for line in ("", *plain_table(rows))][1:]
    lines += ["", *textwrap.wrap(SCORERS_NOTE if scorers else CELLS_NOTE, NOTE_LETTERS)]
    if result.classes:
        lines += ["", *table(narrow_classes(result.classes)).split("\n")]
        lines += ["", *textwrap.wrap(CLASSES_NOTE, NOTE_LETTERS)]
    return "\n".join([*lines, *_failures(result.failed), "", f"kept in {from_here(result.run_folder)}"])


def _failures(failed: Mapping[str, str]) -> list[str]:
    """A line for each reason that cells failed for."""
    cells: dict[str, list[str]] = {}
    for name, reason in failed.items():
        cells.setdefault(reason, []).append(name)
    return [
        f"failed: {names[0] if len(names) == 1 else f'{len(names):,} cells, {names[0]} to {names[-1]}'}: {reason}"
        for reason, names in cells.items()
    ]


def narrow_scorers(rows: Sequence[ScorerMeans]) -> list[dict[str, Any]]:
    """A table of scorers without the columns that make it too wide for a terminal or a page."""
    return [to_dict(replace(row, by_class=Columns())) for row in rows]


def narrow_classes(rows: Sequence[ClassMeans]) -> list[dict[str, str]]:
    """A table of novel classes: each interval in a column of its own, and pixels only where they were measured."""
    measured = {key: name for key, name in PIXEL_FIGURES.items() if any(vars(row)[key] is not None for row in rows)}
    return [
        {
            "system": row.system,
            "class": row.class_,
            "images": f"{row.images:,}",
            "AUROC": figure(row.auroc),
            "DeLong 95 %": interval(row.low, row.high),
            "bootstrap 95 %": interval(row.bootstrap_low, row.bootstrap_high),
            "detected": figure(row.detection_rate, ".1%"),
            "false alarms": figure(row.false_alarm_rate, ".1%"),
            **{name: figure(vars(row)[key]) for key, name in measured.items()},
        }
        for row in rows
    ]


@as_text.register
def promoted(result: Promoted) -> str:
    before = f"; it was version {result.before} before" if result.before else ""
    auroc = "" if result.auroc is None else f", AUROC {result.auroc:.4f}"
    rows = [
        ("registered", f"run {result.run_id}, as version {result.version} of {result.name}{auroc}"),
        ("alias", f"{result.alias}{before}"),
        ("next", command("score", "FOLDER", model=result.uri)),
    ]
    return named_lines(rows, 14)


@as_text.register
def set_side_by_side(result: RunComparison) -> str:
    first, *_ = result.runs
    rows = [
        {
            "run": row.run[:8],
            "name": row.name,
            "AUROC": figure(row.auroc),
            "95 % interval": interval(row.auroc_low, row.auroc_high),
            "difference": _difference(row, first),
            "p (DeLong)": "" if row.difference is None else p_value(row.p_value),
            "FPR@95TPR": figure(row.fpr_at_95_tpr),
            "false alarms": figure(row.false_positive_rate, ".2%"),
            "detected": figure(row.true_positive_rate, ".2%"),
        }
        for row in result.runs
    ]
    settings = [(name, " · ".join(map(_setting, values))) for name, values in result.settings.items()]
    reasons = no_p_values(row.no_p_value for row in result.runs)
    return "\n".join([table(rows), *reasons, "", named_lines([*settings, ("page", from_here(result.page))], 16)])


def _difference(row: ComparedRun, first: ComparedRun) -> str:
    """Of its AUROC to the first run's; for that, and what has no AUROC, nothing."""
    if row.difference is not None:
        return f"{row.difference:+.4f}"
    return "" if row is first or None in (row.auroc, first.auroc) else "other images"


def side_by_side(names: Sequence[str], rows: Sequence[ComparedRun]) -> list[list[str]]:
    """What runs came to, a row for each figure that any of them has, a column for each run."""
    by_run = [
        {
            "run": row.run[:8],
            "test images": figure(row.images, ","),
            "guarantee": row.guarantee or "",
            "AUROC": figure(row.auroc),
            "95 % interval": interval(row.auroc_low, row.auroc_high),
            "difference to the first": _difference(row, rows[0]),
            "95 % interval of that": ""
            if row.difference is None
            else f"{row.difference_low:+.4f} to {row.difference_high:+.4f}",
            "p (DeLong)": row.no_p_value or ("" if row.difference is None else p_value(row.p_value)),
            "average precision": figure(row.average_precision),
            "FPR@95TPR": figure(row.fpr_at_95_tpr),
            "partial AUROC": figure(row.partial_auroc),
            "false-alarm rate": figure(row.false_positive_rate, ".2%"),
            "detection rate": figure(row.true_positive_rate, ".2%"),
        }
        | {heading: figure(getattr(row, name)) for name, heading in PIXEL_FIGURES.items()}
        | {
            "parameters": figure(row.parameters, ","),
            "epochs": figure(row.epochs, ","),
            "seconds of training": figure(row.seconds, ",.1f"),
        }
        for row in rows
    ]
    by_figure = [[name, *(of_run[name] for of_run in by_run)] for name in by_run[0]]
    return [["", *names], *(line for line in by_figure if any(line[1:]))]


def settings_side_by_side(names: Sequence[str], settings: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    return [["", *names], *([name, *map(_setting, values)] for name, values in settings.items())]


def _setting(value: Any) -> str:
    return "–" if value is None else str(value)
