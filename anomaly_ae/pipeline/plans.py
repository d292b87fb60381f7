"""Running a pipeline file: one run for the file, and below it one for each cell."""

import dataclasses
import json
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_ae import figures
from anomaly_ae.comparison import Done, cell_table, comparison, draw_comparison, published_table
from anomaly_ae.config import RunConfig
from anomaly_ae.errors import AnomalyAEError, Interrupted, RunBusy, one_line
from anomaly_ae.files import storage_errors, write_csv, write_json, write_text
from anomaly_ae.pipeline.evaluating import evaluate
from anomaly_ae.pipeline.job import check_names
from anomaly_ae.pipeline.marking import marked, settle
from anomaly_ae.pipeline.training import Place, resume, train
from anomaly_ae.plan import Cell, Plan, read_plan
from anomaly_ae.progress import say
from anomaly_ae.runs import FAILED, FINISHED, PIPELINE, RUNNING, Home, Record, RunFolder, now
from anomaly_ae.tables import markdown_table
from anomaly_ae.tracking.mirror import Tracker, mark_dead_runs

REUSED = {"scorer", "target_fpr"}  # settings that need no other network


@dataclass(frozen=True)
class PlanResult:
    """What a pipeline came to: tables as rows, and cells that failed with the reason."""

    run_id: str
    name: str
    comparison: list[dict[str, Any]]
    published: list[dict[str, Any]]
    cells: list[dict[str, Any]]
    failed: dict[str, str]
    run_folder: str


def run_plan(
    path: Path, overrides: Sequence[tuple[str, str]] = (), *, home: Home | None = None, tracking: bool = True
) -> PlanResult:
    """Train and evaluate every cell of a pipeline file, and set them side by side.

    A run of the same file with the same settings that was interrupted goes on with the cells that are missing.
    A cell that fails does not stop the others. Raises `Interrupted`, and `UsageError` before anything is trained.
    """
    home = home or Home.find()
    mark_dead_runs(home)
    plan = read_plan(path, overrides)
    for cell in plan.cells:
        check_names(cell.config)
    run, tracker = _begin(plan, overrides, home, tracking)
    with run.lock(), marked(run, tracker):
        if run.record.status != RUNNING:
            run.update(status=RUNNING, unlogged=run.record.tracked)
            tracker.set_status(RUNNING)
        failed = _run_cells(plan, run, home, tracking)
        result = _compare(plan, run, home, failed)
        run.update(status=FAILED if failed else FINISHED)
        tracker.log_results(run)
        tracker.set_status(run.record.status)
        settle(run, tracker)
    return result


def _begin(plan: Plan, overrides: Sequence[tuple[str, str]], home: Home, tracking: bool) -> tuple[RunFolder, Tracker]:
    """The interrupted run of this plan, else a new one."""
    for run in home.runs():
        if run.record.kind == PIPELINE and run.record.status != FINISHED and _about(run)["digest"] == plan.digest():
            if run.is_locked():
                raise RunBusy(f"{plan.path} is already running, as {run.record.id}; wait for it or stop it")
            say(f"going on with run {run.record.id} of {plan.path}")
            return run, Tracker(home, run.record.mlflow_run_id)
    with storage_errors(f"keep runs in {home.root}"):
        (home.root / "runs").mkdir(parents=True, exist_ok=True)
    tracker = Tracker.begin(home, plan.cells[0].config.experiment, plan.name) if tracking else Tracker(home, None)
    run_id = tracker.run_id or secrets.token_hex(16)
    run = RunFolder(home.root / "runs" / run_id)
    settings = [part for key, value in overrides for part in ("--set", f"{key}={value}")]
    again = shlex.join(["anomaly-ae", "run", str(plan.path), *settings])
    record = Record(run_id, tracker.run_id, plan.name, now(), tracked=tracking, unlogged=tracking)
    with storage_errors(f"write to {run.path}"):
        write_json(run.path / "pipeline.json", _description(plan, again))
        run.write_record(dataclasses.replace(record, kind=PIPELINE, resume=again))
    tracker.log_pipeline(run)
    return run, tracker


def _description(plan: Plan, command: str) -> dict[str, Any]:
    return {
        "name": plan.name,
        "about": plan.about,
        "command": command,
        "experiment": plan.cells[0].config.experiment,
        "digest": plan.digest(),
        "cells": {cell.name: cell.config.to_dict() for cell in plan.cells},
    }


def _about(run: RunFolder) -> dict[str, Any]:
    return dict(json.loads((run.path / "pipeline.json").read_text()))


def _run_cells(plan: Plan, parent: RunFolder, home: Home, tracking: bool) -> dict[str, str]:
    """Train and evaluate the cells that are missing; the reasons of those that failed, by name."""
    failed = {}
    for number, cell in enumerate(plan.cells, start=1):
        try:
            run = _children(parent, home).get(cell.name)
            if run is None or run.record.status != FINISHED:
                say(f"cell {number} of {len(plan.cells)}: {cell.name}")
                run = home.find_run(_train(cell, plan, run, parent, home, tracking))
            if not (run.path / "evaluation" / "metrics.json").exists():
                evaluate(run.record.id, home=home, device=cell.config.device)
        except Interrupted:
            raise
        except AnomalyAEError as error:
            failed[cell.name] = one_line(error)
            say(f"cell {cell.name} failed: {one_line(error)}")
    return failed


def _train(cell: Cell, plan: Plan, run: RunFolder | None, parent: RunFolder, home: Home, tracking: bool) -> str:
    """Train a cell, or go on with its run; the run's id."""
    if run is not None:
        return resume(run.record.id, home=home).run_id
    place = Place(parent, cell.name, _same_network(cell, plan, _children(parent, home)))
    return train(cell.config, home=home, tracking=tracking, place=place).run_id


def _same_network(cell: Cell, plan: Plan, children: dict[str, RunFolder]) -> RunFolder | None:
    """A finished run of this pipeline that differs in nothing that the network depends on."""
    for other in plan.cells:
        run = children.get(other.name)
        if run and run.record.status == FINISHED and _network(other.config) == _network(cell.config):
            return run
    return None


def _network(config: RunConfig) -> dict[str, Any]:
    """The settings that a network depends on."""
    return {key: value for key, value in config.to_dict().items() if key not in REUSED}


def _children(parent: RunFolder, home: Home) -> dict[str, RunFolder]:
    """The runs of a pipeline's cells by name; of several, the newest."""
    return {run.record.name: run for run in reversed(home.runs()) if run.record.parent == parent.record.id}


def _compare(plan: Plan, run: RunFolder, home: Home, failed: dict[str, str]) -> PlanResult:
    """Write tables and pictures of the cells that are there."""
    children = _children(run, home)
    done = [Done(cell, children[cell.name]) for cell in plan.cells if cell.name in children]
    tables = {"comparison": comparison(done), "published": published_table(done), "cells": cell_table(done)}
    for name, rows in tables.items():
        write_csv(run.path / f"{name}.csv", rows)
        write_text(run.path / f"{name}.md", markdown_table(rows) + "\n")
    figures.save_figures(run.path / "figures", draw_comparison(done), plan.name)
    result = PlanResult(run.record.id, plan.name, **tables, failed=failed, run_folder=str(run.path))
    write_json(run.path / "result.json", dataclasses.asdict(result))
    return result
