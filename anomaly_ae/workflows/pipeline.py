"""Running a pipeline file: one run for the file, and below it one for each cell."""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from anomaly_ae.datasets.builtin import DATASETS, load_dataset
from anomaly_ae.datasets.catalogue import normal_classes, open_data
from anomaly_ae.detector.experiment import check_names, fill_defaults
from anomaly_ae.errors import (
    AnomalyAEError,
    DataError,
    Interrupted,
    ModelError,
    RunBusy,
    UsageError,
    errors_at,
    one_line,
)
from anomaly_ae.escaping import counted
from anomaly_ae.reporting.cells import Done, cell_table, comparison, draw_comparison, published_table
from anomaly_ae.reporting.class_means import class_table
from anomaly_ae.reporting.figures.saving import write_figures
from anomaly_ae.reporting.scorer_ranking import draw_scorers, measured, scorer_table
from anomaly_ae.runs.lifecycle import finish_run, run_status, start_run
from anomaly_ae.runs.location import place_settings
from anomaly_ae.runs.pipeline_file import Cell, DataPlace, PipelineFile, read_pipeline_file
from anomaly_ae.runs.pipeline_results import PipelineResult
from anomaly_ae.runs.record import FAILED, FINISHED, PIPELINE, RUNNING, RunRecord
from anomaly_ae.runs.run_folder import FIGURES, RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger, warn_once
from anomaly_ae.runtime.spelling import command, setting
from anomaly_ae.runtime.tables import markdown_table
from anomaly_ae.storage.atomic import write_csv, write_json, write_text
from anomaly_ae.tracking import calls
from anomaly_ae.tracking.descriptions import TABLES
from anomaly_ae.tracking.run_logger import RunLogger, mark_dead_runs
from anomaly_ae.workflows.evaluate import evaluate
from anomaly_ae.workflows.parallel import run_parallel
from anomaly_ae.workflows.train import CellPosition, resume, train

MOST_DRAWING = 10  # times as long as drawing all cells took they are worked on before they are drawn again


def run_pipeline(
    path: Path,
    overrides: Sequence[tuple[str, str]] = (),
    *,
    home: RunStore | None = None,
    tracking: bool = True,
    jobs: int = 1,
    again: bool = False,
    figures: bool = True,
) -> PipelineResult:
    """Train and evaluate every cell of a pipeline file, and set them side by side.

    A run of the same file with the same settings that was interrupted goes on with the cells that are missing; one
    that is finished is not done again, and its result is returned. A cell that fails does not stop the others.

    Args:
        path: the pipeline file
        overrides: settings over those of the file, as (key, value)
        home: where runs are kept; None: ANOMALY_AE_MLRUNS, else MLFLOW_TRACKING_URI, else ./mlruns
        tracking: whether the runs are logged to MLflow
        jobs: processes that work on cells at the same time, each with its share of the processor's cores
        again: whether what is finished is done again
        figures: whether any are drawn

    Raises:
        DataError: none of its data sets is to be had; nothing is kept then
        UsageError: the file asks for what cannot be, said before anything is trained
        RunBusy: another process is working on it
        Interrupted: on Ctrl-C; the same call goes on then

    Examples:
        >>> from pathlib import Path
        >>> import anomaly_ae
        >>> file = Path("scorers.yaml")
        >>> written = file.write_text("normal: 0,1,2\\nepochs: 1\\nmatrix: {scorer: [mse, pca]}")
        >>> result = anomaly_ae.run_pipeline(file)
        >>> [(cell.scorer, cell.status) for cell in result.cells]
        [('mse', 'FINISHED'), ('pca', 'FINISHED')]
    """
    home = home or RunStore.find()
    mark_dead_runs(home)
    plan = dataclasses.replace(read_pipeline_file(path, overrides), figures=figures)
    for cell in plan.cells:
        with errors_at(f"{path}, cell {cell.name}"):
            check_names(fill_defaults(cell.config))
            normal_classes(cell.config.normal, open_data(cell.config.dataset, cell.config.data_dir))
    run = _earlier(plan, home)
    is_new = run is None or (again and run.record.status == FINISHED)
    if run and not is_new and (result := _kept(run)):
        logger.info(
            f"nothing is trained: run {run.record.id} of {run.record.started[:16].replace('T', ' ')} has done all of "
            f"{path} with these settings, and this is its result; train everything anew with {setting('again', True)}"
        )
        return result
    absent = _absent_data(plan)
    if run is None or is_new:
        return _start(plan, absent, overrides, home, tracking, jobs)
    if run.record.tracked and not tracking:
        raise UsageError(
            f"run {run.record.id} goes on as it was started, with tracking; leave {setting('tracking', False)} out"
        )
    logger.info(f"going on with run {run.record.id} of {path}")
    run_logger, behind = RunLogger(home, run.record.mlflow_run_id), run.record.unlogged
    with run.lock(), run_status(run, run_logger):
        run.update(status=RUNNING, unlogged=run.record.tracked)
        run_logger.set_status(RUNNING)
        return _run(plan, absent, run, run_logger, jobs, behind)


def _absent_data(plan: PipelineFile) -> dict[DataPlace, str]:
    """The data sets of a plan that are neither there nor to be had, or damaged, each with the reason: one attempt for
    all cells. Raises `DataError` when there would be nothing to do.
    """
    absent, cells = {}, Counter(cell.data_place for cell in plan.cells)
    for name, data_dir in cells:
        try:
            if name in DATASETS:
                load_dataset(name, data_dir)
        except DataError as error:
            absent[name, data_dir] = one_line(error)
    if absent.keys() == cells.keys():
        raise DataError(f"{plan.path} is skipped: {'; '.join(absent.values())}")
    for source, reason in absent.items():
        logger.warning(f"{counted(cells[source], 'cell is', 'cells are')} skipped: {reason}")
    return absent


def _earlier(plan: PipelineFile, home: RunStore) -> RunFolder | None:
    """The newest run of this plan, if there is one. Raises `RunBusy` when it is under way."""
    for run, record in home.records().items():
        if record.kind == PIPELINE and _digest(run) == plan.digest():
            if record.status != FINISHED and run.is_locked():
                raise RunBusy(f"{plan.path} is already running, as {record.id}; wait for it or stop it")
            return run
    return None


def _digest(run: RunFolder) -> str | None:
    """That of the plan that a run is of; None where what is kept of it is damaged, which is said."""
    try:
        return str(run.read("pipeline.json").get("digest"))
    except ModelError as error:
        warn_once(one_line(error))
        return None


def _kept(run: RunFolder) -> PipelineResult | None:
    """What a finished run of a plan came to; None where it is not finished, or that is not kept whole."""
    try:
        content = run.read("result.json") if run.record.status == FINISHED else {}
    except ModelError:
        return None
    whole = content.keys() == PipelineResult.__dataclass_fields__.keys()
    return PipelineResult.read(content) if whole else None


def _start(
    plan: PipelineFile,
    absent: Mapping[DataPlace, str],
    overrides: Sequence[tuple[str, str]],
    home: RunStore,
    tracking: bool,
    jobs: int,
) -> PipelineResult:
    """A new run of a plan."""
    again = command(
        *("run", str(plan.path)),
        set=[f"{key}={value}" for key, value in overrides],
        **place_settings(home.root),
        tracking=None if tracking else False,
        jobs=jobs if jobs > 1 else None,
        figures=None if plan.figures else False,
    )
    experiment = plan.cells[0].config.experiment
    about = {
        "name": plan.name,
        "about": plan.about,
        "command": again,
        "experiment": experiment,
        "digest": plan.digest(),
        "cells": {cell.name: cell.config.to_dict() for cell in plan.cells},
    }
    record = dataclasses.replace(RunRecord.new(plan.name, tracking), kind=PIPELINE, resume=again)
    run_logger = RunLogger(home, None)
    with start_run(home, experiment, record, {"pipeline.json": about}, run_logger) as run:
        run_logger.tell(calls.log_pipeline, run)
        return _run(plan, absent, run, run_logger, jobs)


def _run(
    plan: PipelineFile,
    absent: Mapping[DataPlace, str],
    run: RunFolder,
    run_logger: RunLogger,
    jobs: int,
    behind: bool = False,
) -> PipelineResult:
    """Run the cells that are missing, compare them all, and mirror that to MLflow.

    absent: the data sets whose cells are skipped, each with the reason
    behind: whether MLflow lacked something before
    """
    failed = _run_cells(plan, absent, run, run_logger.home, jobs)
    result = _compare(plan, run, run_logger.home, failed)
    finish_run(run, run_logger, FAILED if failed else FINISHED, behind)
    return result


def _run_cells(
    plan: PipelineFile, absent: Mapping[DataPlace, str], parent: RunFolder, home: RunStore, jobs: int
) -> dict[str, str]:
    """Train and evaluate the cells that are missing; the reasons of those that failed or were skipped, by name.

    What is done is set side by side as cells end, if drawing it takes little beside them.
    """
    groups = _groups([cell for cell in plan.cells if cell.data_place not in absent])
    works = [partial(_run_group, group, plan, parent, home) for group in groups]
    failed = {cell.name: absent[cell.data_place] for cell in plan.cells if cell.data_place in absent}
    shown, took = time.monotonic(), 0.0
    for i, done in enumerate(run_parallel(works, jobs) if jobs > 1 else (work() for work in works), start=1):
        failed |= done
        began = time.monotonic()
        if i < len(groups) and began - shown > MOST_DRAWING * took:
            _compare(plan, parent, home, failed)
            shown = time.monotonic()
            took = shown - began
    return failed


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells, those that share a network together, since one trains it and the others take it over."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(json.dumps(cell.network_settings), []).append(cell)
    return list(groups.values())


def _run_group(cells: Sequence[Cell], plan: PipelineFile, parent: RunFolder, home: RunStore) -> dict[str, str]:
    """Run some cells, one after the other; the reasons of those that failed, by name."""
    failed = {}
    for cell in cells:
        try:
            number = plan.cells.index(cell) + 1
            _run_cell(cell, f"cell {number} of {len(plan.cells)}: {cell.name}", plan, parent, home)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 (hours of other cells must not be lost to this one)
            kind = "" if isinstance(error, AnomalyAEError) else f"{type(error).__name__}: "
            failed[cell.name] = kind + one_line(error)
            logger.info(f"cell {cell.name} failed: {failed[cell.name]}")
    return failed


def _run_cell(cell: Cell, title: str, plan: PipelineFile, parent: RunFolder, home: RunStore) -> None:
    """Train and evaluate a cell, as far as that was not done before."""
    children = _children(parent, home)
    run = children.get(cell.name)
    if run and run.record.status == FINISHED and _is_evaluated(run, cell):
        return
    logger.info(title)
    if run is None or run.record.status != FINISHED:
        run = home.find_run(_train(cell, plan, parent, children, home))
    evaluate(
        run.record.id,
        data_dir=cell.config.data_dir,
        compare_scorers=cell.compare_scorers,
        home=home,
        device=cell.config.device,
        figures=plan.figures,
    )
    if not _is_evaluated(run, cell):
        raise RunBusy(f"the evaluation of run {run.record.id} could not be kept; run the same command again")


def _is_evaluated(run: RunFolder, cell: Cell) -> bool:
    """Whether all was measured that the cell asks for."""
    try:
        measured = run.read("evaluation/metrics.json")
    except ModelError:  # what is damaged is measured again
        return False
    return bool(measured) and set(cell.compare_scorers) <= {row["scorer"] for row in measured.get("beside") or []}


def _train(cell: Cell, plan: PipelineFile, parent: RunFolder, children: dict[str, RunFolder], home: RunStore) -> str:
    """Train a cell, or go on with its run; the run's id."""
    if cell.name in children:
        moved = [{"data_dir": cell.config.data_dir}] if cell.config.data_dir else []
        return resume(children[cell.name].record.id, moved, home=home, figures=plan.figures).run_id
    place = CellPosition(parent, cell.name, _same_network(cell, plan, children))
    tracking = parent.record.tracked
    return train(cell.config, home=home, tracking=tracking, figures=plan.figures, place=place).run_id


def _same_network(cell: Cell, plan: PipelineFile, children: dict[str, RunFolder]) -> RunFolder | None:
    """A finished run of this pipeline that differs in nothing that the network depends on."""
    for other in plan.cells:
        run = children.get(other.name)
        if run and run.record.status == FINISHED and other.network_settings == cell.network_settings:
            return run
    return None


def _children(parent: RunFolder, home: RunStore) -> dict[str, RunFolder]:
    """The runs of a pipeline's cells by name; of several, the newest."""
    return {run.record.name: run for run in reversed(home.runs()) if run.record.parent == parent.record.id}


def _compare(plan: PipelineFile, run: RunFolder, home: RunStore, failed: dict[str, str]) -> PipelineResult:
    """Write tables and pictures of the cells that are there."""
    children = _children(run, home)
    done = [Done(cell, children[cell.name]) for cell in plan.cells if cell.name in children]
    scorers = scorer_table(measured((each.cell.variant, each.run) for each in done))
    result = PipelineResult(
        run_id=run.record.id,
        name=plan.name,
        comparison=comparison(done),
        published=published_table(done),
        cells=cell_table(done),
        scorers=scorers,
        classes=class_table(done),
        failed=failed,
        run_folder=str(run.path),
    )
    content = result.to_dict()
    for name in TABLES:
        write_csv(run.path / f"{name}.csv", content[name])
        write_text(run.path / f"{name}.md", markdown_table(content[name]) + "\n")
    try:
        if plan.figures:
            drawn = draw_comparison(done) | ({"scorers": draw_scorers(scorers)} if scorers else {})
            write_figures(run.path / FIGURES, drawn, plan.name)
    except DataError as error:  # the cells were done elsewhere, or their data have moved
        logger.warning(f"the cells are not drawn side by side: {one_line(error)}")
    write_json(run.path / "result.json", content)
    return result
