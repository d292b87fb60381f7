"""Setting finished runs side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_ae.errors import ModelError, UsageError
from anomaly_ae.reporting.comparison import (
    compare_runs,
    comparison_page,
    differing_settings,
    draw_runs,
    labels,
    read_scores,
)
from anomaly_ae.reporting.figures.saving import write_figures
from anomaly_ae.reporting.text import listings
from anomaly_ae.reporting.text.phrases import unranked
from anomaly_ae.runs.lifecycle import LOCK_WAIT
from anomaly_ae.runs.record import FINISHED, PIPELINE
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.run_results import ComparedRun, RunComparison
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.printed import to_dict
from anomaly_ae.runtime.progress import stage
from anomaly_ae.storage.atomic import sha256, write_csv, write_text
from anomaly_ae.tracking import calls
from anomaly_ae.tracking.run_logger import RunLogger, mark_dead_runs, sync_pending
from anomaly_ae.workflows.find_model import find_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPARISONS = "comparisons"
MOST_NAMED = 4  # runs in the name of a comparison's folder
HEADINGS = {"roc_curves": "ROC curves", "loss_curves": "Losses by epoch"}


def compare(names: Sequence[str], *, home: RunStore | None = None) -> RunComparison:
    """Set finished runs side by side, all against the first; that of a pipeline file stands for its cells.

    The page, the figures and a table are kept with the first run, in its folder and in MLflow.

    Args:
        names: of the runs: ids or their unique beginnings, `latest`, `models:/name@alias`
        home: where runs are kept; None: ANOMALY_AE_MLRUNS, else MLFLOW_TRACKING_URI, else ./mlruns

    Raises:
        UsageError: there are fewer than two runs
        ModelNotFound: there is no such run
        ModelError: a training is not finished, or none of the runs was evaluated

    Examples:
        >>> import anomaly_ae
        >>> from anomaly_ae import RunConfig
        >>> runs = [
        ...     anomaly_ae.train(RunConfig(normal="0,1,2", scorer=scorer, epochs=1)).run_id
        ...     for scorer in ("aligned-knn", "pca")
        ... ]
        >>> for run in runs:
        ...     evaluation = anomaly_ae.evaluate(run)
        >>> [(row.name, row.p_value) for row in anomaly_ae.compare(runs).runs]
        [('digits 0,1,2 · conv · aligned-knn', None), ('digits 0,1,2 · conv · pca', ...)]
    """
    home = home or RunStore.find()
    mark_dead_runs(home)
    runs = list(dict.fromkeys(run for name in names for run in _find(home, name)))
    if len(runs) < 2:
        all_one = f"all that was named is run {runs[0].record.id}" if runs else "none was named"
        raise UsageError(f"a comparison needs two runs or more, and {all_one}; see: {home.command('runs')}")
    for run in runs:
        run.detector_folder()  # which an unfinished one has not
        if not (evaluation := run.evaluation()):
            logger.warning(f"run {run.record.id} has no figures yet: {run.command('evaluate', run.record.id)}")
        elif evaluation.auroc is None:
            logger.warning(f"run {run.record.id} has no AUROC: {unranked(evaluation.false_positive_rate)}")
    if not any(run.evaluation() for run in runs):
        raise ModelError("none of these runs was evaluated, so there is nothing to compare")
    tested = [read_scores(run) for run in runs]
    rows, settings = compare_runs(runs, tested), differing_settings(runs)
    with stage("drawing the comparison"):
        drawn = draw_runs(runs, tested)
    return RunComparison(rows, settings, str(_keep(home, runs, rows, settings, drawn)))


def _find(home: RunStore, name: str) -> list[RunFolder]:
    run = find_run(home, name)
    if run.record.kind != PIPELINE:
        return [run]
    children = [each for each in reversed(home.runs()) if each.record.parent == run.record.id]
    return [each for each in children if each.record.status == FINISHED]


def _keep(
    home: RunStore,
    runs: Sequence[RunFolder],
    rows: Sequence[ComparedRun],
    settings: dict[str, list[Any]],
    drawn: "dict[str, Figure]",
) -> Path:
    """Write page, figures and table to the first run's folder, and to MLflow; the page's path."""
    first, *others = runs
    ids = [run.record.id[:8] for run in others]
    more = [sha256("".join(ids).encode())[:8]] if len(ids) > MOST_NAMED else []
    folder = Path(COMPARISONS, "-".join(["with", *ids[:MOST_NAMED], *more]))
    page = first.path / folder / "comparison.html"
    tables = {"Figures": listings.side_by_side(labels(runs), rows)}
    tables |= {"Settings that differ": listings.settings_side_by_side(labels(runs), settings)} if settings else {}
    headed = {HEADINGS[name]: figure for name, figure in drawn.items()}
    title = f"{len(runs)} runs, compared with {first.record.name}"
    with first.lock(wait=LOCK_WAIT):
        behind = first.record.unlogged
        first.update(unlogged=first.record.tracked)  # until it is all there, whatever happens before
        write_text(page, comparison_page(title, tables, headed))
        write_csv(page.parent / "runs.csv", list(map(to_dict, rows)))
        write_figures(page.parent, drawn, title)
        run_logger = RunLogger(home, first.record.mlflow_run_id)
        run_logger.tell(calls.log_folder, first, str(folder))
        sync_pending(first, run_logger, behind)
    return page
