"""The runs as a list, to filter and sort."""

from collections.abc import Iterable, Sequence

from anomaly_ae.config.run_config import TYPES, check_value
from anomaly_ae.errors import ModelError, UnknownName, one_line
from anomaly_ae.escaping import short_name
from anomaly_ae.runs.run_results import KeptEvaluation, Listed
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import warn_once

BEST_FIRST = {"auroc": True, "false_positive_rate": False, "seconds": False}  # whether the largest comes first
LISTED_COLUMNS = ("run_id", "name", "status", "kind", "parent", "started")
SORTS = ("started", "name", "status", *BEST_FIRST)


def list_home(home: RunStore) -> list[Listed]:
    """The runs that have a folder in this home; one whose files are damaged is left out, which is said."""
    rows = []
    for run in home.runs():
        try:
            record, result, evaluation = run.record, run.result(), run.evaluation() or KeptEvaluation()
            row = Listed(
                *(record.id, record.name, record.status, record.kind, record.parent, record.started),
                auroc=evaluation.auroc,
                false_positive_rate=evaluation.false_positive_rate,
                seconds=result.train_seconds,
                settings=run.config.to_dict() if (run.path / "config.json").exists() else {},
                unlogged=record.unlogged,
            )
            rows.append(row)
        except ModelError as error:
            warn_once(f"{one_line(error)}, so this run is left out")
    return rows


def select(rows: Iterable[Listed], filters: Sequence[str] = (), sort: str = "started") -> list[Listed]:
    """Those that fit all filters, in order.

    filters: each `key=value`, of a column or the settings, or else a part of the name or the beginning of the id; a
             data set by its whole or its short name
    sort:    `started` and the figures with the newest and best first, `name` and `status` by the alphabet
    Raises `UnknownName` when there is no such key, `UsageError` when a setting cannot have that value.
    """
    if sort not in SORTS:
        raise UnknownName("order", sort, SORTS)
    newest_first = sorted(rows, key=lambda row: (row.started, row.run_id), reverse=True)
    for text in filters:
        newest_first = [row for row in newest_first if _fits(row, text)]
    if sort == "started":
        return newest_first
    if sort not in BEST_FIRST:
        return sorted(newest_first, key=lambda row: str(getattr(row, sort)))
    measured = [row for row in newest_first if getattr(row, sort) is not None]
    measured.sort(key=lambda row: float(getattr(row, sort)), reverse=BEST_FIRST[sort])
    return measured + [row for row in newest_first if getattr(row, sort) is None]


def _fits(row: Listed, text: str) -> bool:
    key, equals, value = text.partition("=")
    if not equals:
        return text in row.name or row.run_id.startswith(text)
    if key == "dataset" and row.settings and short_name(row.settings[key]) == value:
        return True  # as the names of the runs have it
    if key in TYPES:
        return bool(row.settings) and row.settings[key] == check_value(key, value)
    if key not in LISTED_COLUMNS:
        raise UnknownName("column", key, [*LISTED_COLUMNS, *TYPES])
    return str(getattr(row, key)) == value
