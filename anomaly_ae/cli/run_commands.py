"""`run`, `runs` and `ui`: what was trained, side by side."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly_ae.cli.app import DataDir, Json, Mlruns, NoFigures, app, loading, show, show_values
from anomaly_ae.cli.flags import parse_setting
from anomaly_ae.escaping import printable_values
from anomaly_ae.reporting import text

if TYPE_CHECKING:
    from anomaly_ae.runs.store import RunStore


@app.command()
def run(
    pipeline: Annotated[Path, typer.Argument(metavar="PIPELINE.yaml", help="For example one of pipelines/.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Over the file, e.g. training.epochs=1."),
    ] = None,
    data_dir: DataDir = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Cells to work on at the same time.")] = 1,
    no_figures: NoFigures = False,
    again: Annotated[bool, typer.Option("--again", help="Train all cells anew, though they are finished.")] = False,
    no_tracking: Annotated[bool, typer.Option("--no-tracking", help="Leave MLflow out of it.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate every cell of a pipeline file and compare them; interrupted, it goes on where it was."""
    from anomaly_ae.runs.store import RunStore
    from anomaly_ae.tracking import run_logger

    if not no_tracking:
        run_logger.start()
    with loading():
        from anomaly_ae.workflows.pipeline import run_pipeline
    if not no_figures and jobs == 1:
        from anomaly_ae.reporting.figures import painter

        painter.start("sklearn.manifold")
    overrides = [parse_setting(text) for text in settings or []]
    overrides += [("data_dir", data_dir)] if data_dir else []
    home = RunStore.find(mlruns)
    result = run_pipeline(
        pipeline,
        overrides,
        home=home,
        tracking=not no_tracking,
        jobs=jobs,
        again=again,
        figures=not no_figures,
    )
    show(result, as_json)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def runs(
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="TEXT", help="Part of a name, or e.g. scorer=mse; may be repeated."),
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="KEY", help="started, name, status, auroc, false_positive_rate or seconds.")
    ] = "started",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="List the first N of them [all].")] = None,
    delete: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Delete a run with its cells and calibrations, here and in MLflow."),
    ] = None,
    sync: Annotated[bool, typer.Option("--sync", help="Log to MLflow what could not be logged before.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """List the runs, the newest first."""
    from anomaly_ae.runs.store import RunStore
    from anomaly_ae.tracking import remote_runs, run_logger

    home = RunStore.find(mlruns)
    if delete is not None:
        show_values({"deleted": _delete(home, delete)}, as_json, text.deleted)
        return
    if sync:
        run_logger.sync(home)
    show(remote_runs.list_runs(home, filters or (), sort, limit), as_json)


def _delete(home: "RunStore", name: str) -> list[str]:
    """Delete a run and what is below it, when whoever sees their list agrees; their ids."""
    from anomaly_ae.runtime.messages import logger
    from anomaly_ae.workflows.delete import delete, find_deletable

    found = find_deletable(home, name)
    logger.info(text.deletable([printable_values(run.record) for run in found]))
    print(f"delete {len(found):,} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if (sys.stdin.readline() if sys.stdin else "").strip().lower() not in ("y", "yes"):
        logger.info("nothing was deleted")
        raise typer.Exit(1)
    delete(home, found)
    return [run.path.name for run in found]


@app.command()
def figures(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="latest, or a run id.")] = "latest",
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Draw the figures of a run again, from what it keeps and its data."""
    from anomaly_ae.reporting.figures import painter
    from anomaly_ae.runs.store import RunStore

    painter.start("sklearn.manifold")
    with loading():
        from anomaly_ae.workflows import draw
    paths = draw.draw_again(run, home=RunStore.find(mlruns))
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
    from anomaly_ae.runs.store import RunStore

    with loading():
        from anomaly_ae.workflows import compare
    show(compare.compare(runs, home=RunStore.find(mlruns)), as_json)


@app.command()
def promote(
    model: Annotated[str, typer.Argument(metavar="[RUN]", help="latest, or a run id.")] = "latest",
    alias: Annotated[str, typer.Option("--as", metavar="ALIAS", help="What it is from now on.")] = "champion",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the registered model [the data set's name].")
    ] = None,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Register a run's detector with MLflow under an alias, for --model models:/NAME@champion."""
    from anomaly_ae.runs.store import RunStore

    with loading():
        from anomaly_ae.workflows import promote
    show(promote.promote(model, alias, name=name, home=RunStore.find(mlruns)), as_json)


@app.command()
def ui(
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port on this machine.")] = 5000,
    mlruns: Mlruns = None,
) -> None:
    """Browse all runs in MLflow, until Ctrl-C."""
    from anomaly_ae.runs.store import RunStore
    from anomaly_ae.tracking.server import browse

    browse(RunStore.find(mlruns), port)
