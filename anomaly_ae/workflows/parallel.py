"""Several pieces of work at the same time, in processes of their own."""

import itertools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext
from multiprocessing.queues import Queue
from typing import TypeVar

import torch

from anomaly_ae.errors import Interrupted, TrainingError
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.notebook import cell_lines
from anomaly_ae.runtime.progress import hide_displays
from anomaly_ae.runtime.spelling import Spelling, current_spelling, setting, spelt

Result = TypeVar("Result")
_at_work, _orphaned = threading.Event(), threading.Event()


def run_parallel(works: Iterable[Callable[[], Result]], jobs: int) -> Iterator[Result]:
    """The results of pieces of work, as they come, `jobs` of them at a time, which share the processor's cores.

    Ends them all when one raises, or on Ctrl-C. Raises `Interrupted`, `TrainingError` when a process was killed, and
    whatever the works raise.
    """
    threads, waiting = max(1, torch.get_num_threads() // jobs), iter(works)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with (
        _heard(context) as messages,
        ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(threads, messages)) as pool,
    ):
        try:
            # No more at a time than can be worked on: what the pool has taken in it begins, even after a Ctrl-C.
            running = {_submit(pool, work) for work in itertools.islice(waiting, jobs)}
            while running:
                done, running = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                running |= {_submit(pool, work) for work in itertools.islice(waiting, len(done))}
                yield from (each.result() for each in done)
        except KeyboardInterrupt:
            _stop(pool)
            raise Interrupted("interrupted") from None
        except BrokenProcessPool as error:
            raise TrainingError(
                "a process was killed, perhaps for lack of memory; run the same command again with fewer "
                f"{setting('jobs')}"
            ) from error
        except BaseException:
            _stop(pool)
            raise


class _Listener(QueueListener):
    """Messages of other processes, said by this one as its own."""

    def handle(self, record: logging.LogRecord) -> None:
        logger.handle(record)


@contextmanager
def _heard(context: SpawnContext) -> "Iterator[Queue[logging.LogRecord] | None]":
    """In a notebook, which shows in red what others write to standard error, a queue for what they say; else None."""
    if not cell_lines():
        yield None
        return
    messages: Queue[logging.LogRecord] = context.Queue()
    listener = _Listener(messages)
    listener.start()
    try:
        yield messages
    finally:
        listener.stop()


def _submit(pool: ProcessPoolExecutor, work: Callable[[], Result]) -> "futures.Future[Result]":
    """Hand work to the pool; the process it may start for it has no ear for Ctrl-C until it is at work."""
    if threading.current_thread() is not threading.main_thread():
        return pool.submit(_do, work, current_spelling())
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by what is started
    try:
        return pool.submit(_do, work, current_spelling())
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(pool: ProcessPoolExecutor) -> None:
    """Give every process at work the Ctrl-C that it may not have got."""
    pool.shutdown(wait=False, cancel_futures=True)
    for process in multiprocessing.active_children():
        if process.pid:
            os.kill(process.pid, signal.SIGINT)


def _begin(threads: int, messages: "Queue[logging.LogRecord] | None") -> None:
    """Set up a process: its share of the cores, no bars of its own, where to say what it has to say, and an end when
    the process above it is gone.
    """
    torch.set_num_threads(threads)
    hide_displays()
    if messages:
        logger.handlers = [QueueHandler(messages)]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(work: Callable[[], Result], spelling: Spelling) -> Result:
    """Do a piece of work, which alone a Ctrl-C interrupts; where nobody waits for it any more, that is the end."""
    _at_work.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with spelt(spelling):
            return work()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _at_work.clear()
        if _orphaned.is_set():
            os._exit(Interrupted.exit_code)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
        _orphaned.set()
        if not _at_work.is_set():
            os._exit(Interrupted.exit_code)
        os.kill(os.getpid(), signal.SIGINT)
