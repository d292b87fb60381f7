"""Scorers side by side over the cells of a pipeline: means, intervals over seeds, and figures by class."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from anomaly_ae.detector.evaluation import CLASS_AUROC
from anomaly_ae.reporting.figures.saving import distinct
from anomaly_ae.runs.pipeline_results import ScorerMeans
from anomaly_ae.runs.record import FINISHED
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runtime.printed import Columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED_CONFIDENCE = 0.95
SIGNIFICANT = 0.05
ANY = "any network"  # the system of scorers that see the images alone


@dataclass(frozen=True)
class Measured:
    """The AUROC of one scorer in one cell, in [0, 1]: of the whole, and against each novel class.

    system: what the cell's network is but for its normal classes and its seed
    """

    system: str
    scorer: str
    normal: str
    seed: int
    auroc: float
    by_class: dict[str, float]
    interval: tuple[float, float]  # of the AUROC, by DeLong
    difference: float  # to the detector's own scorer
    p_value: float | None


def measured(runs: Iterable[tuple[str, RunFolder]]) -> list[Measured]:
    """What was measured in runs, each with its system, where other scorers were measured beside the detector's."""
    return [
        Measured(
            system=system,
            scorer=row.scorer,
            normal=run.config.normal,
            seed=run.config.seed,
            auroc=row.auroc,
            by_class={key.removeprefix(CLASS_AUROC): value for key, value in row.by_class.items()},
            interval=(row.auroc_low, row.auroc_high),
            difference=row.difference,
            p_value=row.p_value,
        )
        for system, run in runs
        if run.record.status == FINISHED and (evaluation := run.evaluation())
        for row in evaluation.scorers
    ]


def scorer_table(measurements: Sequence[Measured]) -> list[ScorerMeans]:
    """A row for each scorer of each system, the best first; one for all systems where a scorer sees no network.

    It has the mean AUROC over normal classes and seeds, its 95 % interval over the seeds (of one cell, DeLong's), in
    how many cells it is better or worse than the cell's own scorer by DeLong's test at 5 %, and the AUROC of each
    column: a set of normal classes, or a novel class where there is but one such set.
    """
    sets = dict.fromkeys(each.normal for each in measurements)
    columns = [f"normal {name}" for name in sets]
    if len(sets) == 1:
        columns = [f"novel {name}" for name in dict.fromkeys(name for each in measurements for name in each.by_class)]
    measurements = _without_repeats(measurements)
    rows: list[ScorerMeans] = []
    for system, scorer in dict.fromkeys((each.system, each.scorer) for each in measurements):
        cells = [each for each in measurements if (each.system, each.scorer) == (system, scorer)]
        of_scorer = list({(each.normal, each.seed): each for each in reversed(cells)}.values())
        seeds = dict.fromkeys(each.seed for each in of_scorer)
        means = [fmean(each.auroc for each in of_scorer if each.seed == seed) for seed in seeds]
        low, high = of_scorer[0].interval if len(of_scorer) == 1 else mean_interval(means)
        clear = [each.difference for each in cells if each.p_value is not None and each.p_value < SIGNIFICANT]
        rows.append(
            ScorerMeans(
                system=system,
                scorer=scorer,
                auroc=fmean(means),
                low=low,
                high=high,
                seeds=len(means),
                better=sum(difference > 0 for difference in clear),
                worse=sum(difference < 0 for difference in clear),
                cells=len(cells),
                by_class=Columns({name: _mean_of(name, of_scorer) for name in columns}),
            )
        )
    systems = sorted(dict.fromkeys(row.system for row in rows), key=ANY.__eq__)
    return sorted(rows, key=lambda row: (systems.index(row.system), -row.auroc))


def _mean_of(column: str, cells: Sequence[Measured]) -> float | None:
    """Mean AUROC over the cells that have the column; None where all of these are missing."""
    kind, _, name = column.partition(" ")
    if kind == "normal":
        values = [each.auroc for each in cells if each.normal == name]
    else:
        values = [each.by_class[name] for each in cells if name in each.by_class]
    return fmean(values) if values else None


def _without_repeats(measurements: Sequence[Measured]) -> list[Measured]:
    """The same, with scorers that come to the same AUROC whatever the network counted to no system."""
    systems = {each.system for each in measurements}
    seen: dict[str, set[tuple[str, int, float]]] = {}
    for each in measurements:
        seen.setdefault(each.scorer, set()).add((each.normal, each.seed, each.auroc))
    repeated = {
        scorer
        for scorer, values in seen.items()
        if len({(normal, seed) for normal, seed, _ in values}) == len(values)
        and {each.system for each in measurements if each.scorer == scorer} == systems
    }
    return [
        dataclasses.replace(each, system=ANY) if len(systems) > 1 and each.scorer in repeated else each
        for each in measurements
    ]


def mean_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Student's 95 % interval of the mean of values in [0, 1], cut off there; None for a single one."""
    if len(values) < 2:
        return None, None
    half = float(
        student.ppf(0.5 + SEED_CONFIDENCE / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    )
    return max(0.0, fmean(values) - half), min(1.0, fmean(values) + half)


def draw_scorers(rows: Sequence[ScorerMeans]) -> "Figure":
    """A heat map of a `scorer_table`: scorers down, classes across, the mean at the left."""
    from anomaly_ae.reporting.figures.distributions import heat_table  # here, for this takes a while

    values = np.array([[row.auroc, *row.by_class.values()] for row in rows], dtype=float)
    several = len({row.system for row in rows}) > 1
    names = distinct([f"{row.system} · {row.scorer}" if several else row.scorer for row in rows])
    return heat_table(values, names, ["mean", *rows[0].by_class], "AUROC × 100, mean over the seeds")
