"""Figures drawn by a process of its own, while the one that asks for them goes on: the libraries that draw take
seconds to load, and so does drawing.
"""

import atexit
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from anomaly_ae.errors import AnomalyAEError
from anomaly_ae.reporting.figures.saving import Drawing, write_figures

COMMAND = [
    sys.executable,
    "-P",
    "-m",
    "anomaly_ae.reporting.figures.painter",
]  # -P: what lies here is not run


class Painter:
    """A process that draws, one order after another. It ends when this one does, however that ends."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._waiting = 0
        atexit.register(self._process.kill)  # at once, for who reads what this process says waits for both to end

    def order(self, folder: Path, drawings: Mapping[str, Drawing], caption: str) -> None:
        """Have figures drawn into a folder, from now on."""
        assert self._process.stdin
        pickle.dump((folder, dict(drawings), caption), self._process.stdin)
        self._process.stdin.flush()
        self._waiting += 1

    def finish(self) -> None:
        """Wait until all is drawn that was ordered. Raises what the drawing of it raised."""
        assert self._process.stdout
        while self._waiting:
            self._waiting -= 1
            error = pickle.load(self._process.stdout)  # noqa: S301 (what our own process answers)
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
    if _painter:
        _painter.order(folder, drawings, caption)
    else:
        write_figures(folder, {name: drawing.draw() for name, drawing in drawings.items()}, caption)


def finish_figures() -> None:
    """Wait for what `save_figures` was asked for."""
    if _painter:
        _painter.finish()


def main() -> None:
    """Draw what is ordered at standard input, and say at standard output that it is done, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the one that orders, and with it its orders
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import sklearn.manifold  # noqa: F401 (loaded while there is nothing to draw yet)

    while True:
        try:
            order = pickle.load(sys.stdin.buffer)  # noqa: S301 (what the process that started this one orders)
        except EOFError:
            return
        error: Exception | None = None
        try:
            folder, drawings, caption = order
            write_figures(folder, {name: drawing.draw() for name, drawing in drawings.items()}, caption)
        except AnomalyAEError as known:
            error = known
        except Exception:  # noqa: BLE001 (whatever it is, the other process says it)
            error = RuntimeError(traceback.format_exc())
        pickle.dump(error, answers)
        answers.flush()


if __name__ == "__main__":
    main()
