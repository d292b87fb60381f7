import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from anomaly_ae.runtime.messages import StderrHandler, logger, report_skipped, shown_by


class Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append((record.levelname, record.getMessage()))


@contextmanager
def handled(by: logging.Logger) -> Iterator[Collecting]:
    handler = Collecting()
    by.addHandler(handler)
    try:
        yield handler
    finally:
        by.removeHandler(handler)


def test_who_has_not_configured_logging_reads_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logger.info("100 % of %s")
    logger.warning("odd")
    assert capsys.readouterr().err == "100 % of %s\nwarning: odd\n"


@pytest.mark.parametrize("name", ["", "anomaly_ae"])
def test_whoever_has_a_handler_of_their_own_gets_the_messages_alone(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with handled(logging.getLogger(name)) as theirs:
        logger.info("first")
        logger.warning("second")
    assert theirs.texts == [("INFO", "first"), ("WARNING", "second")]
    assert capsys.readouterr().err == ""


def test_messages_are_silenced_as_those_of_any_logger(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "disabled", True)
    logger.warning("first")
    monkeypatch.undo()
    logger.warning("second")
    assert capsys.readouterr().err == "warning: second\n"


def test_a_front_end_shows_them_by_its_own_handler_whatever_else_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with handled(logging.getLogger()) as others, shown_by(StderrHandler()):
        logger.info("once")
    assert not others.texts
    assert capsys.readouterr().err == "once\n"


def test_there_may_be_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    logger.info("nobody reads this")


def test_a_few_of_the_files_that_were_left_out_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    report_skipped([f"{i}.png: damaged" for i in range(7)])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6
    assert (said[0], said[-1]) == ("left out: 0.png: damaged", "left out: 2 more files that cannot be read")
