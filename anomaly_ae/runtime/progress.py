"""What long work shows: a live line on a terminal, a line below the cell in a notebook, and elsewhere plain lines, as
on a terminal on standard error.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import TaskID as TaskID

from anomaly_ae.escaping import printable, printable_lines
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.notebook import CellLines, cell_lines

_silent = False
PLAIN_EVERY = 5.0  # seconds between plain lines, so that a log stays short
SILENCE = 2.0  # seconds, at the most
CELL_EVERY = 0.2  # seconds between changes of a line below a cell


class Display(Protocol):
    """What long work tells: images done, and a line of text now and then, as at the end of an epoch."""

    def advance(self, images: int, text: str) -> None:
        """Say that `images` more have been worked on; `text` is the state in a few words."""

    def line(self, text: str, *, last: bool = False) -> None:
        """Say what has come of it so far; `last` lines are always shown."""


class Silent:
    """Shows nothing."""

    def advance(self, images: int, text: str) -> None:
        pass

    def line(self, text: str, *, last: bool = False) -> None:
        pass


@dataclass
class Plain:
    """A line now and then, for logs and pipes."""

    shown: float = field(default=-PLAIN_EVERY)

    def advance(self, images: int, text: str) -> None:
        pass

    def line(self, text: str, *, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self.shown >= PLAIN_EVERY:
            logger.info(text)
            self.shown = now


@dataclass
class Pace:
    """How many images are done a second."""

    started: float = field(default_factory=time.monotonic)
    done: int = 0

    def after(self, images: int) -> float:
        """That, when `images` more are done."""
        self.done += images
        return self.done / max(time.monotonic() - self.started, 1e-9)


@dataclass
class Live:
    """A bar with the state in words, images/s and the time left."""

    progress: Progress
    task: TaskID
    pace: Pace = field(default_factory=Pace)

    def advance(self, images: int, text: str) -> None:
        rate = self.pace.after(images)
        self.progress.update(self.task, advance=images, state=f"{printable(text)} · {rate:,.0f} images/s")

    def line(self, text: str, *, last: bool = False) -> None:
        if last:
            self.progress.console.print(printable_lines(text), highlight=False, markup=False)


@dataclass
class BelowCell:
    """The same in words, in the last line below the cell of a notebook, where the last text stays.

    images: to be worked on
    """

    cell: CellLines
    images: int
    pace: Pace = field(default_factory=Pace)
    shown: float = field(default=-CELL_EVERY)
    last: str = ""

    def advance(self, images: int, text: str) -> None:
        rate, now = self.pace.after(images), time.monotonic()
        if now - self.shown >= CELL_EVERY:
            left = timedelta(seconds=round((self.images - self.pace.done) / rate)) if rate else "…"
            self.cell.show_state(f"{text} · {rate:,.0f} images/s · {left} left")
            self.shown = now

    def line(self, text: str, *, last: bool = False) -> None:
        if last:
            self.last = text


@contextmanager
def display(total: int, done: int = 0) -> Iterator[Display]:
    """A display for `total` images, `done` of which were worked on before."""
    console = Console(stderr=True)
    if _silent:
        yield Silent()
        return
    if cell := cell_lines():
        before, below = cell.state, BelowCell(cell, total - done)
        try:
            yield below
        finally:
            cell.show_state(below.last or before)
        return
    if not console.is_terminal:
        yield Plain()
        return
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]} ·", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, TextColumn("left"), console=console, transient=True) as progress:
        yield Live(progress, progress.add_task("", total=total, completed=done, state=""))


def hide_displays() -> None:
    """Show none in this process, which is one of several at work; messages are still said."""
    global _silent
    _silent = True


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Say what is being done, if it is not soon done; below a cell it is said only as long."""
    text, cell = f"{what} …", cell_lines()
    before = cell.state if cell else ""
    late = threading.Timer(SILENCE, cell.show_state if cell else logger.info, [text])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
        late.join()  # or it might say so now
        if cell and cell.state == text:
            cell.show_state(before)
