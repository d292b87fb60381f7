"""Scores: how they are distributed, by role, by class, by p-value."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anomaly_ae.reporting.figures.saving import Array
from anomaly_ae.reporting.figures.style import LINE, NORMAL, ROLES, log_scale, plots

if TYPE_CHECKING:
    from anomaly_ae.calibration.conformal import Calibration

FEWEST_BARS, MOST_BARS = 8, 60
LETTER = 0.09  # inches that one takes in a label


def score_histogram(scores: Array, novel: Array, threshold: float, target_fpr: float) -> Figure:
    """Distribution of the scores of normal and novel test images, with the threshold."""
    figure, (axes,) = plots(1, (7, 4.2))
    edges = _edges(scores, threshold)
    for role, chosen in zip(ROLES, (~novel, novel), strict=True):
        if chosen.any():
            label = f"{role}, {int(chosen.sum()):,}"
            _stairs(axes, scores[chosen], edges, color=ROLES[role], label=label)
    axes.axvline(threshold, color=LINE, linestyle="--", label=f"threshold {threshold:.4g} for FPR {target_fpr:g}")
    axes.set(xlabel=_score_label(scores, edges), ylabel="share of the images, %", title="Scores by role")
    axes.legend()
    return figure


def calibration(calibrated: "Calibration") -> Figure:
    """p-value by score, with the calibration scores, the threshold, and the law of the tail where there is one."""
    import torch  # here, so that figures of plain numbers wait for none

    figure, (axes,) = plots(1, (7, 4.2))
    scores, threshold = calibrated.scores.numpy(), calibrated.threshold
    span = float(scores[-1] - scores[0]) or 1.0
    grid = np.linspace(scores[0], max(float(scores[-1]), threshold) + 0.1 * span, 600).astype(np.float32)
    shares = 1 - np.arange(len(scores)) / len(scores)  # of the scores that are at least so high
    axes.plot(
        grid, calibrated.p_values(torch.from_numpy(grid)), color=NORMAL, label=f"p-value ({calibrated.guarantee})"
    )
    axes.plot(scores, shares, ".", color="0.4", markersize=3, label=f"{len(scores):,} calibration scores")
    axes.axvline(threshold, color=LINE, linestyle="--", label=f"threshold, p ≤ {calibrated.target_fpr:g}")
    axes.set(xlabel="score (higher is more anomalous)", ylabel="p-value (log scale)")
    log_scale(axes)
    axes.set_title("From score to p-value")
    axes.legend(loc="lower left", fontsize=9)
    return figure


def score_by_class(scores: Array, names: Sequence[str], novel: Array, threshold: float) -> Figure:
    """Scores of the test images of each class, the normal ones first."""
    role_of = dict(zip(names, np.where(novel, "novel", "normal"), strict=True))
    order = sorted(role_of, key=lambda name: (role_of[name] == "novel", name))
    figure, (axes,) = plots(1, (max(7.0, 0.9 * len(order)), 4.6))
    top = _far(scores, threshold)
    table = pd.DataFrame({"class": names, "score": scores.clip(max=top), "role": np.where(novel, "novel", "normal")})
    sns.boxplot(
        table,
        x="class",
        y="score",
        hue="role",
        hue_order=list(ROLES),
        order=order,
        palette=ROLES,
        fliersize=1.5,
        linewidth=1,
        ax=axes,
    )
    axes.axhline(threshold, color=LINE, linestyle="--", label="threshold")
    beyond = [order.index(name) for name, score in zip(names, scores, strict=True) if score > top]
    if beyond:
        axes.plot(beyond, [top] * len(beyond), "^", color=LINE, markersize=5, label=f"higher still, {len(beyond):,}")
    axes.set(xlabel="class", ylabel="score (higher is more anomalous)", title="Scores by class")
    axes.tick_params(axis="x", rotation=30 if max(map(len, order)) > 3 else 0)
    axes.legend(title=None)
    return figure


def folder_histogram(scores: Array, calibration: Array, threshold: float, target_fpr: float) -> Figure:
    """Scores of the images of a folder (N,), beside those of the calibration normals (n,), with the threshold."""
    figure, (axes,) = plots(1, (9.0, 3.6))
    both = np.concatenate([scores, calibration])
    edges = _edges(both, threshold)
    for values, color, name in ((calibration, NORMAL, "calibration normals"), (scores, "0.4", "this folder")):
        _stairs(axes, values, edges, color=color, label=f"{name}, {len(values):,}")
    axes.axvline(threshold, color=LINE, linestyle="--", label=f"threshold {threshold:.4g} for FPR {target_fpr:g}")
    axes.set(xlabel=_score_label(both, edges), ylabel="share of the images, %")
    axes.legend()
    return figure


def _stairs(axes: Axes, values: Array, edges: Array, color: str, label: str) -> None:
    """How many of the values lie between two edges, in %, those beyond the last one in the last bar."""
    share = np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / max(1, len(values))
    axes.stairs(share * 100, edges, fill=True, alpha=0.5, color=color, label=label)


def _edges(scores: Array, threshold: float) -> Array:
    """The edges of the bars of a histogram: the more scores (N,), the more bars."""
    values = scores.astype(float)  # nearly equal ones need narrow bars
    bars = int(np.clip(2 * np.sqrt(len(values)), FEWEST_BARS, MOST_BARS))
    return np.histogram_bin_edges(values, bins=bars, range=(values.min(), max(_far(values, threshold), threshold)))


def _score_label(scores: Array, edges: Array) -> str:
    beyond = int((scores > edges[-1]).sum())
    more = f", {beyond:,} of them beyond: in the last bar" if beyond else ""
    return f"score (higher is more anomalous{more})"


def _far(scores: Array, threshold: float) -> float:
    """Where an axis of scores ends: a few outliers do not push all others into one bar."""
    low = float(scores.min())
    return float(min(scores.max(), max(2 * threshold - low, np.quantile(scores, 0.995, method="lower"))))


def heat_table(values: Array, rows: Sequence[str], columns: Sequence[str], heading: str) -> Figure:
    """Values (rows, columns) in [0, 1] as a table of percentages, the better the darker."""
    beside, below = (LETTER * max(map(len, names)) for names in (rows, columns))
    size = (max(0.6 * len(columns) + beside + 0.6, LETTER * len(heading) + 0.6), 0.34 * len(rows) + 0.7 * below + 0.9)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots()
    low = float(np.nanmin(values))
    sns.heatmap(
        values * 100,
        annot=True,
        fmt=".1f",
        cmap="viridis",
        vmin=100 * low,
        vmax=100,
        cbar=False,
        linewidths=0.5,
        ax=axes,
    )
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=40, ha="right")
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0)
    figure.suptitle(heading)
    return figure
