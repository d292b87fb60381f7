"""What torch keeps for the whole process: how its threads wait, how many there are, and its random numbers."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from anomaly_ae.runtime.machine import usable_cores

if TYPE_CHECKING:
    import torch

BRIEF = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}  # for the OpenMP of GCC and that of LLVM
POLICY = "OMP_WAIT_POLICY"
PIXELS_A_THREAD = 2**15  # of a batch, below which threads wait for each other longer than they save
Result = TypeVar("Result")
_came_late = False


class Run(Protocol):
    """What carries out work, several pieces at a time or one after another, and gives the results in order."""

    def __call__(self, do: Callable[..., Result], /, *parts: Iterable[Any]) -> Iterator[Result]:
        """As `map` does."""


def one_by_one(do: Callable[..., Result], /, *parts: Iterable[Any]) -> Iterator[Result]:
    """The `Run` of a single thread."""
    return map(do, *parts)


def tame_threads() -> None:
    """Let torch's threads spin only briefly while they wait: as fast alone, and not many times slower beside another
    program. What a user has set stays; where torch is loaded already, nothing can be done any more.
    """
    global _came_late
    is_loaded = "torch" in sys.modules
    if not is_loaded and usable_cores() < (os.cpu_count() or 1):  # a container may leave fewer than torch would see
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    if not any(name in os.environ for name in (*BRIEF, POLICY)):
        _came_late = is_loaded
        os.environ.update({} if is_loaded else BRIEF)


def spinning() -> str | None:
    """What is to be done about threads that could not be tamed, in one line."""
    import torch

    if not _came_late or torch.get_num_threads() == 1:
        return None
    return (
        "torch was imported before anomaly_ae, and its threads wait at full speed: beside other programs training "
        "may take many times as long; import anomaly_ae first, or start Python with GOMP_SPINCOUNT=2000"
    )


def seed(number: int, device: "torch.device") -> None:
    """Set the random numbers that are drawn on the CPU and on the device. `torch.manual_seed` asks all kinds of
    devices, in half a millisecond or more, which short epochs notice.
    """
    import torch

    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def threads_for(pixels: int) -> Iterator[None]:
    """Within it, as many of torch's threads as a batch of so many pixels is worth."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(before, 1 + pixels // PIXELS_A_THREAD))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def thread_map(most: int) -> Iterator[Run]:
    """Within it, what carries out up to so many pieces of work at a time, each on its share of torch's threads. In
    threads of their own they begin with torch's usual modes: gradients on, autocast off.
    """
    import torch

    threads = torch.get_num_threads()
    workers = min(most, threads)
    if workers <= 1:
        yield one_by_one
        return
    with ThreadPoolExecutor(workers, "torch", torch.set_num_threads, (threads // workers,)) as pool:
        try:
            yield pool.map
        finally:
            torch.set_num_threads(threads)  # for threads that begin later, too


@contextmanager
def drawn_by(number: int) -> Iterator[None]:
    """What is drawn on the CPU goes by this seed alone, and what is drawn afterwards is as if that had not been."""
    import torch

    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(number)  # `torch.manual_seed` would begin those of a GPU anew, too
        yield


@contextmanager
def left_as_found() -> Iterator[None]:
    """Leaves torch's random numbers as if nothing had been drawn, and its threads as many as they were."""
    import torch

    threads = torch.get_num_threads()
    used = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]  # untyped there
    try:
        with torch.random.fork_rng(used):
            yield
    finally:
        torch.set_num_threads(threads)
