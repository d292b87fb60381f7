"""The command line: parse, call, print. Commands are listed by `--help` in the order of these imports."""

import atexit
import contextlib
import io
import logging
import os
import signal
import sys
import threading
import warnings

import typer

from anomaly_ae.cli.app import WITHOUT_A_FLAG, app, as_flag, with_current_flags
from anomaly_ae.errors import AnomalyAEError, Interrupted, one_line
from anomaly_ae.escaping import printable
from anomaly_ae.runtime.messages import StderrHandler, logger, shown_by
from anomaly_ae.runtime.spelling import spelt
from anomaly_ae.storage.atomic import with_remedy

# isort: off
from anomaly_ae.cli import detector_commands, folder_commands, run_commands, catalogue_commands  # noqa: F401 (they register themselves)

__all__ = ["app", "main", "run_and_leave"]


def main() -> None:
    """Run the command line; an error is one line on standard error, and the exit code says whose it is."""
    _open_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does
    for stream in (sys.stdout, sys.stderr):  # names of files may be no UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_, **__: logger.warning(one_line(message))
    with spelt(as_flag), shown_by(StderrHandler()):
        sys.exit(_run())


def run_and_leave() -> None:
    """`main` as a program that ends at once, for Python takes a second to tidy up after PyTorch."""
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    threading._shutdown()  # type: ignore[attr-defined] # pools let go of their processes, which are waited for next
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run() -> int:
    """Run the command that was given; the exit code."""
    try:
        code: int = typer.main.get_command(app).main(
            with_current_flags(sys.argv[1:]), prog_name="anomaly-ae", standalone_mode=False
        )
        if code == Interrupted.exit_code:  # Typer's word for Ctrl-C before or after the work itself
            logger.info("interrupted")
    except Interrupted as error:
        code = _fail(one_line(error), error.exit_code, logging.INFO)
    except AnomalyAEError as error:
        for note in getattr(error, "__notes__", ()):  # as what was found in a folder
            print(note, file=sys.stderr)
        code = _fail(one_line(error), error.exit_code)
    except typer.TyperException as error:
        code = _fail(one_line_of(error), error.exit_code)
    except KeyboardInterrupt:
        code = _fail("interrupted", Interrupted.exit_code, logging.INFO)
    except BrokenPipeError:  # the reader of our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        code = _fail(printable(with_remedy(f"{error.strerror or error}: {error.filename or 'a file'}", error)), 1)
    except (MemoryError, RuntimeError) as error:  # torch says lack of memory with a RuntimeError
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        code = _fail("out of memory; close other programs, or give a smaller --batch-size or --latent", 1)
    return code


def one_line_of(error: typer.TyperException) -> str:
    """Typer's message as one line, ending with where to read on."""
    context = getattr(error, "ctx", None)
    command = f"anomaly-ae {context.info_name}" if context and context.parent else "anomaly-ae"
    name = str(getattr(error, "option_name", "")).lstrip("-").replace("-", "_")
    if name in WITHOUT_A_FLAG:
        return f"{name} is a setting without a flag of its own; give it with {as_flag(name)}=VALUE"
    return printable(" ".join(error.format_message().split())).rstrip(".") + f"; see: {command} --help"


def _open_streams() -> None:
    """Put the null device in place of standard streams that were closed, as under a daemon: no file that is opened
    later is to get their numbers, nor what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _fail(message: str, code: int, level: int = logging.ERROR) -> int:
    logger.log(level, message)
    return code
