"""Real kills of a process that watches, while files come in."""

from pathlib import Path

import pytest

from tests.conftest import Trained
from tests.workflows.test_watch import kill_and_check


@pytest.mark.slow  # whole commands, killed
def test_killed_twenty_times_five_thousand_files_have_one_row_each(trained: Trained, tmp_path: Path) -> None:
    kill_and_check(trained, tmp_path, files=5_000, kills=20)
