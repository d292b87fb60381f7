"""What is said when a review ends; tests/end_to_end/test_review.py has it served as a command."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from anomaly_ae.review.serve import review
from tests.conftest import Trained


def ask(address: str, **body: Any) -> Any:
    """What the server answers, to a message if there is one."""
    content = json.dumps(body).encode() if body else None
    asked = urllib.request.Request(address, content, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(asked, timeout=60))


def looked_through(scored: Path, trained: Trained, look: Callable[[str], object]) -> None:
    """Review a scored folder, and end with Ctrl-C when `look` has used the address."""

    def use(address: str) -> None:
        try:
            look(address)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    def opened(address: str) -> None:
        Thread(target=use, args=[address]).start()

    review(scored, home=trained.home, open_browser=opened)


def test_where_the_marks_are_is_said_where_there_are_any(
    scored: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    def mark(address: str, word: str) -> None:
        ask(f"{address}mark", index=0, mark=word, seen=ask(f"{address}item/0")["state"])

    looked_through(scored, trained, lambda address: ask(f"{address}about"))
    assert capsys.readouterr().err.splitlines()[-1] == "nothing is marked"
    looked_through(scored, trained, lambda address: mark(address, "good"))
    assert capsys.readouterr().err.splitlines()[-1] == f"the marks are in {scored}.marks.jsonl"
    looked_through(scored, trained, lambda address: mark(address, "none"))
    assert capsys.readouterr().err.splitlines()[-1] == "nothing is marked"
