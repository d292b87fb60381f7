"""The runs as a list, to filter and sort."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from anomaly_ae.config import TYPES, check_value
from anomaly_ae.errors import ModelError, UnknownName, one_line
from anomaly_ae.progress import say
from anomaly_ae.runs import Home, RunFolder

BEST_FIRST = {"auroc": True, "false_positive_rate": False, "seconds": False}  # whether the largest comes first
COLUMNS = ("id", "name", "status", "kind", "parent", "started")
SORTS = ("started", "name", "status", *BEST_FIRST)


def list_runs(home: Home, filters: Sequence[str] = (), sort: str = "started") -> list[dict[str, Any]]:
    """A row for each run: its record, settings and headline figures, as far as they are there.

    filters: each `key=value`, of a row or its settings, or else a part of the name or the beginning of the id
    sort:    `started` and the figures with the newest and best first, `name` and `status` by the alphabet
    Raises `UnknownName` when there is no such key, `UsageError` when a setting cannot have that value.
    """
    if sort not in SORTS:
        raise UnknownName("order", sort, SORTS)
    rows = [row for run in home.runs() if (row := _row(run))]
    for text in filters:
        rows = [row for row in rows if _fits(row, text)]
    if sort == "started":
        return rows
    if sort not in BEST_FIRST:
        return sorted(rows, key=lambda row: str(row[sort]))
    known = [row for row in rows if row[sort] is not None]
    known.sort(key=lambda row: float(row[sort]), reverse=BEST_FIRST[sort])
    return known + [row for row in rows if row[sort] is None]


def _row(run: RunFolder) -> dict[str, Any] | None:
    """None for a run whose files are damaged, which is said."""
    try:
        result, evaluation = run.read("result.json"), run.read("evaluation/metrics.json")
        config = run.config.to_dict() if (run.path / "config.json").exists() else {}
        return dataclasses.asdict(run.record) | {
            "auroc": evaluation.get("auroc"),
            "false_positive_rate": evaluation.get("false_positive_rate"),
            "seconds": result.get("train_seconds"),
            "settings": config,
        }
    except ModelError as error:
        say(f"warning: {one_line(error)}")
        return None


def _fits(row: Mapping[str, Any], text: str) -> bool:
    key, equals, value = text.partition("=")
    if not equals:
        return text in row["name"] or row["id"].startswith(text)
    if key in TYPES:
        return bool(row["settings"]) and row["settings"][key] == check_value(key, value)
    if key not in COLUMNS:
        raise UnknownName("column", key, [*COLUMNS, *TYPES])
    return str(row[key]) == value
