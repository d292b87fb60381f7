"""Scorers side by side over the cells of a pipeline: means, intervals over seeds, and figures by class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm
from scipy.stats import t as student

from anomaly_ae import figures
from anomaly_ae.runs import FINISHED, RunFolder

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
AUROC = "auroc "  # before the name of a novel class, in a row of `evaluation/beside.csv`


@dataclass(frozen=True)
class Measured:
    """The AUROC of one scorer in one cell, in [0, 1]: of the whole, and against each novel class.

    system: what the cell is but for its normal classes and its seed
    """

    system: str
    scorer: str
    normal: str
    seed: int
    auroc: float
    by_class: dict[str, float]
    error: float  # standard error of the AUROC
    difference: float  # to the detector's own scorer
    p_value: float


def measured(runs: Iterable[tuple[str, RunFolder]]) -> list[Measured]:
    """What was measured in runs, each with its system, where other scorers were measured beside the detector's."""
    return [
        Measured(
            system=system,
            scorer=row["scorer"],
            normal=run.config.normal,
            seed=run.config.seed,
            auroc=row["auroc"],
            by_class={key.removeprefix(AUROC): value for key, value in row.items() if key.startswith(AUROC)},
            error=(row["auroc_high"] - row["auroc_low"]) / (2 * norm.ppf(0.5 + CONFIDENCE / 2)),
            difference=row["difference"],
            p_value=row["p_value"],
        )
        for system, run in runs
        if run.record.status == FINISHED
        for row in run.read("evaluation/metrics.json").get("beside") or []
    ]


def scorer_table(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row for each scorer of each system, the best first.

    It has the mean AUROC over all cells, its 95 % interval over the seeds (of a single one, DeLong's), in how many
    cells it is better or worse than the detector's own by DeLong's test at 5 %, and the AUROC of each column: a set
    of normal classes, or a novel class where there is but one such set.
    """
    rows: list[dict[str, Any]] = []
    for system, scorer in dict.fromkeys((each.system, each.scorer) for each in found):
        of_scorer = [each for each in found if (each.system, each.scorer) == (system, scorer)]
        seeds = dict.fromkeys(each.seed for each in of_scorer)
        means = [fmean(each.auroc for each in of_scorer if each.seed == seed) for seed in seeds]
        low, high = interval(means) if len(means) > 1 else pooled_interval(of_scorer)
        clear = [each.difference for each in of_scorer if each.p_value < SIGNIFICANT]
        about = {
            "system": system,
            "scorer": scorer,
            "auroc": fmean(means),
            "low": low,
            "high": high,
            "seeds": len(means),
        }
        about |= {"better": sum(d > 0 for d in clear), "worse": sum(d < 0 for d in clear), "cells": len(of_scorer)}
        rows.append(about | _columns(of_scorer))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    return sorted(rows, key=lambda row: (systems.index(row["system"]), -row["auroc"]))


def _columns(of_scorer: Sequence[Measured]) -> dict[str, float]:
    """Mean AUROC over the seeds by set of normal classes, or by novel class where there is one such set."""
    values: dict[str, list[float]] = {}
    several = len({each.normal for each in of_scorer}) > 1
    for each in of_scorer:
        for name, auroc in {f"normal {each.normal}": each.auroc}.items() if several else each.by_class.items():
            values.setdefault(name if several else f"novel {name}", []).append(auroc)
    return {name: fmean(some) for name, some in values.items()}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean of two values or more."""
    half = float(student.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return fmean(values) - half, fmean(values) + half


def pooled_interval(cells: Sequence[Measured]) -> tuple[float, float]:
    """The 95 % interval of the mean AUROC of cells of one seed, from their standard errors, as if independent."""
    mean = fmean(each.auroc for each in cells)
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * sum(each.error**2 for each in cells) ** 0.5 / len(cells)
    return mean - half, mean + half


def draw_scorers(rows: Sequence[dict[str, Any]]) -> Figure:
    """A heat map of a `scorer_table`: scorers down, classes across, the mean at the left."""
    columns = [name for name in rows[0] if name.startswith(("normal ", "novel "))]
    values = np.array([[row["auroc"], *(row[name] for name in columns)] for row in rows])
    several = len({row["system"] for row in rows}) > 1
    names = [f"{row['system']} · {row['scorer']}" if several else row["scorer"] for row in rows]
    return figures.heat_table(values, names, ["mean", *columns], "AUROC × 100")
