"""The list of runs: those of this home, and those that only a tracking server has."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from anomaly_ae.config.run_config import TYPES, RunConfig, check_value
from anomaly_ae.errors import StorageError, UsageError, one_line
from anomaly_ae.runs.query import list_home, select
from anomaly_ae.runs.record import PIPELINE
from anomaly_ae.runs.run_results import Listed, RunListing
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.tracking.calls import KIND, PARENT
from anomaly_ae.tracking.client import mlflow_errors, open_client
from anomaly_ae.tracking.run_logger import mark_dead_runs

HAS_KIND = f"tags.`{KIND}` LIKE '%'"  # MLflow's way of asking for the runs that have such a tag


def list_runs(
    home: RunStore, filters: Sequence[str] = (), sort: str = "started", limit: int | None = None
) -> RunListing:
    """The runs of this home and, where a tracking server is named, those that only it has; the first `limit` of them.

    filters, sort: see `runs.query.select`, and what it raises
    """
    mark_dead_runs(home)
    rows = list_home(home)
    try:
        rows += list_elsewhere(home)
    except StorageError as error:
        logger.warning(one_line(error))
    found = select(rows, filters, sort)
    shown = found[:limit]
    return RunListing(shown, len(found) - len(shown), len(rows), None if home.is_local else home.tracking_uri)


def list_elsewhere(home: RunStore) -> list[Listed]:
    """The runs of a tracking server that have no folder in this home, by what MLflow knows of them.

    Raises `StorageError` when MLflow is away.
    """
    if home.is_local or home.has_no_store():
        return []
    here = {run.record.mlflow_run_id for run in home.runs()}
    with mlflow_errors(home, "no runs"):
        return [_listed(run) for run in _search(open_client(home)) if run.info.run_id not in here]


def as_time(milliseconds: int) -> str:
    """A time of MLflow's as run.json has it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="microseconds")


def _search(client: Any) -> Iterator[Any]:
    """All our runs of all experiments."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(experiments, HAS_KIND)
    yield from found
    while found.token:
        found = client.search_runs(experiments, HAS_KIND, page_token=found.token)
        yield from found


def _listed(run: Any) -> Listed:
    info, metrics, tags = run.info, run.data.metrics, run.data.tags
    return Listed(
        *(info.run_id, info.run_name, info.status, tags[KIND], tags.get(PARENT), as_time(info.start_time)),
        auroc=metrics.get("test/auroc"),
        false_positive_rate=metrics.get("test/false_positive_rate"),
        seconds=metrics.get("train/seconds"),
        settings={} if tags[KIND] == PIPELINE else _settings(run.data.params),
        here=False,
    )


def _settings(params: dict[str, str]) -> dict[str, Any]:
    """The settings of a run by its parameters, which lack those that are the usual ones."""
    try:
        return RunConfig().to_dict() | {key: check_value(key, text) for key, text in params.items() if key in TYPES}
    except UsageError:  # of another version
        return {}
