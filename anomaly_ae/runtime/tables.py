"""Rows as tables, for a terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from anomaly_ae.escaping import markdown

Row = Mapping[str, Any]
NOTHING = "–"


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows of text in columns as wide as they need to be, those in `right` set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def plain_table(rows: Sequence[Row]) -> list[str]:
    """Rows with the same keys as lines of text, numbers to the right."""
    if not rows:
        return []
    return columns([_head(rows), *map(_cells, rows)], right=_numbers(rows))


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows with the same keys as a Markdown table."""
    if not rows:
        return ""
    numbers = _numbers(rows)
    rule = ["---:" if i in numbers else "---" for i in range(len(rows[0]))]
    lines = [_head(rows), rule, *(map(markdown, _cells(row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(rows: Sequence[Row]) -> list[str]:
    return [key.replace("_", " ") for key in rows[0]]


def _numbers(rows: Sequence[Row]) -> list[int]:
    """The columns that hold no text."""
    return [i for i, key in enumerate(rows[0]) if not any(isinstance(row[key], str) for row in rows)]


def _cells(row: Row) -> list[str]:
    return [_cell(key, value) for key, value in row.items()]


def _cell(key: str, value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f"{value:,.1f}" if key == "seconds" else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
