"""Curves: losses by epoch, ROC, precision and recall."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from anomaly_ae.metrics.ranking import roc_curve
from anomaly_ae.reporting.figures.saving import Array, distinct, label
from anomaly_ae.reporting.figures.style import LINE, NORMAL, log_scale, plots

if TYPE_CHECKING:
    from anomaly_ae.training import Epoch

DASHES = ("-", "--", "-.", ":")  # in turn, for a curve may lie on another
LINE_LETTERS = 52  # of a name in a legend, which may have three lines


def loss_curves(training: Sequence[float], validation: Sequence[float]) -> Figure:
    """Training and validation loss of each epoch, with the best epoch marked."""
    figure, (axes,) = plots(1, (7, 4.2))
    epochs = range(1, len(training) + 1)
    marker = "." if len(training) <= 40 else ""
    axes.plot(epochs, training, color=NORMAL, marker=marker, label="training")
    axes.plot(epochs, validation, "--", color=LINE, marker=marker, label="validation")
    best = min(epochs, key=lambda epoch: validation[epoch - 1])
    axes.plot(
        best, validation[best - 1], "o", color=LINE, fillstyle="none", markersize=11, label=f"best epoch: {best}"
    )
    axes.set(xlabel="epoch", ylabel="loss (log scale)", title="Loss by epoch")
    log_scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def compared_losses(histories: "Sequence[tuple[str, Sequence[Epoch]]]", heading: str = "Loss by epoch") -> Figure:
    """Training and validation loss by epoch of several trainings, each with its name."""
    figure, panels = plots(2, (12.5, 4.8))
    colors = _colors(len(histories))
    for axes, part in zip(panels, ("train", "validation"), strict=True):
        for i, (color, (_, history)) in enumerate(zip(colors, histories, strict=True)):
            losses = [getattr(epoch, f"{part}_loss") for epoch in history]
            marker = "o" if len(history) <= 40 else ""
            look = {"color": color, "linestyle": DASHES[i % len(DASHES)], "marker": marker, "markersize": 3}
            axes.plot([epoch.epoch for epoch in history], losses, **look)
        axes.set(xlabel="epoch", ylabel="loss, each by its own objective (log scale)")
        log_scale(axes)
        axes.set_title("Training" if part == "train" else "Validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(panels[1], [name for name, _ in histories], title="system (objective)")
    figure.suptitle(heading)
    return figure


def compared_rocs(runs: Sequence[tuple[str, Array, Array]]) -> Figure:
    """ROC curves of several detectors in one plot: a name, scores (N,) and whether each image is novel, bool (N,)."""
    figure, (axes,) = plots(1, (8.6, 5))
    for i, (color, (_, scores, novel)) in enumerate(zip(_colors(len(runs)), runs, strict=True)):
        curve = roc_curve(scores, novel)
        axes.plot(curve.fpr, curve.tpr, DASHES[i % len(DASHES)], color=color)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    _legend(axes, [name for name, _, _ in runs], more=["chance"])
    return figure


def _colors(count: int) -> Sequence[Any]:
    """So many colours for lines, as different as can be."""
    import seaborn as sns  # a second, which one curve need not wait for

    return list(sns.color_palette("tab10" if count <= 10 else "husl", n_colors=count))


def _legend(axes: Axes, names: Sequence[str], title: str | None = None, more: Sequence[str] = ()) -> None:
    """The names of the lines beside the axes, without what all have in common, long ones on several lines; said line
    by line, for one that begins with _ is hidden otherwise.
    """
    shown = [textwrap.fill(label(name, 3 * LINE_LETTERS), LINE_LETTERS) for name in (*distinct(names), *more)]
    axes.legend(axes.lines, shown, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title=title)


def roc_and_precision_recall(
    scores: Array, novel: Array, auroc: float, average_precision: float, at_threshold: Sequence[float | None]
) -> Figure:
    """ROC and precision–recall curves; `at_threshold` is FPR, TPR and precision there."""
    figure, (left, right) = plots(2, (10, 4.6))
    curve = roc_curve(scores, novel)
    left.plot(curve.fpr, curve.tpr, color=NORMAL, label=f"AUROC {auroc:.4f}")
    left.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="chance")
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    right.plot(curve.tpr[1:], curve.precision, color=NORMAL, label=f"average precision {average_precision:.4f}")
    right.axhline(novel.mean(), color="0.6", linestyle=":", label="chance")
    right.set(xlabel="recall (true positive rate)", ylabel="precision", title="Precision and recall")
    at_fpr, at_tpr, at_precision = at_threshold
    for axes, point in ((left, (at_fpr, at_tpr)), (right, (at_tpr, at_precision))):
        if None not in point:
            axes.plot(*point, "o", color=LINE, label="threshold")  # type: ignore[arg-type]  # without None
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="best")
    return figure
