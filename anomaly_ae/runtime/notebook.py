"""What people see of work in a notebook: a few lines below the cell that is run, the last of which changes."""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anomaly_ae.escaping import printable_lines


class CellLines:
    """Plain lines below the cell that is run: what was said, and last of all how the work goes."""

    def __init__(self) -> None:
        self.state = ""
        self._said = list[str]()
        self._handle: Any = None  # IPython's, of what is displayed
        self._lock = threading.Lock()  # for what takes long is said by another thread

    def say(self, text: str) -> None:
        """Add a line that stays."""
        with self._lock:
            self._said.append(text)
            self._show()

    def show_state(self, text: str) -> None:
        """Make this the last line."""
        with self._lock:
            if text != self.state:
                self.state = text
                self._show()

    def _show(self) -> None:
        from IPython.display import display

        lines = [*self._said, self.state] if self.state else self._said
        shown = {"text/plain": printable_lines("\n".join(lines))}
        if self._handle:
            self._handle.update(shown, raw=True)
        else:
            self._handle = display(shown, raw=True, display_id=True)


_cell: CellLines | None = None


def cell_lines() -> CellLines | None:
    """The lines below the cell that is run, the same until it ends; None where this is no notebook."""
    global _cell
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython else None
    if not hasattr(shell, "kernel"):  # which IPython in a terminal has not
        return None
    if _cell is None:
        shell.events.register("post_run_cell", _forget)
        _cell = CellLines()
    return _cell


def _forget(_: object) -> None:
    global _cell
    _cell = None


@contextmanager
def without_widgets() -> Iterator[None]:
    """Within it, nothing is said of widgets that a notebook lacks, by a library that would like to have them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's word
        yield
