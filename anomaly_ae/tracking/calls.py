"""What MLflow is told of a run, call by call. Each is given MLflow's client, and is a function that another process
can be asked to call.
"""

import getpass
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_ae.config.run_config import LOCATION_FIELDS, RunConfig
from anomaly_ae.escaping import printable, short_name
from anomaly_ae.runs.record import PIPELINE, RUNNING, RunRecord
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.run_results import KeptEvaluation
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking.client import find_experiment
from anomaly_ae.tracking.descriptions import TABLES, code_version, describe, describe_pipeline
from anomaly_ae.tracking.models import model_of

if TYPE_CHECKING:
    from anomaly_ae.training import Epoch

Metric = tuple[str, float, int]  # name, value and step

FOLDERS = ("figures", "evaluation", "evaluations", "comparisons", "detector", "network")
FILES = ("config.json", "split.json", "metrics.csv", "calibration.csv", "result.json", "pipeline.json")
PARENT, KIND = "mlflow.parentRunId", "anomaly_ae.kind"
FOLDER_TAG = "anomaly_ae.folder"  # what a run's folder was called when it was begun
# Settings that are logged whatever they are
LOGGED_PARAMS = ("dataset", "normal", "autoencoder", "objective", "scorer", "preset", "target_fpr", "seed")
GRIDS_KEY = "reconstructions"  # key of the images with a step slider
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


def begin_run(client: Any, home: RunStore, experiment: str, record: RunRecord, parent: str | None) -> str:
    """Open a run in MLflow, below the run `parent` if there is one, or find the one that a process which was killed
    has opened for this folder; its id.
    """
    experiment_id = find_experiment(client, home, experiment)
    tags = {"mlflow.source.name": "anomaly-ae", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    tags |= {FOLDER_TAG: record.id} | ({PARENT: parent} if parent else {})
    try:
        begun = find_begun(client, home, experiment, record)
        name = printable(record.name)[:LONGEST_RUN_NAME]
        return begun or str(client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)
    except Exception:
        if begun := find_begun(client, home, experiment, record):  # it was the answer that was lost
            return begun
        raise


def find_begun(client: Any, home: RunStore, experiment: str, record: RunRecord) -> str | None:
    """The id of the run that was opened for this folder, if one was."""
    experiments = [find_experiment(client, home, experiment)]
    begun = client.search_runs(experiments, f"tags.`{FOLDER_TAG}` = '{record.id}'", max_results=1)
    return str(begun[0].info.run_id) if begun else None


def log_start(client: Any, run_id: str, run: RunFolder) -> None:
    """Settings, and the data set as input."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    config, split, record = run.config, run.split, run.record
    images = {f"{part}_images": about["images"] for part, about in split["parts"].items()}
    _log_params(client, run_id, _telling(config) | {"parameters": record.parameters, "device_used": record.device})
    client.set_tag(run_id, KIND, record.kind)
    dataset = Dataset(
        printable(short_name(config.dataset))[:LONGEST_NAME],
        split["digest"][:DIGEST_LENGTH],
        "local",
        json.dumps({"dataset": config.dataset, "normal": config.normal}),
        profile=json.dumps(images),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    client.log_artifact(run_id, str(run.path / "config.json"))  # a run without files looks as if left behind


def log_pipeline(client: Any, run_id: str, run: RunFolder) -> None:
    """The command, and the settings of all cells of a pipeline file."""
    about = run.read("pipeline.json")
    _log_params(client, run_id, {"command": about["command"], "cells": len(about["cells"])})
    client.set_tag(run_id, KIND, run.record.kind)
    client.log_artifact(run_id, str(run.path / "pipeline.json"))


def log_parent(client: Any, run_id: str, parent: str) -> None:
    """That a run is below the run `parent`."""
    client.set_tag(run_id, PARENT, parent)


def log_metrics(client: Any, run_id: str, metrics: Sequence[Metric], model_id: str | None = None) -> None:
    """Metrics of a run and, if there is one, of its model."""
    from mlflow.entities import Metric as Entity

    now = int(time.time() * 1000)
    entities = [Entity(key, value, now, step, model_id=model_id) for key, value, step in metrics]
    for start in range(0, len(entities), MOST_METRICS):
        client.log_batch(run_id, entities[start : start + MOST_METRICS])


def log_grid(client: Any, run_id: str, path: Path) -> None:
    """A grid of reconstructions, for the step slider; its file name ends with the epoch."""
    from PIL import Image

    client.log_image(run_id, Image.open(path), key=GRIDS_KEY, step=_epoch_of(path))


def log_missing(client: Any, run_id: str, run: RunFolder) -> None:
    """The epochs and grids that the run folder has and MLflow has not."""
    steps = {metric.step for metric in client.get_metric_history(run_id, "val/loss")}
    missing = [epoch for epoch in run.history() if epoch.epoch not in steps]
    log_metrics(client, run_id, [*epoch_metrics(missing)])
    paths = " ".join(artifact.path for artifact in client.list_artifacts(run_id, "images"))
    drawn = {int(step) for step in re.findall(rf"{GRIDS_KEY}[%+]step[%+](\d+)[%+]", paths)}
    for path in run.grids():
        if _epoch_of(path) not in drawn:
            log_grid(client, run_id, path)


def log_results(client: Any, run_id: str, run: RunFolder) -> None:
    """All files and final figures that the run folder has, and a description made of them."""
    result, evaluation = run.result(), run.evaluation()
    final = {name: getattr(result, key) for name, key in RESULT_METRICS.items()}
    final |= _evaluation_metrics(evaluation) if evaluation else {}
    logged = client.get_run(run_id).data.metrics
    new = [(key, float(value), 0) for key, value in final.items() if value is not None and logged.get(key) != value]
    log_metrics(client, run_id, new, model_of(client, run_id))
    for name in (*FILES, *(f"{table}.{kind}" for table in TABLES for kind in ("csv", "md"))):
        if (run.path / name).exists():
            client.log_artifact(run_id, str(run.path / name))
    for name in FOLDERS:
        log_folder(client, run_id, run, name)
    note = describe_pipeline(run) if run.record.kind == PIPELINE else describe(run)
    client.set_tag(run_id, "mlflow.note.content", note)


def log_folder(client: Any, run_id: str, run: RunFolder, name: str) -> None:
    """One folder of a run folder, with what is in it, if it is there."""
    if (run.path / name).exists():
        client.log_artifacts(run_id, str(run.path / name), name)


def set_status(client: Any, run_id: str, status: str) -> None:
    """RUNNING, FINISHED, KILLED or FAILED."""
    if status == RUNNING:
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status)


def epoch_metrics(epochs: "Iterable[Epoch]") -> Iterator[Metric]:
    """Losses, learning rate and speed, the epoch as step."""
    for epoch in epochs:
        yield "train/loss", epoch.train_loss, epoch.epoch
        yield "val/loss", epoch.validation_loss, epoch.epoch
        yield "train/learning_rate", epoch.learning_rate, epoch.epoch
        yield "train/images_per_second", epoch.images_per_second, epoch.epoch


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


def _user() -> str:
    """Who works here, as far as the system knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _epoch_of(grid: Path) -> int:
    return int(grid.stem.rpartition("-")[2])
