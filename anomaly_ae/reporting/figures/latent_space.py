"""Latents laid out in the plane."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from anomaly_ae.reporting.figures.saving import Array
from anomaly_ae.reporting.figures.style import MARKERS, NORMAL, NOVEL, plots

# Of classes by their role, from Paul Tol's bright scheme: cold ones, blue first, and warm ones, red first
SHADES = {"normal": (NORMAL, "#66ccee", "#228833"), "novel": (NOVEL, "#ccbb44", "#aa3377")}
STEPS = 500  # of t-SNE; twice as many change so small a map little


def latent_map(latents: Array, names: Sequence[str], novel: Array) -> Figure:
    """Latents (N, D) laid out in the plane by PCA and by t-SNE, a colour for each class.

    van der Maaten and Hinton 2008, https://www.jmlr.org/papers/v9/vandermaaten08a.html
    """
    figure, (left, right) = plots(2, (13.2, 6))
    plane, shares = _pca(latents)
    _scatter(left, plane, names, novel)
    left.set(xlabel=f"PCA 1 ({shares[0]:.0%} of the variance)", ylabel=f"PCA 2 ({shares[1]:.0%})", title="PCA")
    _scatter(right, _tsne(latents), names, novel)
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
    plane: Array = TSNE(perplexity=perplexity, init=start, random_state=0, max_iter=STEPS).fit_transform(latents)
    return plane


def _scatter(axes: Axes, plane: Array, names: Sequence[str], novel: Array) -> None:
    """Points (N, 2), coloured by class, and handles for a legend that shows the marks of the map."""
    table = pd.DataFrame({"x": plane[:, 0], "y": plane[:, 1], "class": names})
    table["role"] = np.where(novel, "novel", "normal")
    role_of = dict(sorted(zip(names, table["role"], strict=True), key=lambda each: (each[1] == "novel", each[0])))
    colors = class_colors(role_of)
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
    for name in role_of:
        label = f"{name} ({role_of[name]})"
        axes.scatter([], [], s=28, color=colors[name], marker=MARKERS[role_of[name]], label=label)
