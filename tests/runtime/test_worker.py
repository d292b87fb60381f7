import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.worker import Worker


@dataclass(frozen=True)
class Divide:
    """An order of these tests: what comes of it, and in which process."""

    number: int
    by: int
    killed: bool = False

    def carry_out(self) -> tuple[float, int]:
        if self.killed and os.getppid() == self.number:  # in the worker alone
            os.kill(os.getpid(), signal.SIGKILL)
        if self.by < 0:
            raise UsageError("it is negative")
        return self.number / self.by, os.getpid()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the order is defined
    return Worker()


def test_orders_are_carried_out_there_one_after_another(worker: Worker) -> None:
    answers = [worker.submit(worker.ask, Divide(number, 2)).result() for number in range(3)]
    assert [answer for answer, _ in answers] == [0, 0.5, 1]
    assert {where for _, where in answers} == {worker.process.pid}


def test_an_error_there_is_raised_here_and_the_worker_goes_on(worker: Worker) -> None:
    with pytest.raises(UsageError, match="it is negative"):
        worker.ask(Divide(1, -1))
    with pytest.raises(RuntimeError, match=r"in carry_out(.|\n)*ZeroDivisionError"):
        worker.ask(Divide(1, 0))
    assert worker.ask(Divide(1, 1)) == (1, worker.process.pid)


def test_where_it_is_killed_orders_are_carried_out_here(worker: Worker) -> None:
    me = os.getpid()
    assert worker.ask(Divide(me, 1, killed=True)) == (me, me)
    assert worker.process.wait() == -signal.SIGKILL
    assert worker.ask(Divide(6, 3)) == (2, me)


def test_ctrl_c_and_an_end_sent_to_all_are_for_the_one_that_orders(worker: Worker) -> None:
    worker.ask(Divide(1, 1))
    worker.process.send_signal(signal.SIGINT)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ask(Divide(1, 1)) == (1, worker.process.pid)


def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os\nfrom anomaly_ae.runtime.worker import Worker\nprint(Worker().process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False, timeout=100)
    pid, ends = int(run.stdout), time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("it goes on")
