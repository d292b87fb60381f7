"""What a notebook shows of messages and progress, in a real kernel."""

from pathlib import Path

import pytest

from anomaly_ae.runtime.notebook import cell_lines
from tests.notebooks import run_cells

SETUP = """
import logging, time
from anomaly_ae.runtime import progress
from anomaly_ae.runtime.messages import logger
progress.CELL_EVERY = progress.SILENCE = 0.0
"""
MESSAGES = """
logger.info("first")
print("of the reader's own")
logger.info("second\\x1b[2J")
logger.warning("odd")
"""
WORK = """
for name in ("one", "two"):
    with progress.display(300) as shown:
        for done in range(100):
            shown.advance(3, f"{name}: {done}")
            shown.line("now and then")
        shown.line(f"{name} is done", last=True)
"""
UNFINISHED = """
with progress.display(10) as shown:
    shown.advance(3, "three")
    logger.info("said meanwhile")
"""
STAGES = """
logger.info("before")
with progress.stage("waiting"):
    time.sleep(0.1)
    with progress.display(1) as shown:
        shown.line("worked", last=True)
with progress.stage("waiting again"):
    time.sleep(0.1)
"""
PROCESSES = """
from functools import partial
from anomaly_ae.workflows.parallel import run_parallel
done = list(run_parallel([partial(logger.info, f"said by process {i}") for i in (1, 2)], 2))
"""
CONFIGURED = """
logging.basicConfig(format="theirs: %(message)s", force=True)
logger.info("first")
"""


@pytest.mark.slow  # a kernel, and processes below it
def test_a_cell_has_a_few_lines_that_change_in_place_and_only_warnings_are_red(tmp_path: Path) -> None:
    _, messages, work, unfinished, stages, processes, configured = (
        [
            (output.get("name", output.output_type), output.get("text") or output.data["text/plain"])
            for output in shown
        ]
        for shown in run_cells(tmp_path, SETUP, MESSAGES, WORK, UNFINISHED, STAGES, PROCESSES, CONFIGURED)
    )
    assert messages == [
        ("display_data", "first\nsecond\\x1b[2J"),
        ("stdout", "of the reader's own\n"),
        ("stderr", "warning: odd\n"),
    ]
    assert work == [("display_data", "two is done")]
    assert unfinished == [("display_data", "said meanwhile")]
    assert stages == [("display_data", "before\nworked")]
    ((kind, said),) = processes
    assert (kind, sorted(said.split("\n"))) == ("display_data", ["said by process 1", "said by process 2"])
    assert configured == [("stderr", "theirs: first\n")]


STATE = """
from anomaly_ae.runtime.notebook import cell_lines
states = []
cell_lines().show_state = states.append
with progress.display(400, done=100) as shown:
    shown.pace.started -= 10
    shown.advance(100, "epoch 1")
print(states[0])
"""


def test_the_last_line_says_the_pace_and_what_is_left(tmp_path: Path) -> None:
    (output,) = run_cells(tmp_path, SETUP, STATE)[-1]
    assert output.text == "epoch 1 · 10 images/s · 0:00:20 left\n"


def test_elsewhere_there_are_no_cells() -> None:
    assert cell_lines() is None
