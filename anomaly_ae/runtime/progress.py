"""What long work shows: a live line on a terminal, plain lines elsewhere. Always on standard error."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import TaskID as TaskID

from anomaly_ae.escaping import printable, printable_lines
from anomaly_ae.runtime.messages import logger

_silent = False
PLAIN_EVERY = 5.0  # seconds between plain lines, so that a log stays short
SILENCE = 2.0  # seconds, at the most


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
class Live:
    """A bar with the state in words, images/s and the time left."""

    progress: Progress
    task: TaskID
    started: float = field(default_factory=time.monotonic)
    done: int = 0

    def advance(self, images: int, text: str) -> None:
        self.done += images
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        self.progress.update(self.task, advance=images, state=f"{printable(text)} · {rate:,.0f} images/s")

    def line(self, text: str, *, last: bool = False) -> None:
        if last:
            self.progress.console.print(printable_lines(text), highlight=False, markup=False)


@contextmanager
def display(total: int, done: int = 0) -> Iterator[Display]:
    """A display for `total` images, `done` of which were worked on before."""
    console = Console(stderr=True)
    if _silent:
        yield Silent()
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
    """Say what is being done, if it is not soon done."""
    late = threading.Timer(SILENCE, logger.info, [f"{what} …"])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
