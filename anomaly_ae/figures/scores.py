"""Scores: how they are distributed, by role, by class, by p-value."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from anomaly_ae.calibration import Calibration
from anomaly_ae.figures.style import LINE, NORMAL, NOVEL, ROLES, Array, log_scale, plots


def score_histogram(scores: Array, novel: Array, threshold: float, target_fpr: float) -> Figure:
    """Distribution of the scores of normal and novel test images, with the threshold."""
    figure, (axes,) = plots(1, (7, 4.2))
    edge = max(float(np.quantile(scores, 0.995)), threshold) + 1e-6  # a few far out would flatten all others
    for role, chosen in zip(ROLES, (~novel, novel), strict=True):
        label, bins = f"{role} ({int(chosen.sum()):,} images)", np.linspace(scores.min(), edge, 46)
        look = {"color": ROLES[role], "alpha": 0.5, "linewidth": 0, "label": label}
        sns.histplot(x=scores[chosen], bins=bins, stat="probability", ax=axes, **look)
    axes.axvline(threshold, color=LINE, linestyle="--", label=f"threshold (false-alarm rate {target_fpr:g})")
    beyond = int((scores > edge).sum())
    note = f" ({beyond:,} beyond the right edge)" if beyond else ""
    axes.set(xlabel="score (higher is more anomalous)", ylabel="share of images", title=f"Scores by role{note}")
    axes.legend()
    return figure


def calibration(calibrated: Calibration) -> Figure:
    """p-value by score, with the calibration scores, the threshold, and the law of the tail where there is one."""
    figure, (axes,) = plots(1, (7, 4.2))
    scores, threshold = calibrated.scores.numpy(), calibrated.threshold
    span = float(scores[-1] - scores[0]) or 1.0
    grid = np.linspace(scores[0], max(float(scores[-1]), threshold) + 0.1 * span, 600).astype(np.float32)
    shares = 1 - np.arange(len(scores)) / len(scores)  # of the scores that are at least so high
    axes.plot(
        grid, calibrated.p_values(torch.from_numpy(grid)), color=NORMAL, label=f"p-value ({calibrated.guarantee})"
    )
    axes.plot(scores, shares, ".", color=LINE, markersize=3, label=f"{len(scores):,} calibration scores")
    axes.axvline(threshold, color=NOVEL, linestyle="--", label=f"threshold, p ≤ {calibrated.target_fpr:g}")
    axes.set(xlabel="score (higher is more anomalous)", ylabel="p-value (log scale)")
    log_scale(axes)
    axes.set_title("From score to p-value")
    axes.legend(loc="lower left", fontsize=9)
    return figure


def score_by_class(scores: Array, names: Sequence[str], novel: Array, threshold: float) -> Figure:
    """Scores of the test images of each class, normal and novel."""
    order = sorted(set(names))
    figure, (axes,) = plots(1, (max(7.0, 0.9 * len(order)), 4.6))
    table = pd.DataFrame({"class": names, "score": scores, "role": np.where(novel, "novel", "normal")})
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
    axes.set(xlabel="class", ylabel="score (higher is more anomalous)", title="Scores by class")
    axes.tick_params(axis="x", rotation=30 if max(map(len, order)) > 3 else 0)
    axes.legend(title=None)
    return figure


def folder_histogram(scores: Array, calibration: Array, threshold: float, target_fpr: float) -> Figure:
    """Scores of the images of a folder (N,), beside those of the calibration normals (n,), with the threshold."""
    figure, (axes,) = plots(1, (9.0, 3.6))
    both = np.concatenate([scores, calibration]).astype(float)  # nearly equal ones need narrow bins
    edges = np.histogram_bin_edges(both, bins=60, range=(both.min(), _far(both, threshold)))
    for values, color, name in ((calibration, "0.6", "calibration normals"), (scores, NORMAL, "this folder")):
        share = np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / max(1, len(values))
        axes.stairs(share * 100, edges, fill=True, alpha=0.55, color=color, label=f"{name}, {len(values):,}")
    axes.axvline(threshold, color=LINE, linestyle="--", label=f"threshold {threshold:.4g} for FPR {target_fpr:g}")
    more = ", the last bar with all beyond" if both.max() > edges[-1] else ""
    axes.set(xlabel=f"score (higher is more anomalous{more})", ylabel="share of the images, %")
    axes.legend()
    return figure


def _far(scores: Array, threshold: float) -> float:
    """Where an axis of scores ends: a few outliers do not push all others into one bar."""
    low = float(scores.min())
    return float(min(scores.max(), max(2 * threshold - low, np.quantile(scores, 0.995))))


def heat_table(values: Array, rows: Sequence[str], columns: Sequence[str], heading: str) -> Figure:
    """Values (rows, columns) in [0, 1] as a table of percentages, the better the darker."""
    size = (0.72 * len(columns) + 2.6, 0.36 * len(rows) + 1.9)
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
