"""Several pieces of work at the same time, in processes of their own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from typing import TypeVar

import torch

from anomaly_ae.errors import Interrupted
from anomaly_ae.progress import silence

Result = TypeVar("Result")
_at_work, _orphaned = threading.Event(), threading.Event()


def run_together(works: Sequence[Callable[[], Result]], jobs: int) -> Iterator[Result]:
    """The results of pieces of work, as they come, `jobs` of them at a time, which share the processor's cores.

    Ends them all when one raises, or on Ctrl-C. Raises `Interrupted`, and whatever they raise.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(threads,)) as pool:
        futures = [pool.submit(_do, work) for work in works]
        try:
            yield from (future.result() for future in as_completed(futures))
        except KeyboardInterrupt:
            _stop(pool, futures)
            raise Interrupted("interrupted") from None
        except BaseException:
            _stop(pool, futures)
            raise


def _stop(pool: ProcessPoolExecutor, futures: "Sequence[Future[Result]]") -> None:
    """Give every process at work the Ctrl-C that it may not have got, and start nothing new."""
    pool.shutdown(wait=False, cancel_futures=True)
    working = any(future.running() for future in futures)
    for process in multiprocessing.active_children() if working else []:
        if process.pid:
            os.kill(process.pid, signal.SIGINT)


def _begin(threads: int) -> None:
    """Set up a process: its share of the cores, no bars of its own, and an end when the process above it is gone."""
    torch.set_num_threads(threads)
    silence()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # while it has nothing to do
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(work: Callable[[], Result]) -> Result:
    """Do a piece of work, which alone a Ctrl-C interrupts; where nobody waits for it any more, that is the end."""
    _at_work.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
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
