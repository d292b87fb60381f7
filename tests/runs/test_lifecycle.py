"""How a run begins and ends, struck by a Ctrl-C at every line of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from anomaly_ae.errors import Interrupted
from anomaly_ae.runs import lifecycle, store
from anomaly_ae.runs.lifecycle import start_run
from anomaly_ae.runs.record import KILLED, RUNNING, RunRecord
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore

OURS = {lifecycle.__file__, store.__file__}


class Server:
    """Who hears of a run, and gives it a name of its own."""

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.status: str | None = None

    def begin(self, experiment: str, record: RunRecord) -> None:
        self.run_id, self.status = f"s-{record.id}", RUNNING

    def set_status(self, status: str) -> None:
        self.status = status

    def lacks_something(self) -> bool:
        return False

    def finish(self, run: RunFolder, status: str, behind: bool) -> None:
        self.status = status


@contextmanager
def struck_at(line: int) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt before that one of the lines of `OURS` that are passed; where they are, as passed."""
    passed: list[int] = []

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line":
            passed.append(frame.f_lineno)
            if len(passed) == line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield passed
    finally:
        sys.settrace(before)


def begin_struck(home: RunStore, server: Server, line: int) -> int:
    """Begin a run that is struck at that line, or by its end; how many were passed."""
    with (
        suppress(KeyboardInterrupt, Interrupted),
        struck_at(line) as passed,
        start_run(home, "e", RunRecord.new("a run", True), {"config.json": {}}, server),
    ):
        sys.settrace(None)
        raise KeyboardInterrupt
    return len(passed)


def test_a_run_interrupted_anywhere_as_it_begins_is_marked_or_leaves_nothing(tmp_path: Path) -> None:
    found: list[str | None] = []
    passed = 0
    while passed >= len(found):  # until all lines have had their turn
        home, server = RunStore.find(str(tmp_path / str(len(found)))), Server()
        passed = begin_struck(home, server, len(found) + 1)
        statuses = [run.record.status for run in home.runs()]
        assert statuses == ([KILLED] if statuses else []), passed
        assert server.status in (None, *statuses), passed
        assert not list((home.root / "runs").glob(".*")), passed
        found.append(statuses[0] if statuses else None)
    assert {None, KILLED} == set(found)
    assert found.index(KILLED) == found.count(None)  # once it was seen it is marked
