"""Every picture: what `train` and `evaluate` draw, as matplotlib figures and as image grids."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import binary_erosion
from sklearn.metrics import precision_recall_curve, roc_curve

from anomaly_ae.calibration import Calibration
from anomaly_ae.data import decoding
from anomaly_ae.files import write_with
from anomaly_ae.training import Epoch

Array = npt.NDArray[Any]

DPI = 130
OVERLAY_PIXELS = 224  # the least larger side of a picture with a heat map over it
GRID_PIXELS = 84  # the least height of one image in a grid
NORMAL, NOVEL, LINE = "#4477aa", "#ee6677", "#222222"
MARKERS = {"normal": "o", "novel": "X"}
ROLES = {"normal": NORMAL, "novel": NOVEL}  # Paul Tol's bright scheme, told apart by the colour-blind
CONTOUR, TRUTH, OUTLINE = (0, 255, 255), (60, 255, 60), 2  # colours of lines over pictures, and their width in pixels
FAINT = 0.1  # share of a map's largest value below which nothing gets a contour
SHOWN = 10  # images in a row
STRIP_PIXELS = 64  # the least width of one image in it
MAPPED = 1_000  # latents in the map, at most


def label(text: str, most: int = 24) -> str:
    """A name as a label: shortened in its middle, and with no part of it read as a formula."""
    half = (most - 1) // 2
    short = text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
    return short.replace("$", r"\$")


def save_figures(folder: Path, figures: Mapping[str, Figure], caption: str) -> None:
    """Write each figure as a PNG under its name, with the caption small below."""
    for name, figure in figures.items():
        figure.supxlabel(caption.replace("$", r"\$"), fontsize=8, color="0.4", x=0.99, ha="right")
        write_with(folder / f"{name}.png", partial(figure.savefig, dpi=DPI, format="png", bbox_inches="tight"))


def save_image(path: Path, pixels: Array) -> None:
    """Write uint8 pixels, (H, W) or (H, W, 3), as PNG."""
    from PIL import Image

    write_with(path, lambda temporary: Image.fromarray(pixels).save(temporary, format="PNG"))


def loss_curves(history: Sequence[Epoch]) -> Figure:
    """Training and validation loss by epoch, with the best epoch marked."""
    figure, (axes,) = _figure(1, (7, 4.2))
    epochs = [epoch.epoch for epoch in history]
    marker = "." if len(history) <= 40 else ""
    axes.plot(epochs, [epoch.train_loss for epoch in history], color=NORMAL, marker=marker, label="training")
    axes.plot(epochs, [epoch.validation_loss for epoch in history], color=NOVEL, marker=marker, label="validation")
    best = min(history, key=lambda epoch: epoch.validation_loss)
    label = f"best epoch: {best.epoch}"
    axes.plot(best.epoch, best.validation_loss, "o", color=LINE, fillstyle="none", markersize=11, label=label)
    axes.set(xlabel="epoch", ylabel="loss (log scale)", yscale="log", title="Loss by epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def compared_losses(histories: Sequence[tuple[str, Sequence[Epoch]]]) -> Figure:
    """Training and validation loss by epoch of several trainings, each with its name."""
    figure, panels = _figure(2, (12.5, 4.8))
    colors = sns.color_palette("tab10" if len(histories) <= 10 else "husl", n_colors=len(histories))
    for axes, part in zip(panels, ("train", "validation"), strict=True):
        for color, (name, history) in zip(colors, histories, strict=True):
            losses = [getattr(epoch, f"{part}_loss") for epoch in history]
            marker = "o" if len(history) <= 40 else ""
            axes.plot(
                [epoch.epoch for epoch in history], losses, color=color, marker=marker, markersize=3, label=name
            )
        axes.set(xlabel="epoch", ylabel="loss, each by its own objective (log scale)", yscale="log")
        axes.set_title("Training" if part == "train" else "Validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="system (objective)")
    figure.suptitle("Loss by epoch")
    return figure


def score_histogram(scores: Array, novel: Array, threshold: float, target_fpr: float) -> Figure:
    """Distribution of the scores of normal and novel test images, with the threshold."""
    figure, (axes,) = _figure(1, (7, 4.2))
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
    figure, (axes,) = _figure(1, (7, 4.2))
    scores, threshold = calibrated.scores.numpy(), calibrated.threshold
    span = float(scores[-1] - scores[0]) or 1.0
    grid = np.linspace(scores[0], max(float(scores[-1]), threshold) + 0.1 * span, 600).astype(np.float32)
    shares = 1 - np.arange(len(scores)) / len(scores)  # of the scores that are at least so high
    axes.plot(
        grid, calibrated.p_values(torch.from_numpy(grid)), color=NORMAL, label=f"p-value ({calibrated.guarantee})"
    )
    axes.plot(scores, shares, ".", color=LINE, markersize=3, label=f"{len(scores):,} calibration scores")
    axes.axvline(threshold, color=NOVEL, linestyle="--", label=f"threshold, p ≤ {calibrated.target_fpr:g}")
    axes.set(xlabel="score (higher is more anomalous)", ylabel="p-value (log scale)", yscale="log")
    axes.set_title("From score to p-value")
    axes.legend(loc="lower left", fontsize=9)
    return figure


def roc_and_precision_recall(
    scores: Array, novel: Array, auroc: float, average_precision: float, at_threshold: Sequence[float | None]
) -> Figure:
    """ROC and precision–recall curves; `at_threshold` is FPR, TPR and precision there."""
    figure, (left, right) = _figure(2, (10, 4.6))
    fpr, tpr, _ = roc_curve(novel, scores)
    left.plot(fpr, tpr, color=NORMAL, label=f"AUROC {auroc:.4f}")
    left.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="chance")
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    precision, recall, _ = precision_recall_curve(novel, scores)  # whose last point is no threshold's
    right.plot(recall[:-1], precision[:-1], color=NORMAL, label=f"average precision {average_precision:.4f}")
    right.axhline(novel.mean(), color="0.6", linestyle=":", label="chance")
    right.set(xlabel="recall (true positive rate)", ylabel="precision", title="Precision and recall")
    at_fpr, at_tpr, at_precision = at_threshold
    for axes, point in ((left, (at_fpr, at_tpr)), (right, (at_tpr, at_precision))):
        if None not in point:
            axes.plot(*point, "o", color=NOVEL, label="threshold")  # type: ignore[arg-type]
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="best")
    return figure


def score_by_class(scores: Array, names: Sequence[str], novel: Array, threshold: float) -> Figure:
    """Scores of the test images of each class, normal and novel."""
    order = sorted(set(names))
    figure, (axes,) = _figure(1, (max(7.0, 0.9 * len(order)), 4.6))
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


def image_rows(
    images: Array, rebuilt: Array, heat: Array | None, titles: Sequence[str], heading: str, level: float | None = None
) -> Figure:
    """Originals, reconstructions, error maps, heat maps and overlays as rows, a few words above each column.

    images, rebuilt: float (N, C, H, W) in [0, 1]; heat: float (N, H, W), or None for a scorer without any
    level: of the heat map, around which the overlay has a contour
    """
    error = np.abs(images - rebuilt).mean(axis=1)
    rows = [("original", images), ("reconstruction", rebuilt), ("absolute\nerror", error)]
    if heat is not None:
        rows += [("heat map\nof the score", heat), ("overlay", overlays(images, heat, level))]
    return labelled_rows(rows, f"{heading} (maps: from 0, dark, to the row's largest value)", titles)


def labelled_rows(rows: Sequence[tuple[str, Array]], heading: str, titles: Sequence[str] = ()) -> Figure:
    """Rows of images, float (N, C, H, W) in [0, 1], or of maps, float (N, H, W), each with its name at the left.

    titles: a few words for each column
    """
    columns = max(len(shown) for _, shown in rows)
    size = (1.1 * columns + 1.4, 1.2 * len(rows) + 1.0)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    for axes, (name, shown) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        gray = {"cmap": "magma", "vmax": float(shown.max()) or 1} if shown.ndim == 3 else {"cmap": "gray", "vmax": 1}
        axes.imshow(_strip(shown), vmin=0, **gray, extent=(0, len(shown), 0, shown.shape[-2] / shown.shape[-1]))
        axes.set(xticks=[], yticks=[], xlim=(0, columns))
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.spines[:].set_visible(False)
    if titles:
        top = figure.axes[0]
        top.xaxis.tick_top()
        top.tick_params(axis="x", length=0)
        top.set_xticks(np.arange(len(titles)) + 0.5, titles, fontsize=9)
    figure.suptitle(heading)
    return figure


def _strip(shown: Array) -> Array:
    """Images or maps side by side, with empty space around each: (H', W') or (H', W', 3)."""
    scale = max(1, math.ceil(STRIP_PIXELS / shown.shape[-1]))
    large = shown.repeat(scale, axis=-2).repeat(scale, axis=-1)
    if large.ndim == 3:
        large = large[:, None]
    colour = large.shape[1] == 3
    space = round(0.03 * large.shape[-1])
    widths = ((0, 0), (0, 0), (space, space), (space, space))
    padded = np.pad(large if colour else large[:, :1], widths, constant_values=1.0 if colour else np.nan)
    strip = np.concatenate(list(padded), axis=-1)  # (C, H', N·W')
    return strip.transpose(1, 2, 0) if colour else strip[0]


def latent_map(latents: Array, names: Sequence[str], novel: Array) -> Figure:
    """Latents (N, D) laid out in the plane by PCA and by t-SNE, a colour for each class.

    van der Maaten and Hinton 2008, https://www.jmlr.org/papers/v9/vandermaaten08a.html
    """
    figure, (left, right) = _figure(2, (13.2, 6))
    plane, shares = _pca(latents)
    _scatter(left, plane, names, novel)
    left.set(xlabel=f"PCA 1 ({shares[0]:.0%} of the variance)", ylabel=f"PCA 2 ({shares[1]:.0%})", title="PCA")
    _scatter(right, _tsne(latents), names, novel)
    right.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[], title="t-SNE")
    right.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="class")
    figure.suptitle(f"Latents of {len(latents):,} test images")
    return figure


def _pca(latents: Array) -> tuple[Array, Array]:
    """The first two principal components, (N, 2), and their shares of the variance, (2,); zeros where D = 1."""
    from sklearn.decomposition import PCA

    if latents.shape[1] == 1:
        latents = np.hstack([latents, np.zeros_like(latents)])
    pca = PCA(n_components=2, random_state=0)
    plane = pca.fit_transform(latents)
    return plane, np.nan_to_num(pca.explained_variance_ratio_)


def _tsne(latents: Array) -> Array:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(1.0, (len(latents) - 1) / 3))
    start = "pca" if latents.shape[1] > 1 else "random"
    plane: Array = TSNE(perplexity=perplexity, init=start, random_state=0).fit_transform(latents)
    return plane


def _scatter(axes: Axes, plane: Array, names: Sequence[str], novel: Array) -> None:
    """Points (N, 2), coloured by class, and handles for a legend that shows the marks of the map."""
    table = pd.DataFrame({"x": plane[:, 0], "y": plane[:, 1], "class": names})
    table["role"] = np.where(novel, "novel", "normal")
    order = sorted(set(names))
    colors = dict(zip(order, sns.color_palette(n_colors=len(order)), strict=True))
    sns.scatterplot(
        table,
        x="x",
        y="y",
        hue="class",
        palette=colors,
        style="role",
        markers=MARKERS,
        s=28,
        linewidth=0.3,
        legend=False,
        ax=axes,
    )
    role_of = dict(zip(names, table["role"], strict=True))
    for name in order:
        label = f"{name} ({role_of[name]})"
        axes.scatter([], [], s=28, color=colors[name], marker=MARKERS[role_of[name]], label=label)


def grid(images: Array, rebuilt: Array) -> Array:
    """Originals above reconstructions, float (N, C, H, W) in [0, 1], as one uint8 picture (H', W'[, 3])."""
    height, width = images.shape[-2:]
    scale = max(1, round(GRID_PIXELS / min(height, width)))
    rows = [np.concatenate([_pixels(image, scale) for image in row], axis=1) for row in (images, rebuilt)]
    return np.concatenate(rows, axis=0)


def overlay(
    picture: Array, heat: Array, least: int = OVERLAY_PIXELS, level: float | None = None, mask: Array | None = None
) -> Array:
    """A picture, uint8 (H', W', 3), with a heat map, float (H, W), laid over it, at least so many pixels high or
    wide: nothing of it where the map is 0, little but its colour at its largest value, or at `level` if that is more.

    level: of the heat map, around which there is a contour, a tenth of its largest value at the least
    mask:  what is defective in truth, bool (H, W), outlined too
    """
    scale = max(1, math.ceil(least / max(picture.shape[:2])))
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    smooth = decoding.resize(np.asarray(heat, np.float32), *large.shape[:2])
    share = (smooth / (max(float(heat.max()), level or 0.0) or 1.0)).clip(0, 1)
    colour = colormaps["inferno"](share)[..., :3] * 255
    weight = 0.85 * np.sqrt(share)[..., None]
    blended: Array = np.rint(large * (1 - weight) + colour * weight).astype(np.uint8)
    if mask is not None:
        blended[_outline(decoding.resize(mask.astype(np.float32), *large.shape[:2]) > 0.5)] = TRUTH
    if level is not None:
        blended[_outline(smooth > max(level, FAINT * float(heat.max())))] = CONTOUR
    return blended


def overlays(
    images: Array, heat: Array, level: float | None = None, masks: Sequence[Array | None] | None = None
) -> Array:
    """Images, float (N, C, H, W) in [0, 1], each with its heat map (N, H, W) over it, as float (N, 3, H', W')."""
    pictures = np.rint(images * 255).astype(np.uint8).repeat(1 if images.shape[1] == 3 else 3, axis=1)[:, :3]
    drawn = [
        overlay(picture.transpose(1, 2, 0), each, level=level, mask=mask)
        for picture, each, mask in zip(pictures, heat, masks or [None] * len(heat), strict=True)
    ]
    return np.stack(drawn).transpose(0, 3, 1, 2) / 255


def _outline(region: Array) -> Array:
    """The pixels of a region, bool (H, W), within two of its edge."""
    inside = binary_erosion(region, iterations=OUTLINE, border_value=1)
    edge: Array = region & ~inside
    return edge


def folder_histogram(scores: Array, calibration: Array, threshold: float, target_fpr: float) -> Figure:
    """Scores of the images of a folder (N,), beside those of the calibration normals (n,), with the threshold."""
    figure, (axes,) = _figure(1, (9.0, 3.6))
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


def _pixels(image: Array, scale: int) -> Array:
    """float (C, H, W) in [0, 1] to uint8 (H, W) or (H, W, 3), enlarged, with a thin gray frame."""
    large = np.rint(image * 255).astype(np.uint8).repeat(scale, axis=1).repeat(scale, axis=2)
    padded = np.pad(large, ((0, 0), (1, 1), (1, 1)), constant_values=96)
    return padded[0] if len(padded) == 1 else padded[:3].transpose(1, 2, 0)


def _figure(columns: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    """A white figure with axes side by side, none of it known to pyplot."""
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        return figure, list(figure.subplots(1, columns, squeeze=False)[0])


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
