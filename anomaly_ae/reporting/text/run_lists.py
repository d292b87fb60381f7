"""Runs: as a list, side by side, cells of a pipeline, registered."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from anomaly_ae.reporting.text.phrases import figure, interval, no_p_values, p_value, percent
from anomaly_ae.runs.record import RUNNING, RunRecord
from anomaly_ae.runs.run_results import (
    ComparedRun,
    Listed,
    PipelineResult,
    Promoted,
    RunComparison,
    RunListing,
    ScorerMeans,
    SystemRow,
)
from anomaly_ae.runtime.printed import Columns, as_text, to_dict
from anomaly_ae.runtime.spelling import command, setting
from anomaly_ae.runtime.tables import columns, plain_table

NOTE_LETTERS = 100  # to a line
BEHIND = f" not all of it is in MLflow: {command('runs', sync=True)}"
COMPARISON_NOTE = (
    "Differences are those of the AUROC to the first run's, with DeLong's 95 % interval and two-sided p-value, given "
    "where both runs were tested on the same images."
)
SCORERS_NOTE = (
    "low, high: 95 % interval of the AUROC over the seeds (of a single cell, DeLong's). better, worse: among so many "
    "cells, those where DeLong's test at 5 % finds the scorer better or worse than the cell's own. any network: "
    "scorers that see the images alone."
)
CELLS_NOTE = (
    "mse: mean squared reconstruction error of images in [0, 1], of the first cell of each system. auroc NORMAL: of "
    "the cell with these normal classes, and its 95 % interval."
)


@as_text.register
def listed_runs(result: RunListing) -> str:
    rows = result.runs
    if not rows and result.of:
        return f"none of the {result.of:,} runs is like that"
    if not rows:
        return f"no runs; train with: {command('train', normal='0,1,2')}"
    head = ("run", "started", "status", "name", "AUROC", "false alarms", "seconds")
    lines = columns([head, *map(_run, rows)], right=(4, 5, 6))
    behind = any(row.unlogged and row.status != RUNNING for row in rows)
    away = sum(not row.here for row in rows)
    others = f"{away:,} of {len(rows):,} are at {result.server} alone, and are fetched when they are named"
    more = f"{result.more:,} more; see them with a higher {setting('limit')}, or without it"
    notes = [*([more] if result.more else []), *([f"*{BEHIND}"] if behind else []), *([others] if away else [])]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def deletable(runs: Sequence[RunRecord]) -> str:
    return "\n".join(columns([(run.id[:8], run.started[:16].replace("T", " "), run.name) for run in runs]))


def deleted(result: Mapping[str, Sequence[str]]) -> str:
    return f"deleted {len(result['deleted']):,}; what MLflow has of that stays in its trash until: mlflow gc"


def _run(row: Listed) -> tuple[str, ...]:
    """A line of the list; the cells of a pipeline file and calibrations are set in."""
    behind = "*" if row.unlogged and row.status != RUNNING else ""
    name = ("└ " if row.parent else "") + row.name
    seconds = "" if row.seconds is None else f"{row.seconds:,.1f}"
    about = (row.run_id[:8], row.started[:16].replace("T", " "), row.status + behind, name)
    return (*about, figure(row.auroc), percent(row.false_positive_rate), seconds)


@as_text.register
def compared(result: PipelineResult) -> str:
    scorers = narrow_scorers(result.scorers)
    tables = [scorers] if scorers else [_shown(result.comparison), [*map(to_dict, result.published)]]
    lines = [line for table in tables if table for line in ("", *plain_table(table))][1:]
    lines += ["", *textwrap.wrap(SCORERS_NOTE if scorers else CELLS_NOTE, NOTE_LETTERS)]
    failed = [f"failed: {name}: {reason}" for name, reason in result.failed.items()]
    return "\n".join([*lines, *failed, "", f"kept in {result.run_folder}"])


def narrow_scorers(rows: Sequence[ScorerMeans]) -> list[dict[str, Any]]:
    """A table of scorers without the columns that make it too wide for a terminal or a page."""
    return [to_dict(replace(row, by_class=Columns())) for row in rows]


def _shown(rows: Sequence[SystemRow]) -> list[dict[str, Any]]:
    """A comparison without the columns that make it too wide for a terminal; the files have them all."""
    left_out = ("dataset", "normal", "objective", "measure", "source", "ours", "difference")
    return [
        {k: v for k, v in row.items() if k not in left_out and not k.endswith("_own")} for row in map(to_dict, rows)
    ]


@as_text.register
def promoted(result: Promoted) -> str:
    before = f"; it was version {result.before} before" if result.before else ""
    figures = "" if result.auroc is None else f", AUROC {result.auroc:.4f}"
    rows = [
        ("registered", f"run {result.run_id}, as version {result.version} of {result.name}{figures}"),
        ("alias", f"{result.alias}{before}"),
        ("next", command("score", "FOLDER", model=result.uri)),
    ]
    return "\n".join(f"{name:<14}{text}" for name, text in rows)


@as_text.register
def set_side_by_side(result: RunComparison) -> str:
    rows, ranks = result.runs, ("AUROC", "95 % interval", "difference", "p (DeLong)", "FPR@95TPR")
    head = ("run", "name", *ranks, "false alarms", "detected")
    table = columns([head, *(_beside_first(row, rows[0]) for row in rows)], right=(2, *range(4, len(head))))
    settings = [f"{name:<16}{' · '.join(map(_setting, values))}" for name, values in result.settings.items()]
    return "\n".join(
        [*table, *no_p_values(row.no_p_value for row in rows), "", *settings, f"{'page':<16}{result.page}"]
    )


def _beside_first(row: ComparedRun, first: ComparedRun) -> tuple[str, ...]:
    ranks = (figure(row.auroc), interval(row.auroc_low, row.auroc_high), *_compared(row, first))
    rates = (percent(row.false_positive_rate), percent(row.true_positive_rate))
    return (row.run[:8], row.name, *ranks, figure(row.fpr_at_95_tpr), *rates)


def _compared(row: ComparedRun, first: ComparedRun) -> tuple[str, str]:
    """Difference and p-value; for the first, and what has no AUROC, nothing."""
    if row.difference is not None:
        return f"{row.difference:+.4f}", p_value(row.p_value)
    return ("", "") if row is first or None in (row.auroc, first.auroc) else ("other images", "")


def side_by_side(names: Sequence[str], rows: Sequence[ComparedRun]) -> list[list[str]]:
    """What runs came to, a row for each figure that any of them has, a column for each run."""
    figures: dict[str, list[str]] = {
        "run": [row.run[:8] for row in rows],
        "test images": [_count(row.images) for row in rows],
        "guarantee": [row.guarantee or "" for row in rows],
        "AUROC": [figure(row.auroc) for row in rows],
        "95 % interval": [interval(row.auroc_low, row.auroc_high) for row in rows],
        "difference to the first": [_compared(row, rows[0])[0] for row in rows],
        "95 % interval of that": ["" if row.difference is None else _range(row) for row in rows],
        "p (DeLong)": [row.no_p_value or _compared(row, rows[0])[1] for row in rows],
        "average precision": [figure(row.average_precision) for row in rows],
        "FPR@95TPR": [figure(row.fpr_at_95_tpr) for row in rows],
        "partial AUROC": [figure(row.partial_auroc) for row in rows],
        "false-alarm rate": [percent(row.false_positive_rate) for row in rows],
        "detection rate": [percent(row.true_positive_rate) for row in rows],
        "pixel AUROC": [figure(row.pixel_auroc) for row in rows],
        "pixel AP": [figure(row.pixel_average_precision) for row in rows],
        "PRO": [figure(row.pro) for row in rows],
        "parameters": [_count(row.parameters) for row in rows],
        "epochs": [_count(row.epochs) for row in rows],
        "seconds of training": ["" if row.seconds is None else f"{row.seconds:,.1f}" for row in rows],
    }
    return [["", *names], *([name, *values] for name, values in figures.items() if any(values))]


def settings_side_by_side(names: Sequence[str], settings: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    return [["", *names], *([name, *map(_setting, values)] for name, values in settings.items())]


def _setting(value: Any) -> str:
    return "–" if value is None else str(value)


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _range(row: ComparedRun) -> str:
    return f"{row.difference_low:+.4f} to {row.difference_high:+.4f}"
