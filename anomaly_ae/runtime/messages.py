"""What is said to people while the package works: messages of the logger `anomaly_ae`, which whoever uses it routes
or silences as any other. Where nobody has configured logging, they are plain lines on standard error; in a notebook,
which shows that in red, only warnings and errors are, and the others plain lines below the cell.
"""

import contextlib
import functools
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from anomaly_ae.escaping import counted, printable, printable_lines
from anomaly_ae.runtime.notebook import cell_lines

PREFIX = {logging.WARNING: "warning: ", logging.ERROR: "error: "}
NAMED_FILES = 5  # files that cannot be read, by name


class StderrHandler(logging.Handler):
    """Plain lines on standard error; whatever names they hold, nothing in them steers a terminal.

    Where nobody reads them any more, as after `| head`, the work goes on.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:
            text = PREFIX.get(record.levelno, "") + record.getMessage()
            with contextlib.suppress(BrokenPipeError):
                print(f"{printable_lines(text)}\n", end="", file=sys.stderr, flush=True)  # at once, with its end


class DefaultHandler(StderrHandler):
    """The same, or lines below a notebook's cell, until somebody has handlers of their own; theirs are used then."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.root.handlers or logger.handlers[1:]:
            return
        if record.levelno < logging.WARNING and (cell := cell_lines()):
            cell.say(record.getMessage())
        else:
            super().emit(record)


logger = logging.getLogger("anomaly_ae")
logger.setLevel(logging.INFO)
logger.addHandler(DefaultHandler())
warn_once = functools.cache(logger.warning)  # of what is met again and again, as a damaged run


@contextmanager
def shown_by(handler: logging.Handler) -> Iterator[None]:
    """Within it, messages go to this handler and to no other."""
    before, logger.propagate, logger.handlers = (logger.propagate, logger.handlers), False, [handler]
    try:
        yield
    finally:
        logger.propagate, logger.handlers = before


def report_skipped(bad: Sequence[str]) -> None:
    """Say which files were left out, the first of them by name."""
    for each in bad[:NAMED_FILES]:
        logger.info(f"left out: {printable(each)}")
    if len(bad) > NAMED_FILES:
        logger.info(f"left out: {counted(len(bad) - NAMED_FILES, 'more file')} that cannot be read")
