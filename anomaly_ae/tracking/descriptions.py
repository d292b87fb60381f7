"""What MLflow is told about a run in words: its description, and the code that ran."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomaly_ae.escaping import markdown, markdown_code, short_name
from anomaly_ae.reporting.text.listings import narrow_classes, narrow_scorers
from anomaly_ae.reporting.text.phrases import interval, unranked
from anomaly_ae.runs.pipeline_results import CellRow, PipelineResult
from anomaly_ae.runs.record import CALIBRATION
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.run_results import CalibrateResult, KeptEvaluation, TrainResult
from anomaly_ae.runtime.printed import from_dict
from anomaly_ae.runtime.spelling import command
from anomaly_ae.runtime.tables import markdown_table

HEADLINE = ("AUROC (95 % interval)", "average precision", "FPR@95TPR", "false alarms", "detected")
COLUMN_GAP = "&emsp;"  # the page leaves no room between columns
VARIED = ("normal", "autoencoder", "objective", "scorer", "seed")
WHERE = "The tables among the artifacts have all figures; `figures/` has pictures of the cells side by side."
TABLES = ("scorers", "classes", "comparison", "published", "cells")  # of a pipeline, each as CSV and Markdown


def describe_pipeline(run: RunFolder) -> str:
    """A pipeline in a few lines of Markdown, with tables of cells and scorers as narrow as the page has room for."""
    about, result = run.read("pipeline.json"), PipelineResult.read(run.read("result.json"))
    tables = {
        "Cells": _cells(result.cells),
        "Novel classes": narrow_classes(result.classes),
        "Scorers": narrow_scorers(result.scorers),
    }
    shown = [f"**{title}**\n\n{_wide(markdown_table(rows))}" for title, rows in tables.items() if rows]
    return "\n\n".join([about["about"].replace("<", "&lt;"), markdown_code(about["command"]), *shown, WHERE])


def _wide(table: str) -> str:
    """A table whose columns do not touch."""
    head, rule, *rows = table.split("\n")
    return "\n".join([_apart(head), rule, *map(_apart, rows)])


def _apart(row: str) -> str:
    return row.replace(" | ", f"{COLUMN_GAP} | ")


def _cells(cells: Sequence[CellRow]) -> list[dict[str, Any]]:
    """A row for each cell: the settings that tell it apart, or else its name, and the headline figures."""
    varied = [key for key in VARIED if len({getattr(row, key) for row in cells}) > 1]
    apart = len({tuple(getattr(row, key) for key in varied) for row in cells}) == len(cells)
    return [{key: getattr(row, key) for key in (varied if apart else ["cell"])} | _figures(row) for row in cells]


def _figures(row: CellRow) -> dict[str, Any]:
    auroc = None if row.auroc is None else f"{row.auroc:.4f} ({interval(row.auroc_low, row.auroc_high)})"
    return {"AUROC (95 % interval)": auroc, "test MSE": row.test_mse, "seconds": row.seconds}


def describe(run: RunFolder, uri: str | None = None) -> str:
    """The run in a few lines of Markdown: the headline figures as a table, where to look, and how to use it.

    uri: of its registered model, for the description of that
    """
    config, result, evaluation = run.config, run.read("result.json"), run.evaluation()
    lines = [
        f"Normal: **{markdown(config.normal)}** of **{markdown(short_name(config.dataset))}** · autoencoder "
        f"`{config.autoencoder}` · scorer `{config.scorer}` · false-alarm rate to hold: {config.rate:g}"
    ]
    lines += ["", *_headline(evaluation)] if evaluation else []
    if result:
        if run.record.kind == CALIBRATION:
            made = _calibration(from_dict(CalibrateResult, result))
        else:
            made = _training(from_dict(TrainResult, result), evaluation)
        lines += ["", made, "", *_use(run.record.id, uri)]
    return "\n".join(lines)


def _training(result: TrainResult, evaluation: KeptEvaluation | None) -> str:
    mse = f"{result.train_mse:.5f} (train), {result.validation_mse:.5f} (validation)"
    tested = evaluation.reconstruction_mse if evaluation else None
    mse += "" if tested is None else f", {tested:.5f} (test)"
    return f"Trained {result.epochs} epochs in {result.train_seconds:.1f} s; reconstruction MSE {mse}."


def _headline(evaluation: KeptEvaluation) -> list[str]:
    if evaluation.auroc is None:
        rates = {"detection rate": evaluation.true_positive_rate, "false-alarm rate": evaluation.false_positive_rate}
        known = [f"{name} {rate:.2%}" for name, rate in rates.items() if rate is not None]
        why = unranked(evaluation.false_positive_rate)
        return [f"AUROC none: {why}; {', '.join(known)} of {evaluation.images:,} test images."]
    return [
        f"|{'|'.join(f' {head}{COLUMN_GAP} ' for head in HEADLINE)}|",
        "|---|---|---|---|---|",
        f"| {evaluation.auroc:.4f} ({interval(*evaluation.interval)}) | {evaluation.average_precision:.4f} "
        f"| {evaluation.fpr_at_95_tpr:.4f} | {evaluation.false_positive_rate:.2%} "
        f"| {evaluation.true_positive_rate:.2%} |",
        "",
        "What it gets wrong: the run's *Artifacts*, `figures/false_alarms.png`, `missed.png`, `score_by_class.png`.",
    ]


def _calibration(result: CalibrateResult) -> str:
    return (
        f"Calibrated on {result.images:,} normal images of {markdown_code(result.calibrated_on)} "
        f"({result.guarantee}): threshold {result.threshold:.4f} for a false-alarm rate of {result.target_fpr:g}; "
        f"before {result.threshold_before:.4f}."
    )


def _use(run_id: str, uri: str | None) -> list[str]:
    """The commands that go on from here, each on a line, for the page does not break long ones."""
    name = [] if uri else [f"* Give it a name: `{command('promote', run_id)}`"]
    return [f"* Use it: `{command('score', 'FOLDER', model=uri or run_id)}`", *name]


def code_version() -> dict[str, str]:
    """Tags that say which code ran: the package's version, and its commit where it runs from a checkout."""
    from anomaly_ae import __file__, __version__

    checkout = Path(__file__).parent.parent
    tags = {"anomaly_ae.version": __version__}
    if not (checkout / ".git").exists():
        return tags
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return tags
    return tags | {"mlflow.source.git.commit": commit, "anomaly_ae.uncommitted_changes": str(bool(changed))}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
