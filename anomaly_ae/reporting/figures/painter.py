"""Figures drawn by a process of its own, while the one that asks for them goes on: the libraries that draw take
seconds to load, and so does drawing.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from anomaly_ae.reporting.figures.saving import Drawing, write_figures
from anomaly_ae.runtime.worker import Worker

DRAWING_MODULES = tuple(f"{__package__}.{name}" for name in ("curves", "distributions", "image_grids"))


@dataclass(frozen=True)
class FigureOrder:
    """Figures to be written into a folder, by name, with the caption small below each."""

    folder: Path
    drawings: Mapping[str, Drawing]
    caption: str

    def carry_out(self) -> None:
        write_figures(self.folder, {name: each.draw() for name, each in self.drawings.items()}, self.caption)


_painter: Worker | None = None
_ordered: "list[Future[None]]" = []


def start(*modules: str) -> None:
    """Have a process load what draws, and the modules named, while there is nothing to draw yet; once."""
    global _painter
    _painter = _painter or Worker(*DRAWING_MODULES, *modules)


def save_figures(folder: Path, drawings: Mapping[str, Drawing], caption: str) -> None:
    """Write each drawing as a PNG under its name, with the caption small below: now, or, where there is a painter, by
    the time that `finish_figures` returns.
    """
    order = FigureOrder(folder, drawings, caption)
    if _painter:
        _ordered.append(_painter.submit(_painter.ask, order))
    else:
        order.carry_out()


def finish_figures() -> None:
    """Wait for what `save_figures` was asked for. Raises what the first drawing of it raised that went wrong."""
    while _ordered:
        _ordered.pop(0).result()
