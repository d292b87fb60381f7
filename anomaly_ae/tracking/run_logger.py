"""A run in MLflow: a mirror of the run folder.

Nothing here may stop a training. What could not be logged stays in the run folder, is said once, and is
uploaded by `anomaly-ae runs --sync`.
"""

import contextlib
import getpass
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_ae.config.run_config import LOCATION_FIELDS, RunConfig
from anomaly_ae.errors import ModelError, RunBusy, StorageError, one_line
from anomaly_ae.escaping import printable, short_name
from anomaly_ae.runs.record import KILLED, PIPELINE, RUNNING, RunRecord
from anomaly_ae.runs.run_results import KeptEvaluation
from anomaly_ae.runs.store import RunFolder, RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import stage
from anomaly_ae.storage.atomic import sweep_top
from anomaly_ae.tracking.client import explain, find_experiment, open_client, store_held
from anomaly_ae.tracking.database import run_ids, running_runs
from anomaly_ae.tracking.descriptions import TABLES, code_version, describe, describe_pipeline
from anomaly_ae.tracking.models import log_model, model_of
from anomaly_ae.tracking.relocate import follow_move

if TYPE_CHECKING:
    from anomaly_ae.training import Epoch

FOLDERS = ("figures", "evaluation", "evaluations", "comparisons", "detector", "network")
FILES = ("config.json", "split.json", "metrics.csv", "calibration.csv", "result.json", "pipeline.json")
PARENT, KIND = "mlflow.parentRunId", "anomaly_ae.kind"
FOLDER = "anomaly_ae.folder"  # what a run's folder was called when it was begun
# Settings that are logged whatever they are
LOGGED_PARAMS = ("dataset", "normal", "autoencoder", "objective", "scorer", "preset", "target_fpr", "seed")
GRIDS = "reconstructions"  # key of the images with a step slider
RETRY_AFTER = 60.0  # seconds after which MLflow, once away, may be back
MOST_METRICS = 1_000  # that MLflow takes at once
LONGEST_NAME = 500  # of a data set that MLflow takes
LONGEST_RUN_NAME = 250
DIGEST_LENGTH = 36  # the most that MLflow keeps of a data set's digest
EVALUATION_METRICS = (
    "reconstruction_mse",
    *("auroc", "average_precision", "fpr_at_95_tpr", "partial_auroc", "threshold"),
    *("false_positive_rate", "true_positive_rate", "precision", "f1"),
    *("pixel_auroc", "pixel_average_precision", "pro"),
)


RESULT_METRICS = {
    "calibration/threshold": "threshold",
    "calibration/expected_false_positive_rate": "expected_fpr",
    "train/seconds": "train_seconds",
    "train/best_epoch": "best_epoch",
    "train/reconstruction_mse": "train_mse",
    "val/reconstruction_mse": "validation_mse",
}


class RunLogger:
    """A run in MLflow, or nothing at all when `run_id` is None. After the first failure it stays away."""

    def __init__(self, home: RunStore, run_id: str | None) -> None:
        self.home = home
        self.run_id = run_id
        self.failure: str | None = None
        self.failed_at = 0.0

    def begin(self, experiment: str, record: RunRecord) -> None:
        """Open a run in MLflow, or find the one that a process which was killed has opened for this folder. `run_id`
        stays None when MLflow cannot be reached.
        """
        tags = {"mlflow.source.name": "anomaly-ae", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
        parent = _mlflow_parent(self.home, record)
        tags |= {FOLDER: record.id} | ({PARENT: parent} if parent else {})

        def begin(client: Any) -> None:
            experiment_id, name = find_experiment(client, self.home, experiment), printable(record.name)

            def find() -> str | None:
                begun = client.search_runs([experiment_id], f"tags.`{FOLDER}` = '{record.id}'", max_results=1)
                return begun[0].info.run_id if begun else None

            self.run_id = find()
            try:
                if self.run_id is None:
                    run = client.create_run(experiment_id, run_name=name[:LONGEST_RUN_NAME], tags=tags)
                    self.run_id = run.info.run_id
            except BaseException:  # Ctrl-C, or an answer that was lost: MLflow may have the run all the same
                self.run_id = find()
                raise

        with stage("waiting for MLflow"):
            self._attempt(begin)

    def connect(self) -> None:
        """Load MLflow and open its store, where that is not done yet."""
        self._on_run(lambda client, run_id: None)

    def finish(self, run: RunFolder, status: str, behind: bool) -> None:
        """Bring MLflow all that a run came to. behind: whether MLflow lacked something before"""
        with stage("logging to MLflow"):
            self.log_model(run)  # first, for the results are of the model, too
            self.log_results(run)
            self.set_status(status)
            sync_pending(run, self, behind)

    def lacks_something(self) -> bool:
        """Whether MLflow does not have all that it was given."""
        return self.run_id is None or self.failure is not None

    def log_start(self, run: RunFolder) -> None:
        """Settings, and the data set as input."""
        config, split, record = run.config, run.split, run.record
        images = {f"{part}_images": about["images"] for part, about in split["parts"].items()}
        network = {"parameters": record.parameters, "device_used": record.device}

        def log(client: Any, run_id: str) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            _log_params(client, run_id, _telling(config) | network)
            client.set_tag(run_id, KIND, record.kind)
            source = json.dumps({"dataset": config.dataset, "normal": config.normal})
            digest = split["digest"][:DIGEST_LENGTH]
            dataset = Dataset(
                printable(short_name(config.dataset))[:LONGEST_NAME],
                digest,
                "local",
                source,
                profile=json.dumps(images),
            )
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
            client.log_artifact(run_id, str(run.path / "config.json"))  # a run without files looks as if left behind

        self._on_run(log)

    def log_pipeline(self, run: RunFolder) -> None:
        """The command, and the settings of all cells of a pipeline file."""
        about = run.read("pipeline.json")

        def log(client: Any, run_id: str) -> None:
            _log_params(client, run_id, {"command": about["command"], "cells": len(about["cells"])})
            client.set_tag(run_id, KIND, run.record.kind)
            client.log_artifact(run_id, str(run.path / "pipeline.json"))

        self._on_run(log)

    def log_parent(self, parent: str | None) -> None:
        """Put the run below the run `parent`, if there is one."""
        if parent:
            self._on_run(lambda client, run_id: client.set_tag(run_id, PARENT, parent))

    def log_epochs(self, epochs: "Sequence[Epoch]") -> None:
        """Losses, learning rate and speed, the epoch as step."""
        self._log_metrics(
            (key, value, epoch.epoch)
            for epoch in epochs
            for key, value in {
                "train/loss": epoch.train_loss,
                "val/loss": epoch.validation_loss,
                "train/learning_rate": epoch.learning_rate,
                "train/images_per_second": epoch.images_per_second,
            }.items()
        )

    def log_grid(self, path: Path) -> None:
        """A grid of reconstructions, for the step slider; its file name ends with the epoch."""

        def log(client: Any, run_id: str) -> None:
            from PIL import Image

            client.log_image(run_id, Image.open(path), key=GRIDS, step=_epoch_of(path))

        self._on_run(log)

    def log_results(self, run: RunFolder) -> None:
        """All files and final figures that the run folder has, and a description made of them."""
        result, evaluation = run.read("result.json"), run.evaluation()
        final = {name: result.get(key) for name, key in RESULT_METRICS.items()}
        final |= _evaluation_metrics(evaluation) if evaluation else {}

        def log(client: Any, run_id: str) -> None:
            known = client.get_run(run_id).data.metrics
            new = [(k, float(v), 0) for k, v in final.items() if v is not None and known.get(k) != v]
            self._log_metrics(new, model_of(client, run_id))
            for name in (*FILES, *(f"{table}.{kind}" for table in TABLES for kind in ("csv", "md"))):
                if (run.path / name).exists():
                    client.log_artifact(run_id, str(run.path / name))
            for name in FOLDERS:
                if (run.path / name).exists():
                    client.log_artifacts(run_id, str(run.path / name), name)
            note = describe_pipeline(run) if run.record.kind == PIPELINE else describe(run)
            client.set_tag(run_id, "mlflow.note.content", note)

        self._on_run(log)

    def log_folder(self, run: RunFolder, name: str) -> None:
        """One folder of a run folder, with what is in it."""
        self._on_run(lambda client, run_id: client.log_artifacts(run_id, str(run.path / name), name))

    def log_model(self, run: RunFolder) -> None:
        """The detector as a model of MLflow, if there is one."""
        if (run.path / "detector").exists():
            self._on_run(lambda client, run_id: log_model(client, run_id, run.path))

    def log_missing(self, run: RunFolder) -> None:
        """The epochs and grids that the run folder has and MLflow has not."""

        def log(client: Any, run_id: str) -> None:
            steps = {metric.step for metric in client.get_metric_history(run_id, "val/loss")}
            self.log_epochs([epoch for epoch in run.history() if epoch.epoch not in steps])
            paths = " ".join(artifact.path for artifact in client.list_artifacts(run_id, "images"))
            drawn = {int(step) for step in re.findall(rf"{GRIDS}[%+]step[%+](\d+)[%+]", paths)}
            for path in run.grids():
                if _epoch_of(path) not in drawn:
                    self.log_grid(path)

        self._on_run(log)

    def set_status(self, status: str) -> None:
        """RUNNING, FINISHED, KILLED or FAILED."""
        if status == RUNNING:
            self._on_run(lambda client, run_id: client.update_run(run_id, status=status))
        else:
            self._on_run(lambda client, run_id: client.set_terminated(run_id, status))

    def _log_metrics(self, metrics: Iterable[tuple[str, float, int]], model_id: str | None = None) -> None:
        """Metrics as name, value and step, of the run and, if there is one, of its model."""

        def log(client: Any, run_id: str) -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            entities = [Metric(key, value, now, step, model_id=model_id) for key, value, step in metrics]
            for start in range(0, len(entities), MOST_METRICS):
                client.log_batch(run_id, entities[start : start + MOST_METRICS])

        self._on_run(log)

    def _on_run(self, do: Callable[[Any, str], object]) -> None:
        if (run_id := self.run_id) is not None:
            self._attempt(lambda client: do(client, run_id))

    def _attempt(self, do: Callable[[Any], object]) -> None:
        """Call `do` with MLflow's client, unless it failed before."""
        if self.failure:
            return
        try:
            with contextlib.redirect_stdout(sys.stderr), store_held(self.home):  # MLflow prints addresses there
                do(open_client(self.home))
        except Exception as error:  # noqa: BLE001 (whatever MLflow raises, the training goes on)
            self.failed_at = time.monotonic()
            self.failure = one_line(explain(self.home, error))
            logger.warning(f"going on without MLflow: {self.failure}")


def _telling(config: RunConfig) -> dict[str, Any]:
    """The settings that tell runs apart; config.json has them all. MLflow puts all parameters above each picture."""
    usual = RunConfig().to_dict()
    settings = {key: value for key, value in config.to_dict().items() if key not in LOCATION_FIELDS}
    return {key: value for key, value in settings.items() if key in LOGGED_PARAMS or value != usual[key]}


def _log_params(client: Any, run_id: str, values: dict[str, Any]) -> None:
    """Log the parameters that MLflow lacks, for it takes each but once, and the code version."""
    from mlflow.entities import Param, RunTag

    known = client.get_run(run_id).data.params
    params = [Param(key, printable(str(value))) for key, value in values.items() if key not in known]
    tags = [RunTag(key, value) for key, value in code_version().items()]
    client.log_batch(run_id, params=params, tags=tags)


def _evaluation_metrics(evaluation: KeptEvaluation) -> dict[str, float | None]:
    """What `evaluate` measured, by MLflow's names. The figures by class are a table: as metrics they would be
    dozens of bars of one run each, in front of the curves.
    """
    low, high = evaluation.interval
    metrics = {f"test/{name}": getattr(evaluation, name) for name in EVALUATION_METRICS}
    return metrics | {"test/auroc_low": low, "test/auroc_high": high}


def sync_pending(run: RunFolder, run_logger: RunLogger, behind: bool = False) -> None:
    """Keep whether MLflow has everything. If not, try once more, and say where it is kept if that fails.

    behind: whether MLflow lacked something before
    """
    run.update(unlogged=run.record.tracked and (behind or run_logger.lacks_something()))
    just_now = run_logger.failure and time.monotonic() - run_logger.failed_at < RETRY_AFTER
    if run.record.unlogged and (just_now or not upload(run_logger.home, run)):
        again = run.command("runs", sync=True)
        logger.info(f"everything is kept in {run.path}; log it to MLflow later with: {again}")


def upload(home: RunStore, run: RunFolder) -> bool:
    """Bring MLflow up to what the run folder has; whether that worked is kept in the folder, and returned."""
    record = run.record
    run_logger = RunLogger(home, record.mlflow_run_id)
    pipeline = record.kind == PIPELINE
    if record.mlflow_run_id is None:
        run_logger.begin(run.experiment, record)
        run.update(mlflow_run_id=run_logger.run_id, on_server=not home.is_local)
    run_logger.log_parent(_mlflow_parent(home, record))
    if pipeline:
        run_logger.log_pipeline(run)
        for cell in home.runs():
            if cell.record.parent == record.id and cell.record.mlflow_run_id:
                RunLogger(home, cell.record.mlflow_run_id).log_parent(run_logger.run_id)
    else:
        run_logger.log_start(run)
        run_logger.log_missing(run)
    run_logger.log_model(run)  # first, for the results are of the model, too
    run_logger.log_results(run)
    run_logger.set_status(record.status)
    run.update(unlogged=run_logger.failure is not None)
    return run_logger.failure is None


def _mlflow_parent(home: RunStore, record: RunRecord) -> str | None:
    """MLflow's id of the run that this one is a cell of, if it has one."""
    parents = [run for run in home.runs() if run.record.id == record.parent]
    return parents[0].record.mlflow_run_id if parents else None


def sync(home: RunStore) -> None:
    """Log to MLflow whatever runs have that it lacks, and see to a home that was moved.

    Raises `StorageError` when some of it could not be logged.
    """
    failed = 0

    def log(run: RunFolder) -> None:
        nonlocal failed
        done = upload(home, run)
        failed += not done
        said = f"logged to MLflow as {run.record.mlflow_run_id}" if done else "still not logged"
        logger.info(f"run {run.record.id}: {said}")

    mark_dead_runs(home)
    _forget_lost(home)
    follow_move(home)
    waiting = [run for run in home.runs() if run.record.unlogged and run.record.status != RUNNING]
    waiting.sort(key=lambda run: run.record.parent is not None)  # parents first, so that their cells find them
    _with_each(waiting, log)
    if failed:
        raise StorageError(f"{failed:,} of {len(waiting):,} runs could not be logged, for the reasons above")
    if not waiting:
        logger.info("nothing is waiting to be logged")


def _forget_lost(home: RunStore) -> None:
    """Let runs be logged anew that MLflow's database had, and has no more since it was deleted."""
    if not home.is_local:
        return
    logged = [run for run in home.runs() if run.record.mlflow_run_id and not run.record.on_server]
    there = run_ids(home) if logged else set()
    lost = [run for run in logged if run.record.mlflow_run_id not in there and run.record.status != RUNNING]
    if lost:
        several = "run that it had: it is" if len(lost) == 1 else "runs that it had: they are"
        logger.info(f"MLflow's database lacks {len(lost):,} {several} logged anew")
    _with_each(lost, lambda run: run.update(mlflow_run_id=None, unlogged=True))


def mark_dead_runs(home: RunStore) -> None:
    """Mark runs that a process which is gone has left RUNNING as KILLED, here and in MLflow, and remove what it was
    making or deleting.
    """
    sweep_top(home.root / "runs")

    def mark(run: RunFolder) -> None:
        if run.record.status != RUNNING:
            return  # another command was faster
        run.update(status=KILLED)
        logger.info(
            f"run {run.record.id} was left by a process that is gone: now KILLED; go on with it: {run.resume}"
        )
        if run.record.tracked:
            upload(home, run)

    _with_each(home.dead_runs(), mark)
    _mark_orphans(home)


def _mark_orphans(home: RunStore) -> None:
    """Mark runs as KILLED that a local store has as RUNNING, and that have no folder here: nobody works on them.

    Of a run that is just beginning there is the folder first, which is then called as MLflow calls the run.
    """
    running = running_runs(home, FOLDER) if home.is_local else {}
    known = {run.record.mlflow_run_id for run in home.runs()} if running else set()
    for run_id, folder in running.items():
        there = any((home.root / "runs" / name).exists() for name in (folder, run_id) if name)
        if not there and run_id not in known:
            logger.info(
                f"MLflow's run {run_id} was left by a process that is gone, and has no folder here: now KILLED"
            )
            RunLogger(home, run_id).set_status(KILLED)


def _with_each(runs: Sequence[RunFolder], do: Callable[[RunFolder], None]) -> None:
    """Hold each run and do something with it; one that is busy or damaged stops none of the others."""
    for run in runs:
        try:
            with run.lock():
                do(run)
        except (RunBusy, ModelError) as error:
            logger.warning(one_line(error))


def _user() -> str:
    """Who works here, as far as the system knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _epoch_of(grid: Path) -> int:
    return int(grid.stem.rpartition("-")[2])
