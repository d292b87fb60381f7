"""Runs against a first one: their figures, DeLong's test where they were tested on the same images, their curves."""

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly_ae.config.run_config import LOCATION_FIELDS
from anomaly_ae.errors import ModelError
from anomaly_ae.metrics.ranking import compare_auroc
from anomaly_ae.reporting.figures.saving import Array
from anomaly_ae.reporting.html import fill, svg
from anomaly_ae.reporting.text.listings import COMPARISON_NOTE
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.run_results import ComparedRun, KeptEvaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_FIGURES = (  # of an evaluation, in the row of its run
    *("images", "auroc", "average_precision", "fpr_at_95_tpr", "partial_auroc", "false_positive_rate"),
    *("true_positive_rate", "pixel_auroc", "pixel_average_precision", "pro"),
)


@dataclass(frozen=True, eq=False)
class Tested:
    """The scores (N,) of a run's test images, the class of each, whether it is novel and whether it alarms, (N,), and
    what tells the images from others.
    """

    scores: Array
    classes: Array
    novel: Array
    alarms: Array
    images: str


def read_scores(run: RunFolder) -> Tested | None:
    """What `evaluate` kept of a run's test images; None if it did not, or they are all normal, or all novel.

    Raises `ModelError` when that is damaged.
    """
    path = run.path / "evaluation" / "scores.csv"
    if not path.exists():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        scores = np.array([float(row["score"]) for row in rows])
        if not np.isfinite(scores).all():
            raise ValueError("a score is no number")
        classes = np.array([row["class"] for row in rows])
        novel, alarms = (np.array([row[key] == "True" for row in rows]) for key in ("is_novel", "is_anomaly"))
        images = [[row.get("path", row["index"]), row["is_novel"]] for row in rows]
    except (OSError, csv.Error, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} is damaged; evaluate the run again") from error
    if novel.all() or not novel.any():
        return None
    return Tested(scores, classes, novel, alarms, json.dumps([run.split["parts"].get("test"), images]))


def compare_runs(runs: Sequence[RunFolder], tested: Sequence[Tested | None]) -> list[ComparedRun]:
    """A row for each run, with its difference to the first and what DeLong's test says of it, where both were tested
    on the same images; tested: the scores of each
    """
    first, *others = tested
    rows = [_row(run) for run in runs]
    for i, other in enumerate(others, 1):
        if other and first and other.images == first.images:
            delong = compare_auroc(other.scores, first.scores, first.novel)
            rows[i] = dataclasses.replace(
                rows[i],
                difference=delong.difference,
                difference_low=delong.interval.low,
                difference_high=delong.interval.high,
                p_value=delong.p_value,
                no_p_value=delong.interval.method if delong.p_value is None else None,
            )
    return rows


def _row(run: RunFolder) -> ComparedRun:
    evaluation, result = run.evaluation() or KeptEvaluation(), run.result()
    low, high = evaluation.interval
    return ComparedRun(
        run=run.record.id,
        name=run.record.name,
        guarantee=evaluation.calibration,
        auroc_low=low,
        auroc_high=high,
        parameters=result.parameters,
        epochs=result.epochs,
        seconds=result.train_seconds,
        **{name: getattr(evaluation, name) for name in ROW_FIGURES},
    )


def differing_settings(runs: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, each with its value in every run."""
    configs = [run.config.to_dict() for run in runs]
    names = [name for name in configs[0] if name not in LOCATION_FIELDS]
    values = {name: [config[name] for config in configs] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def draw_runs(runs: Sequence[RunFolder], tested: Sequence[Tested | None]) -> "dict[str, Figure]":
    """ROC and loss curves of those runs that have some, each kind in one plot."""
    from anomaly_ae.reporting.figures.curves import compared_losses, compared_rocs  # here, for these take a while

    names = labels(runs)
    rocs = [(name, each.scores, each.novel) for name, each in zip(names, tested, strict=True) if each]
    losses = [(f"{name} ({run.config.objective})", run.history()) for name, run in zip(names, runs, strict=True)]
    losses = [(name, history) for name, history in losses if history]
    drawn = {"roc_curves": compared_rocs(rocs)} if rocs else {}
    return drawn | ({"loss_curves": compared_losses(losses)} if losses else {})


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """Names of runs that tell them apart."""
    names = Counter(run.record.name for run in runs)
    return [
        run.record.name if names[run.record.name] == 1 else f"{run.record.name} · {run.record.id[:8]}" for run in runs
    ]


def comparison_page(title: str, tables: Mapping[str, Sequence[Sequence[str]]], drawn: "Mapping[str, Figure]") -> str:
    """A page of tables by heading, each a list of rows of text with the names first, then of figures by heading."""
    figures = {heading: svg(figure) for heading, figure in drawn.items()}
    return fill("comparison.html", title=title, tables=tables, note=COMPARISON_NOTE, figures=figures)
