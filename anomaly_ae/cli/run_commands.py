"""`run`, `runs` and `ui`: what was trained, side by side."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly_ae.cli.app import (
    DataDir,
    Json,
    Mlruns,
    NoFigures,
    NoTracking,
    app,
    as_flag_of_run,
    loading,
    option,
    parse_setting,
    run_store,
    show,
    show_values,
    switch,
)
from anomaly_ae.escaping import printable_values
from anomaly_ae.reporting.text import listings
from anomaly_ae.runtime.spelling import spelt

if TYPE_CHECKING:
    from anomaly_ae.runs.store import RunStore


@app.command()
def run(
    pipeline: Annotated[Path, typer.Argument(metavar="PIPELINE.yaml", help="For example one of pipelines/.")],
    settings: Annotated[
        list[str] | None, option("KEY=VALUE", "Over the file, e.g. training.epochs=1.", flag="--set")
    ] = None,
    data_dir: DataDir = None,
    jobs: Annotated[int, option("N", "Cells to work on at the same time.", min=1)] = 1,
    no_figures: NoFigures = False,
    again: Annotated[bool, switch("--again", "Train all cells anew, though they are finished.")] = False,
    no_tracking: NoTracking = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate every cell of a pipeline file and compare them; interrupted, it goes on where it was."""
    from anomaly_ae.tracking import run_logger

    home = run_store(mlruns)
    if not no_tracking:
        run_logger.start(home)
    with loading():
        from anomaly_ae.workflows.pipeline import run_pipeline
    if not no_figures and jobs == 1:
        from anomaly_ae.reporting.figures import painter

        painter.start("sklearn.manifold")
    overrides = [parse_setting(text) for text in settings or []]
    overrides += [("data_dir", data_dir)] if data_dir else []
    with spelt(as_flag_of_run):
        result = run_pipeline(
            pipeline, overrides, home=home, tracking=not no_tracking, jobs=jobs, again=again, figures=not no_figures
        )
    show(result, as_json)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def runs(
    filters: Annotated[
        list[str] | None, option("TEXT", "Part of a name, or e.g. scorer=mse; may be repeated.", flag="--filter")
    ] = None,
    sort: Annotated[str, option("KEY", "started, name, status, auroc, false_positive_rate or seconds.")] = "started",
    limit: Annotated[int | None, option("N", "List the first N of them [all].", min=1)] = None,
    delete: Annotated[
        str | None, option("RUN", "Delete a run with its cells and calibrations, here and in MLflow.")
    ] = None,
    sync: Annotated[bool, switch("--sync", "Log to MLflow what could not be logged before.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """List the runs, the newest first."""
    from anomaly_ae.tracking import remote_runs, run_logger

    home = run_store(mlruns)
    if delete is not None:
        show_values({"deleted": _delete(home, delete)}, as_json, listings.deleted)
        return
    if sync:
        run_logger.sync(home)
    show(remote_runs.list_runs(home, filters or (), sort, limit), as_json)


def _delete(home: "RunStore", name: str) -> list[str]:
    """Delete a run and what is below it, when whoever sees their list agrees; their ids."""
    from anomaly_ae.runtime.messages import logger
    from anomaly_ae.workflows.delete import delete, find_deletable

    deletable = find_deletable(home, name)
    logger.info(listings.deletable([printable_values(run.record) for run in deletable]))
    print(f"delete {len(deletable):,} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if (sys.stdin.readline() if sys.stdin else "").strip().lower() not in ("y", "yes"):
        logger.info("nothing was deleted")
        raise typer.Exit(1)
    delete(home, deletable)
    return [run.path.name for run in deletable]


@app.command()
def figures(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="latest, or a run id.")] = "latest",
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Draw the figures of a run again, from what it keeps and its data."""
    from anomaly_ae.reporting.figures import painter

    painter.start("sklearn.manifold")
    with loading():
        from anomaly_ae.workflows import draw
    paths = draw.draw_again(run, home=run_store(mlruns))
    show_values({"figures": paths}, as_json, lambda values: "\n".join(values["figures"]))


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN ...", help="Run ids, latest or models:/NAME@ALIAS; the first is compared with."
        ),
    ],
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Set runs side by side: figures, DeLong's test, ROC and loss curves, on a page and in the first run."""
    with loading():
        from anomaly_ae.workflows import compare
    show(compare.compare(runs, home=run_store(mlruns)), as_json)


@app.command()
def promote(
    model: Annotated[str, typer.Argument(metavar="[RUN]", help="latest, or a run id.")] = "latest",
    alias: Annotated[str, option("ALIAS", "What it is from now on.", flag="--as")] = "champion",
    name: Annotated[str | None, option("NAME", "Of the registered model [the data set's name].")] = None,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Register a run's detector with MLflow under an alias, for --model models:/NAME@champion."""
    with loading():
        from anomaly_ae.workflows import promote
    show(promote.promote(model, alias, name=name, home=run_store(mlruns)), as_json)


@app.command()
def ui(
    port: Annotated[int, option("N", "Port on this machine.", min=1, max=65535)] = 5000, mlruns: Mlruns = None
) -> None:
    """Browse all runs in MLflow, until Ctrl-C."""
    from anomaly_ae.tracking.server import browse

    browse(run_store(mlruns), port)
