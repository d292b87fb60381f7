import io
import sys

import pytest

from anomaly_ae.cli.app import show
from anomaly_ae.errors import DataError, UnknownName
from anomaly_ae.escaping import printable, printable_lines
from anomaly_ae.progress import Plain, say

STEERING = ["\x1b[31m", "\x1b]0;title\x07", "\r", "\x9b2J", "\u202e", "\u2066", "\u2028", "\x00", "\x7f", "\u200f"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("two\nlines\t", r"two\nlines\t"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("no utf-8 \udcff", r"no utf-8 \xff"),
        ("\ud800", r"\ud800"),
        ("schön 10.00\u202fAM 日本\u3000語 👨‍👩‍👧 ❤️", "schön 10.00\u202fAM 日本\u3000語 👨‍👩‍👧 ❤️"),
    ],
)
def test_what_steers_a_terminal_is_shown_and_letters_stay(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("odd", STEERING)
def test_no_way_to_the_terminal_lets_it_through(odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"first {odd}\nsecond")
    Plain().line(f"epoch of {odd}", last=True)
    show({"name": f"class {odd}\nline"}, as_json=False, render=lambda result: f"{result['name']}\n")
    captured = capsys.readouterr()
    said = captured.out + captured.err + str(DataError(f"class {odd}")) + str(UnknownName("class", odd, [odd]))
    assert odd not in said
    assert (captured.err.count("\n"), captured.out.count("\n")) == (3, 2)
    assert printable_lines(f"a\n{odd}").startswith("a\n")


def test_an_error_is_one_line_whatever_is_called_how() -> None:
    assert str(DataError("class 'a\nb' is empty")) == r"class 'a\nb' is empty"


def test_messages_that_nobody_reads_do_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    for stream in (Gone(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        say("still at work")
