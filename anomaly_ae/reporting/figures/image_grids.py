"""Pictures: rows of images, grids, heat maps laid over images."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.ndimage import binary_erosion

from anomaly_ae.detector.regions import Box
from anomaly_ae.images import decode
from anomaly_ae.reporting.figures.saving import Array
from anomaly_ae.reporting.figures.style import Plot

OVERLAY_PIXELS = 224  # the least larger side of a picture with a heat map over it
CONTOUR, TRUTH, OUTLINE = (0, 255, 255), (60, 255, 60), 2  # colours of lines over pictures, and their width in pixels
BOX = (255, 255, 255)  # colour
FAINT = 0.1  # share of a map's largest value below which nothing gets a contour
COLUMN = 1.1  # inches, of images in rows
LETTERS = 10  # of a heading, to an inch
STRIP_PIXELS = 64  # the least width of one image in it


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


def defects(classes: Sequence[tuple[str, Array, Array, Array]], level: float | None, heading: str) -> Figure:
    """Images of classes, each a name, images, their heat maps and the true masks, with what was found below them."""
    rows = []
    for name, images, maps, masks in classes:
        rows += [(name, images), ("found", overlays(images, maps, level, list(masks)))]
    return labelled_rows(rows, heading)


def labelled_rows(rows: Sequence[tuple[str, Array]], heading: str, titles: Sequence[str] = ()) -> Figure:
    """Rows of images, float (N, C, H, W) in [0, 1], or of maps, float (N, H, W), each with its name at the left.

    titles: a few words for each column
    """
    columns = max(len(shown) for _, shown in rows)
    tallest = max(shown.shape[-2] / shown.shape[-1] for _, shown in rows)
    height = min(max(1.2, COLUMN * tallest), 2 * COLUMN)  # of a row, so that titles have the width of their column
    size = (COLUMN * columns + 1.4, height * len(rows) + 1.0)
    figure = Plot(figsize=size, layout="constrained", facecolor="white")
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
    figure.suptitle(textwrap.fill(heading, round(LETTERS * size[0])))
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


def overlay(
    picture: Array,
    heat: Array,
    least: int = OVERLAY_PIXELS,
    level: float | None = None,
    mask: Array | None = None,
    boxes: Sequence[Box] = (),
) -> Array:
    """A picture, uint8 (H', W', 3), with a heat map, float (H, W), laid over it, at least so many pixels high or
    wide: nothing of it where the map is 0, little but its colour at its largest value, or at `level` if that is more.

    level: of the heat map, around which there is a contour, a tenth of its largest value at the least
    mask:  what is defective in truth, bool (H, W), outlined too
    boxes: around anomalous regions, in shares of the picture, drawn with a thin line
    """
    scale = max(1, math.ceil(least / max(picture.shape[:2])))
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    smooth = decode.resize_plane(np.asarray(heat, np.float32), *large.shape[:2])
    share, colour = heat_colours(smooth, max(float(heat.max()), level or 0.0))
    weight = 0.85 * np.sqrt(share)[..., None]
    blended: Array = np.rint(large * (1 - weight) + colour * weight).astype(np.uint8)
    if mask is not None:
        blended[_outline(decode.resize_plane(mask.astype(np.float32), *large.shape[:2]) > 0.5)] = TRUTH
    if level is not None:
        blended[_outline(smooth > max(level, FAINT * float(heat.max())))] = CONTOUR
    for box in boxes:
        _frame(blended, box)
    return blended


def heat_colours(heat: Array, highest: float) -> tuple[Array, Array]:
    """What share of `highest` a heat map (H, W) has at each place, in [0, 1], and its colour, float (H, W, 3), 0 to
    255.
    """
    share = (heat / (highest or 1.0)).clip(0, 1)
    return share, colormaps["inferno"](share)[..., :3] * 255


def _frame(picture: Array, box: Box) -> None:
    """Draw a box, a pixel wide, just around what is in it, or at the picture's edge."""
    height, width = picture.shape[:2]
    left, top = max(0, math.floor(box[0] * width) - 1), max(0, math.floor(box[1] * height) - 1)
    right = min(width - 1, math.ceil((box[0] + box[2]) * width))
    bottom = min(height - 1, math.ceil((box[1] + box[3]) * height))
    picture[[top, bottom], left : right + 1] = BOX
    picture[top : bottom + 1, [left, right]] = BOX


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
