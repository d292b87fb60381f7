"""Runs against a first one: their figures, DeLong's test where they were tested on the same images, their curves."""

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly_ae.config.run_config import LOCATION_FIELDS
from anomaly_ae.errors import ModelError
from anomaly_ae.metrics.ranking import compare_auroc
from anomaly_ae.reporting import figures
from anomaly_ae.reporting.figures.saving import Array
from anomaly_ae.runs.run_results import ComparedRun, KeptEvaluation
from anomaly_ae.runs.store import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Tested:
    """The scores (N,) of a run's test images, whether each is novel, (N,), and what tells the images from others."""

    scores: Array
    novel: Array
    images: str

    @property
    def has_both(self) -> bool:
        """Whether there are normal and novel images to tell apart."""
        return bool(0 < self.novel.sum() < len(self.novel))


def read_scores(run: RunFolder) -> Tested | None:
    """What `evaluate` kept of a run's test images; None if it did not, or they are all normal.

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
        novel = np.array([row["is_novel"] == "True" for row in rows])
        known = [[row.get("path", row["index"]), row["is_novel"]] for row in rows]
    except (OSError, csv.Error, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} is damaged; evaluate the run again") from error
    tested = Tested(scores, novel, json.dumps([run.split["parts"].get("test"), known]))
    return tested if tested.has_both else None


def compare_runs(runs: Sequence[RunFolder], tested: Sequence[Tested | None]) -> list[ComparedRun]:
    """A row for each run; tested: the scores of each"""
    first, *others = tested
    rows = [_row(run) for run in runs]
    return [rows[0], *(_against(row, other, first) for row, other in zip(rows[1:], others, strict=True))]


def differing_settings(runs: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, each with its value in every run."""
    configs = [run.config.to_dict() for run in runs]
    names = [name for name in configs[0] if name not in LOCATION_FIELDS]
    values = {name: [config[name] for config in configs] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def draw_runs(runs: Sequence[RunFolder], tested: Sequence[Tested | None]) -> "dict[str, Figure]":
    """ROC and loss curves of those runs that have some, each kind in one plot."""
    names = labels(runs)
    rocs = [(name, each.scores, each.novel) for name, each in zip(names, tested, strict=True) if each]
    losses = [(f"{name} ({run.config.objective})", run.history()) for name, run in zip(names, runs, strict=True)]
    losses = [(name, history) for name, history in losses if history]
    return ({"roc_curves": figures.compared_rocs(rocs)} if rocs else {}) | (
        {"loss_curves": figures.compared_losses(losses)} if losses else {}
    )


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """Names of runs that tell them apart."""
    names = Counter(run.record.name for run in runs)
    return [
        run.record.name if names[run.record.name] == 1 else f"{run.record.name} · {run.record.id[:8]}" for run in runs
    ]


def _row(run: RunFolder) -> ComparedRun:
    evaluation, result = run.evaluation() or KeptEvaluation(), run.read("result.json")
    low, high = evaluation.interval
    return ComparedRun(
        run=run.record.id,
        name=run.record.name,
        images=evaluation.images,
        guarantee=evaluation.calibration,
        auroc=evaluation.auroc,
        auroc_low=low,
        auroc_high=high,
        average_precision=evaluation.average_precision,
        fpr_at_95_tpr=evaluation.fpr_at_95_tpr,
        partial_auroc=evaluation.partial_auroc,
        false_positive_rate=evaluation.false_positive_rate,
        true_positive_rate=evaluation.true_positive_rate,
        pixel_auroc=evaluation.pixel_auroc,
        pixel_average_precision=evaluation.pixel_average_precision,
        pro=evaluation.pro,
        parameters=result.get("parameters"),
        epochs=result.get("epochs"),
        seconds=result.get("train_seconds"),
    )


def _against(row: ComparedRun, other: Tested | None, first: Tested | None) -> ComparedRun:
    """The row with its difference to the first run, and what DeLong's test says of it."""
    if other is None or first is None or other.images != first.images:
        return row
    found = compare_auroc(other.scores, first.scores, first.novel)
    return dataclasses.replace(
        row,
        difference=found.difference,
        difference_low=found.interval.low,
        difference_high=found.interval.high,
        p_value=found.p_value,
        no_p_value=found.interval.method if found.p_value is None else None,
    )
