"""The picture at the head of the README: photos and digits that were judged, what was found in them, and how the
scores of all test images lie to the threshold, for light pages and for dark ones. `docs/screenshots.py` draws it.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

import anomaly_ae
from anomaly_ae.images.sources import open_source
from anomaly_ae.reporting.comparison import Tested, read_scores
from anomaly_ae.reporting.figures.image_grids import overlay
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.scoring.previews import Preview, load_previews

WIDTH = 8.3  # inches, of 100 of GitHub's pixels each
DPI = 200
SIDE = 200  # pixels of a photo, at its larger side
SMALL, LETTERS = 6.5, 8.5  # points
BARS = 28
NEARLY_WHITE = 250  # of 255
WIDTHS = {"left": 0.118, "right": 0.99}  # of a panel, in which the images and the histogram lie
IMAGES, HISTOGRAM = 5.6, 1.75  # shares of that


@dataclass(frozen=True)
class Theme:
    """The colours of a page: behind all, of letters, of less important ones, and of what is normal and anomalous."""

    name: str
    page: str
    letters: str
    faint: str
    normal: str
    anomalous: str


THEMES = (
    Theme("overview", "#ffffff", "#1f2328", "#59636e", "#4477aa", "#d1394d"),
    Theme("overview-dark", "#0d1117", "#e6edf3", "#9198a1", "#6ea6dd", "#ff7b88"),
)


@dataclass(frozen=True)
class Panel:
    """A detector at work: what it learned from, the images that are shown, their scores, and all test images.

    level: of the heat map, around which there is a line
    """

    heading: str
    detector: anomaly_ae.Detector
    tested: Tested
    auroc: float
    shown: list[Preview]
    scores: list[float]
    rebuilds: bool

    @classmethod
    def of(cls, run: RunFolder, heading: str, folder: Path, *, rebuilds: bool) -> "Panel":
        """Of a run that was evaluated, and a folder of the images to show."""
        detector, source = anomaly_ae.load(run.detector_folder()), open_source(folder)
        listing, tested, evaluation = source.list(), read_scores(run), run.evaluation()
        assert tested is not None
        assert evaluation is not None
        assert evaluation.auroc is not None
        shown = list(load_previews(detector, source, listing, np.arange(len(listing)), SIDE))
        scores = [row["score"] for row in detector.score_folder(folder)]
        return cls(heading, detector, tested, evaluation.auroc, shown, scores, rebuilds)

    @property
    def outcome(self) -> str:
        """How many of the test images are on the right side of the threshold."""
        above, novel = self.tested.scores > self.detector.threshold, self.tested.novel
        return (
            f"{len(novel):,} others judged: {np.sum(above & novel):,} of {np.sum(novel):,} anomalies found, "
            f"{np.sum(above & ~novel):,} of {np.sum(~novel):,} normal ones a false alarm "
            f"({self.detector.calibration.target_fpr:.0%} asked) · AUROC {self.auroc:.3f}"
        )

    @property
    def rows(self) -> "list[tuple[str, list[npt.NDArray[np.uint8]]]]":
        """Rows of pictures with their names."""
        finder = self.detector.region_finder
        found = [each for each in self.shown if each.heat is not None]
        if self.rebuilds:  # small images, which an overlay would hide
            highest = max(float(each.heat.max()) for each in found)
            heat = [np.uint8(255 * colormaps["magma"](each.heat / highest)[..., :3]) for each in found]
        else:
            heat = [overlay(each.picture, each.heat, level=finder.level if finder else None) for each in found]
        rebuilt = [np.rint(255 * each.rebuilt.transpose(1, 2, 0)).astype(np.uint8) for each in self.shown]
        rows = [("original", [each.picture for each in self.shown]), ("reconstruction", rebuilt), ("heat map", heat)]
        return rows if self.rebuilds else [rows[0], rows[2]]

    @property
    def height(self) -> float:
        """Inches."""
        height, width = self.shown[0].picture.shape[:2]
        across = WIDTH * (WIDTHS["right"] - WIDTHS["left"]) * IMAGES / (IMAGES + HISTOGRAM) / len(self.shown)
        return len(self.rows) * across * height / width + 1.04


def draw_headline(folder: Path, panels: Sequence[Panel]) -> None:
    """Write the picture for each theme."""
    for theme in THEMES:
        heights = [panel.height for panel in panels]
        figure = Figure(figsize=(WIDTH, sum(heights)), facecolor=theme.page)
        parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, panel in zip(parts, panels, strict=True):
            part.set_facecolor(theme.page)
            _draw(part, panel, theme)
        content = io.BytesIO()
        figure.savefig(content, dpi=DPI)
        save_small(Image.open(content), folder / f"{theme.name}.png")


def save_small(image: Image.Image, path: Path) -> None:
    """Write a picture with photos in it as a PNG of 256 colours, a third as large; what was white stays white."""
    small = image.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
    small.putpalette([255 if value >= NEARLY_WHITE else value for value in small.getpalette() or []])
    small.save(path, optimize=True)


def _draw(figure: SubFigure, panel: Panel, theme: Theme) -> None:
    inch = 1 / panel.height
    figure.text(0.01, 1 - 0.1 * inch, panel.heading, color=theme.letters, size=10.5, weight="bold", va="top")
    figure.text(0.01, 1 - 0.31 * inch, panel.outcome, color=theme.faint, size=LETTERS, va="top")
    ratios = [*[IMAGES / len(panel.shown)] * len(panel.shown), HISTOGRAM]
    grid = figure.add_gridspec(
        *(len(panel.rows), len(ratios)), **WIDTHS, bottom=0.3 * inch, top=1 - 0.76 * inch, wspace=0.06, hspace=0.05,
        width_ratios=ratios,
    )  # fmt: skip
    for i, (name, pictures) in enumerate(panel.rows):
        for j, (picture, score) in enumerate(zip(pictures, panel.scores, strict=True)):
            is_anomaly = score > panel.detector.threshold
            colour = theme.anomalous if is_anomaly else theme.normal
            axes = figure.add_subplot(grid[i, j], xticks=[], yticks=[])
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.spines[:].set(color=colour, linewidth=1)
            if i == 0:
                words = f"{'anomalous' if is_anomaly else 'normal'}\n{score:.2f}"
                axes.set_title(words, color=colour, size=SMALL, pad=3, linespacing=1.1)
            if j == 0:
                axes.set_ylabel(name, rotation=0, ha="right", va="center", color=theme.letters, size=LETTERS)
    _histogram(figure.add_subplot(grid[:, -1]), panel, theme)


def _histogram(axes: Axes, panel: Panel, theme: Theme) -> None:
    """Of the scores of all test images, those of normal and novel ones as shares of their own number."""
    scores, novel, threshold = panel.tested.scores, panel.tested.novel, panel.detector.threshold
    edges = np.linspace(scores.min(), np.quantile(scores, 0.995), BARS + 1)
    for chosen, colour in ((~novel, theme.normal), (novel, theme.anomalous)):
        counts, _ = np.histogram(scores[chosen].clip(max=edges[-1]), edges)
        axes.stairs(counts / chosen.sum(), edges, fill=True, color=colour, alpha=0.75)
    axes.axvline(threshold, color=theme.letters, linestyle="--", linewidth=1)
    axes.set_title(f"threshold {threshold:.3g}", color=theme.letters, size=SMALL, pad=3)
    axes.set_xlabel("score", color=theme.letters, size=SMALL, labelpad=1)
    axes.tick_params(axis="x", colors=theme.faint, labelsize=SMALL, length=2, pad=1)
    axes.set(yticks=[], facecolor="none")
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.faint)
