"""Figures drawn by a process of its own, while the one that asks for them goes on: the libraries that draw take
seconds to load, and so does drawing.
"""

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from anomaly_ae.errors import AnomalyAEError
from anomaly_ae.reporting.figures.saving import Drawing, write_figures

LOADED = ("matplotlib.figure", "seaborn", "sklearn.manifold")  # while there is nothing to draw yet
# -P: what lies in the working folder is not run
COMMAND = [sys.executable, "-P", "-c", "from anomaly_ae.reporting.figures.painter import main; main()"]


@dataclass(frozen=True)
class Order:
    """Figures to be written into a folder, by name, with the caption small below each."""

    folder: Path
    drawings: Mapping[str, Drawing]
    caption: str

    def paint(self) -> None:
        write_figures(self.folder, {name: each.draw() for name, each in self.drawings.items()}, self.caption)


class Painter:
    """A process that draws, one order after another. It ends when this one does, however that ends; where it ends
    before, as when it is killed for lack of memory, what it was to draw is drawn here.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._waiting: list[Order] = []
        atexit.register(self._process.kill)  # at once, for who reads what this process says waits for both to end

    def take(self, order: Order) -> None:
        """Have figures drawn, from now on."""
        assert self._process.stdin
        self._waiting.append(order)
        with contextlib.suppress(BrokenPipeError):  # `finish` sees to it
            pickle.dump(order, self._process.stdin)
            self._process.stdin.flush()

    def finish(self) -> None:
        """Wait until all is drawn that was ordered. Raises what the drawing of it raised."""
        assert self._process.stdout
        while self._waiting:
            order = self._waiting.pop(0)
            try:
                error = pickle.load(self._process.stdout)  # noqa: S301 (what our own process answers)
            except (EOFError, pickle.UnpicklingError):
                order.paint()
                continue
            if error is not None:
                raise error


_painter: Painter | None = None


def start() -> None:
    """Have a process load what draws, for `save_figures` to use; once."""
    global _painter
    _painter = _painter or Painter()


def save_figures(folder: Path, drawings: Mapping[str, Drawing], caption: str) -> None:
    """Write each drawing as a PNG under its name, with the caption small below: now, or, where there is a painter, by
    the time that `finish_figures` returns.
    """
    order = Order(folder, drawings, caption)
    if _painter:
        _painter.take(order)
    else:
        order.paint()


def finish_figures() -> None:
    """Wait for what `save_figures` was asked for."""
    if _painter:
        _painter.finish()


def main() -> None:
    """Draw what is ordered at standard input, and say at standard output that it is done, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the one that orders, and with it its orders
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for name in LOADED:
        import_module(name)
    while True:
        try:
            order: Order = pickle.load(sys.stdin.buffer)  # noqa: S301 (what the process that started this one orders)
        except EOFError:
            return
        error: Exception | None = None
        try:
            order.paint()
        except AnomalyAEError as known:
            error = known
        except Exception:  # noqa: BLE001 (whatever it is, the other process says it)
            error = RuntimeError(traceback.format_exc())
        pickle.dump(error, answers)
        answers.flush()
