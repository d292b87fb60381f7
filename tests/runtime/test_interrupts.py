"""Ctrl-C in the middle of an import, struck when a module is looked for."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_ae.runtime.interrupts import leaving_at_once

STRIKE = """
import signal, sys

class Strike:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError(name)  # as what imports it only if it is there takes it

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Strike())
from anomaly_ae.__main__ import run
sys.argv[:] = ["anomaly-ae", "train", "--normal", "5", "--epochs", "1", "--no-tracking"]
"""


@pytest.mark.parametrize("module", ["typer", "anomaly_ae.cli.app", "numpy.exceptions", "anomaly_ae.workflows.train"])
def test_a_ctrl_c_while_modules_are_loaded_is_one_line(tmp_path: Path, module: str) -> None:
    program = STRIKE.replace("MODULE", repr(module)) + "run()"
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 130
    assert ended.stderr.removeprefix("loading PyTorch …\n") == "interrupted\n"
    assert ended.stdout == ""
    assert not any(tmp_path.iterdir())


def test_after_it_a_ctrl_c_is_what_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    with leaving_at_once():
        assert signal.getsignal(signal.SIGINT) != before or before != signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) == before


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with leaving_at_once():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
