"""Test images by class and role: how their scores are distributed, and where their latents lie."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from anomaly_ae.reporting.figures.saving import Array
from anomaly_ae.reporting.figures.style import LINE, MARKERS, NORMAL, NOVEL, ROLES, log_scale, plots

if TYPE_CHECKING:
    from anomaly_ae.calibration.conformal import Calibration

FEWEST_BARS, MOST_BARS = 8, 60
GROUP_MARKS = ".x+"
CLASS_WIDTH = 0.85  # share of a figure's width that the axes with the classes take
FAR_OFF = 1.5  # times as long an axis, for the highest scores to be on it
LETTER = 0.09  # inches that one takes in a label
# Of classes by their role, from Paul Tol's bright scheme: cold ones, blue first, and warm ones, red first
SHADES = {"normal": (NORMAL, "#66ccee", "#228833"), "novel": (NOVEL, "#ccbb44", "#aa3377")}
# Of t-SNE, in half the time of the usual 1,000 and 0.5: of 1,000 latents of digits 90.2 % lie among their class in
# place of 90.5, and its trustworthiness is 0.984 in place of 0.987
TSNE_STEPS, TSNE_ANGLE = 400, 0.8
TSNE_DIMENSIONS = 50  # of latents that t-SNE goes by, as its authors advise for large ones


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
    """p-value by score, with the calibration scores of each group, the threshold, and the law of the tail where there
    is one.
    """
    import torch  # here, so that figures of plain numbers wait for none

    figure, (axes,) = plots(1, (7, 4.2))
    scores, threshold = calibrated.scores.numpy(), calibrated.threshold
    span = float(scores[-1] - scores[0]) or 1.0
    grid = np.linspace(scores[0], max(float(scores[-1]), threshold) + 0.1 * span, 600).astype(np.float32)
    axes.plot(
        grid, calibrated.p_values(torch.from_numpy(grid)), color=NORMAL, label=f"p-value ({calibrated.guarantee})"
    )
    for mark, group in zip(cycle(GROUP_MARKS), calibrated.by_group, strict=False):
        shares = 1 - np.arange(len(group)) / len(group)  # of the scores that are at least so high
        axes.plot(group.scores, shares, mark, color="0.4", markersize=3, label=f"{len(group):,} calibration scores")
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
    look = {"hue": "role", "hue_order": list(ROLES), "palette": ROLES, "fliersize": 1.5, "linewidth": 1}
    sns.boxplot(table, x="class", y="score", order=order, **look, ax=axes)
    axes.axhline(threshold, color=LINE, linestyle="--", label="threshold")
    beyond = [order.index(name) for name, score in zip(names, scores, strict=True) if score > top]
    if beyond:
        axes.plot(beyond, [top] * len(beyond), "^", color=LINE, markersize=5, label=f"higher still, {len(beyond):,}")
    axes.set(xlabel="class", ylabel="score (higher is more anomalous)", title="Scores by class")
    room = CLASS_WIDTH * figure.get_figwidth() / len(order)  # inches for each name
    axes.tick_params(axis="x", rotation=30 if LETTER * max(map(len, order)) > room else 0)
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
    """Where an axis of scores ends: a few outliers that lie far off do not push all others into one bar."""
    low, highest = float(scores.min()), float(scores.max())
    end = max(2 * threshold - low, float(np.quantile(scores, 0.995, method="lower")))
    return highest if highest - low <= FAR_OFF * (end - low) else end


def heat_table(values: Array, rows: Sequence[str], columns: Sequence[str], heading: str) -> Figure:
    """Values (rows, columns) in [0, 1] as a table of percentages, the better the darker."""
    left, below = (LETTER * max(map(len, names)) for names in (rows, columns))
    size = (max(0.6 * len(columns) + left + 0.6, LETTER * len(heading) + 0.6), 0.34 * len(rows) + 0.7 * below + 0.9)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots()
    low = float(np.nanmin(values))
    look = {"cmap": "viridis", "vmin": 100 * low, "vmax": 100, "cbar": False, "linewidths": 0.5}
    sns.heatmap(values * 100, annot=True, fmt=".1f", **look, ax=axes)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=40, ha="right")
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0)
    figure.suptitle(heading)
    return figure


def latent_map(latents: Array, names: Sequence[str], novel: Array) -> Figure:
    """Latents (N, D) laid out in the plane by PCA and by t-SNE, of 50 principal components where there are more
    dimensions, a colour for each class.

    van der Maaten and Hinton 2008, https://www.jmlr.org/papers/v9/vandermaaten08a.html
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    figure, (left, right) = plots(2, (13.2, 6))
    two_columns = latents if latents.shape[1] > 1 else np.hstack([latents, np.zeros_like(latents)])
    pca = PCA(n_components=min(TSNE_DIMENSIONS, *two_columns.shape), random_state=0)
    principal = pca.fit_transform(two_columns)
    _scatter(left, principal[:, :2], names, novel)
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    left.set(xlabel=f"PCA 1 ({shares[0]:.0%} of the variance)", ylabel=f"PCA 2 ({shares[1]:.0%})", title="PCA")
    perplexity = min(30.0, max(1.0, (len(latents) - 1) / 3))
    start = "pca" if latents.shape[1] > 1 else "random"
    tsne = TSNE(perplexity=perplexity, init=start, random_state=0, max_iter=TSNE_STEPS, angle=TSNE_ANGLE)
    _scatter(right, tsne.fit_transform(latents if latents.shape[1] <= TSNE_DIMENSIONS else principal), names, novel)
    right.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[], title="t-SNE")
    right.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="class")
    figure.suptitle(f"Latents of {len(latents):,} test images")
    return figure


def class_colors(role_of: Mapping[str, str]) -> dict[str, tuple[float, float, float]]:
    """A colour for each class by its role: cold ones for normal classes, warm ones for novel."""
    colors: dict[str, tuple[float, float, float]] = {}
    for role, shades in SHADES.items():
        classes = [name for name, its in role_of.items() if its == role]
        mixed = sns.blend_palette(shades, len(classes)) if len(classes) > 1 else shades[:1]
        colors |= {name: to_rgb(color) for name, color in zip(classes, mixed, strict=False)}
    return colors


def _scatter(axes: Axes, plane: Array, names: Sequence[str], novel: Array) -> None:
    """Points (N, 2), coloured by class, and handles for a legend that shows the marks of the map."""
    table = pd.DataFrame({"x": plane[:, 0], "y": plane[:, 1], "class": names})
    table["role"] = np.where(novel, "novel", "normal")
    role_of = dict(sorted(zip(names, table["role"], strict=True), key=lambda each: (each[1] == "novel", each[0])))
    colors = class_colors(role_of)
    look = {"hue": "class", "palette": colors, "style": "role", "markers": MARKERS, "s": 28, "linewidth": 0.3}
    sns.scatterplot(table, x="x", y="y", **look, legend=False, ax=axes)
    for name in role_of:
        label = f"{name} ({role_of[name]})"
        axes.scatter([], [], s=28, color=colors[name], marker=MARKERS[role_of[name]], label=label)
