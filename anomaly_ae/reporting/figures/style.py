"""What all figures share: colours, labels, and how they are written."""

import io
from collections.abc import Sequence

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from anomaly_ae.reporting.figures.saving import DPI

NORMAL, NOVEL, LINE = "#4477aa", "#ee6677", "#222222"
MARKERS = {"normal": "o", "novel": "X"}
ROLES = {"normal": NORMAL, "novel": NOVEL}  # Paul Tol's bright scheme, told apart by the colour-blind


class Plot(Figure):
    """A figure that a notebook shows by itself, though pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=DPI, bbox_inches="tight")
        return content.getvalue()


class Numbers(LogFormatter):
    """The numbers at a logarithmic axis as 0.01 and not as powers, which are formulas and take long to set."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def log_scale(axes: Axes) -> None:
    """Make the y axis a logarithmic one."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(Numbers())
    axes.yaxis.set_minor_formatter(Numbers())


def plots(columns: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    """A white figure with axes side by side, none of it known to pyplot."""
    with style.context("seaborn-v0_8-whitegrid"):
        figure = Plot(figsize=size, layout="constrained", facecolor="white")
        return figure, list(figure.subplots(1, columns, squeeze=False)[0])
