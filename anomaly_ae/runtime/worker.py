"""A process that carries out orders, one after another, while the one that gives them goes on: MLflow, and what
draws, take seconds to load, and so does what they do.
"""

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

from anomaly_ae.errors import AnomalyAEError

Result = TypeVar("Result")
# -P: what lies in the working folder is not run
COMMAND = [sys.executable, "-P", "-c", "from anomaly_ae.runtime.worker import main; main()"]


class Order(Protocol):
    """What either process can do. It is pickled on its way, and so is what comes of it."""

    def carry_out(self) -> Any:
        """Do it, and return what came of it."""


class Worker:
    """A process that first loads the modules named. It ends when this one does, however that ends; where it ends
    before, as when it is killed for lack of memory, orders are carried out here.
    """

    def __init__(self, *modules: str) -> None:
        self.process = subprocess.Popen([*COMMAND, *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._tasks = SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]]()
        Thread(target=self._work_off, daemon=True).start()  # no Ctrl-C cuts an order or an answer in two there
        atexit.register(self.process.kill)  # at once, for who reads what this process says waits for both to end

    def submit(self, do: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """Call `do`, which may `ask`, in the thread that talks to the process, after all submitted before."""
        future = Future[Result]()
        self._tasks.put((future, do, arguments))
        return future

    def _work_off(self) -> None:
        while True:
            future, do, arguments = self._tasks.get()
            try:
                future.set_result(do(*arguments))
            except BaseException as error:  # noqa: BLE001 (it is raised where the result is asked for)
                future.set_exception(error)

    def ask(self, order: Order) -> Any:
        """What comes of an order. Raises what it raises: an `AnomalyAEError`, or a `RuntimeError` that holds a
        traceback.
        """
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write(pickle.dumps(order))
            self.process.stdin.flush()
            error, answer = pickle.load(self.process.stdout)  # noqa: S301 (what our own process answers)
        except (OSError, EOFError, pickle.UnpicklingError):  # it is gone
            return order.carry_out()
        if error is not None:
            raise error
        return answer


def main() -> None:
    """Load what is named in the arguments, then carry out what is ordered at standard input, and answer at standard
    output.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # they end the one that orders, and with it its orders
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for name in sys.argv[1:]:
        with contextlib.suppress(Exception):  # the order that needs it says what is wrong
            import_module(name)
    while True:
        try:
            order: Order = pickle.load(sys.stdin.buffer)  # noqa: S301 (what the process that started this one orders)
            pickle.dump(_answer(order), answers)
            answers.flush()
        except (EOFError, BrokenPipeError):  # nobody is there any more
            return


def _answer(order: Order) -> tuple[Exception | None, Any]:
    try:
        return None, order.carry_out()
    except AnomalyAEError as error:
        return error, None
    except Exception:  # noqa: BLE001 (whatever it is, the other process says it)
        return RuntimeError(traceback.format_exc()), None
