"""Text from elsewhere, as names of files, made fit for a terminal, Markdown or a spreadsheet; things counted."""

import dataclasses
import html
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's control, format and surrogate characters, line separators
MARKUP = re.compile(r"[\\`*|~\[\]]|(?<!\w)_|_(?!\w)")  # what Markdown takes for more than a letter
FORMULA = tuple("=+-@\t\r'")  # by what a spreadsheet knows a formula, and by what it knows text
PLURAL = re.compile(r"\b(picture|mask|file|folder|link|thumbnail|remark)s\b")  # what is left out, if there are many
JOINERS = "\u200c\u200d"  # of the formats the two that words and emoji are written with


def printable(text: str) -> str:
    r"""Text in which nothing steers a terminal: control characters, line breaks and marks that turn the direction of
    writing become \x1b, \n, \u202e; bytes of a file's name that are no UTF-8 become \xNN.
    """
    return text if text.isprintable() else "".join(map(_printable, text))


def shown(path: bytes) -> str:
    r"""A path as text, bytes that are no UTF-8 as \xNN."""
    return path.decode("utf-8", "backslashreplace")


def short_name(name: str) -> str:
    """A data set's name for headings: of a folder or an address the last part, bytes that are no UTF-8 as \\xNN."""
    return printable(name.rstrip("/").rpartition("/")[2] or name)


def printable_lines(text: str) -> str:
    """The same, line by line."""
    return "\n".join(map(printable, text.split("\n")))


def printable_values(value: Any) -> Any:
    """The same of every text in dataclasses and plain JSON values, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return type(value)((printable_values(key), printable_values(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value)(map(printable_values, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: printable_values(getattr(value, name)) for name in names})
    return value


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in a cell of a table: without HTML, emphasis, code or links."""
    return MARKUP.sub(r"\\\g<0>", html.escape(printable(text), quote=False))


def markdown_code(text: str) -> str:
    """Text that Markdown shows as code, whatever backticks are in it."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    room = " " if "`" in text else ""
    return f"{fence}{room}{text}{room}{fence}"


def _printable(letter: str) -> str:
    if unicodedata.category(letter) not in UNSAFE or letter in JOINERS:
        return letter
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape" if not "\ud800" <= letter <= "\udfff" else "raw_unicode_escape").decode()


def times(shape: Iterable[int]) -> str:
    """A shape as people write it: `1×28×28`."""
    return "×".join(map(str, shape))


def counted(count: int, noun: str, plural: str = "") -> str:
    """How many of what: `1 image`, `2,000 images`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def counted_as(count: int, plural: str) -> str:
    """The same of a phrase that begins with its noun, adjectives aside: `1 hidden picture` of `hidden pictures`."""
    phrase = PLURAL.sub(r"\1", plural, count=1) if count == 1 else plural
    return f"{count:,} {phrase}"


def csv_text(text: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula: what begins as one, or with ', gets a ' before
    it, and without that is as it was.
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def plain_csv_text(text: str) -> str:
    """The text that `csv_text` made a cell of."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text
