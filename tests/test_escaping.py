import html
import io
import re
import sys

import pytest
from markdown_it import MarkdownIt

from anomaly_ae.cli.app import show_values
from anomaly_ae.errors import DataError, UnknownName
from anomaly_ae.escaping import counted, markdown, markdown_code, printable, printable_lines
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import Plain
from anomaly_ae.runtime.tables import markdown_table

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
    logger.info(f"first {odd}\nsecond")
    Plain().line(f"epoch of {odd}", last=True)
    show_values({"name": f"class {odd}\nline"}, as_json=False, render=lambda result: f"{result['name']}\n")
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
        logger.info("still at work")


MARKED = [
    "<b>bold</b>",
    "a|b",
    "`code`",
    "``",
    "*x*",
    "_x_ a_b",
    "[a](http://b)",
    "![a](b)",
    "~~a~~",
    "&lt;",
    "a\\",
    "$x$",
]
HTML = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>"]


@pytest.mark.parametrize("name", MARKED + HTML)
def test_markdown_shows_names_as_they_are(name: str) -> None:
    """By another's renderer, which lets HTML through."""
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render
    shown = html.escape(name, quote=False)
    assert rendered(f"of **{markdown(name)}** images") == f"<p>of <strong>{shown}</strong> images</p>\n"
    assert rendered(f"of {markdown_code(name)}") == f"<p>of <code>{shown}</code></p>\n"
    cells = re.findall("<td.*?>(.*?)</td>", rendered(markdown_table([{"name": name, "number": 1}])))
    assert cells == [shown, "1"]


def test_one_is_singular() -> None:
    assert [counted(n, "image") for n in (0, 1, 2, 12_345)] == ["0 images", "1 image", "2 images", "12,345 images"]
    assert counted(2, "class", "classes") == "2 classes"
