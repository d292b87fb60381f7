"""Ctrl-C while modules are loaded: an import that is broken off leaves modules half made, and whatever then uses them
fails in ways of its own, so that the process ends there and then.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from anomaly_ae.errors import Interrupted


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """End the process at a Ctrl-C within, unless it is ignored or handled by the caller's own; for imports alone,
    after which nothing has to be put in order.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) == signal.default_int_handler]
    for number in ours:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.default_int_handler)


def _leave(*_: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(Interrupted.exit_code)
