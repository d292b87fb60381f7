"""`anomaly-ae review` at work, and what a test does with its page."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import Trained, start

HOSTILE = "<img src=x onerror=document.title='caught'>.png"  # would be run if it were taken for HTML


class Served:
    """`anomaly-ae review` at work."""

    def __init__(self, trained: Trained, scored: Path) -> None:
        place = ("--mlruns", str(trained.home.root), "--no-browser")
        self.process: subprocess.Popen[str] = start(scored.parent, "review", scored.name, *place)
        assert self.process.stderr is not None
        said = next(line for line in self.process.stderr if " is at http" in line)
        self.address = said.split(" is at ")[1].split()[0]


@contextmanager
def serving(trained: Trained, scored: Path) -> Iterator[Served]:
    server = Served(trained, scored)
    yield server
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=60) == 0


def opened(page: Any, address: str) -> None:
    page.goto(address)
    page.locator(".card").first.wait_for()
    until_shown(page)


def until_shown(page: Any) -> None:
    """Until the pictures of all cards are there; what is not shown is not marked."""
    shown = "images => images.every(image => image.complete && image.naturalWidth)"
    until(page, lambda: page.locator(".card img").evaluate_all(shown))


def text(page: Any, name: str) -> str:
    return str(page.locator(f"#{name}").text_content())


def until(page: Any, holds: Any) -> None:
    """Until something holds; a machine that has other work is given its time."""
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, f"it never came to that; the page says: {page.inner_text('body')[:500]}"
        page.wait_for_timeout(50)


def until_first(page: Any, name: str) -> None:
    """Until the list begins with a file, and all that is in view is shown."""
    until(page, lambda: page.locator(".card .name").first.text_content() == name)
    until_shown(page)


def until_rested(page: Any) -> None:
    """Until all keys are dealt with, and the next would be too: those right after a refusal are dropped."""
    page.evaluate("turn.catch(() => {})")
    until(page, lambda: page.evaluate("performance.now() - refusedAt > GLANCE"))
