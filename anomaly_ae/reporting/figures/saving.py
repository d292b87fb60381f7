"""Figures as files, and grids of images, which a training keeps as it goes on: nothing here waits for matplotlib."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from anomaly_ae.storage.atomic import write_with

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
GRID_PIXELS = 84  # the least height of one image in a grid
SHOWN = 10  # images in a row at most
DPI = 130  # of figures
BAND, GRID_IMAGES = 6, 18  # images side by side in a grid, and in all: MLflow's card for pictures is square


def grid(images: Array, rebuilt: Array) -> Array:
    """Originals above reconstructions, up to `BAND` pairs side by side, then the next, float (N, C, H, W) in [0, 1],
    as one uint8 picture (H', W'[, 3]); the last ones are left out where they would not fill a band.
    """
    scale = max(1, round(GRID_PIXELS / min(images.shape[-2:])))
    bands = math.ceil(len(images) / BAND)
    width = len(images) // bands
    pairs = np.stack([images, rebuilt])[:, : bands * width, :3]  # (2, N, C, H, W)
    large = np.rint(pairs * 255).astype(np.uint8).repeat(scale, axis=-2).repeat(scale, axis=-1)
    framed = np.pad(large, ((0, 0),) * 3 + ((1, 1),) * 2, constant_values=96)  # in thin gray
    _, _, channels, height, across = framed.shape
    tiles = framed.reshape(2, bands, width, channels, height, across).transpose(1, 0, 4, 2, 5, 3)
    picture = tiles.reshape(bands * 2 * height, width * across, channels)
    return picture[..., 0] if channels == 1 else picture


def as_pixels(image: Array) -> Array:
    """float (C, H, W) in [0, 1] to uint8 (H, W) or (H, W, 3)."""
    pixels: Array = np.rint(image * 255).astype(np.uint8)
    return pixels[0] if len(pixels) == 1 else pixels[:3].transpose(1, 2, 0)


@dataclass(frozen=True)
class Drawing:
    """A figure still to be drawn: by which function of this package, as in `curves.loss_curves`, and of what."""

    function: str
    arguments: tuple[Any, ...]

    @classmethod
    def of(cls, function: str, *arguments: Any) -> "Drawing":
        """That function's figure of these arguments, arrays, texts and numbers."""
        return cls(function, arguments)

    def draw(self) -> "Figure":
        """The figure."""
        module, function = self.function.split(".")
        drawn: Figure = getattr(import_module(f"anomaly_ae.reporting.figures.{module}"), function)(*self.arguments)
        return drawn


def write_figures(folder: Path, figures: "Mapping[str, Figure]", caption: str) -> None:
    """Write each figure as a PNG under its name, with the caption small below, in as many lines as it takes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for name, figure in figures.items():
        figure.supxlabel(plain(caption), fontsize=8, color="0.4", x=0.99, ha="right", wrap=True)
        figure.set_dpi(DPI)
        canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
        canvas.draw()  # once, where `savefig` does it twice
        save_image(folder / f"{name}.png", np.asarray(canvas.buffer_rgba())[..., :3])


def label(text: str, most: int = 24) -> str:
    """A name as a label: shortened in its middle, and plain."""
    half = (most - 1) // 2
    return plain(text if len(text) <= most else f"{text[:half]}…{text[-half:]}")


def distinct(names: Sequence[str]) -> list[str]:
    """Names without those of their parts, between ` · `, that all of them have."""
    split = [name.split(" · ") for name in names]
    common = set(split[0]).intersection(*split[1:]) if len(split) > 1 else set()
    return [
        " · ".join(part for part in parts if part not in common) or name
        for name, parts in zip(names, split, strict=True)
    ]


def plain(text: str) -> str:
    """A text of which no part is read as a formula."""
    return text.replace("$", r"\$")


def encoded(pixels: Array, kind: str, **options: Any) -> bytes:
    """uint8 pixels, (H, W), (H, W, 3) or with transparency (H, W, 4), as a file of a kind that Pillow writes."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, kind, **options)
    return content.getvalue()


def save_image(path: Path, pixels: Array) -> None:
    """Write uint8 pixels, (H, W) or (H, W, 3), as PNG."""
    content = encoded(pixels, "PNG", compress_level=1, dpi=(DPI, DPI))
    write_with(path, lambda temporary: temporary.write_bytes(content), durable=False)
