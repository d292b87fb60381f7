"""Measuring a model on the test images recorded with it."""

import dataclasses
from pathlib import Path

from torch import Tensor

from anomaly_ae import figures
from anomaly_ae.data.images import ImageSet
from anomaly_ae.data.named import load_dataset
from anomaly_ae.detector import Detector
from anomaly_ae.errors import RunBusy, StorageError, one_line
from anomaly_ae.evaluation import Evaluation, draw, measure, write_tables
from anomaly_ae.pipeline.marking import settle
from anomaly_ae.pipeline.models import find_model
from anomaly_ae.progress import say
from anomaly_ae.runs import LATEST, Home, RunFolder
from anomaly_ae.tracking.mirror import Tracker, mark_dead_runs

LOCK_WAIT = 60.0  # seconds to wait for another evaluation of the same run


def evaluate(
    model: str = LATEST,
    *,
    data_dir: str | None = None,
    target_fpr: float | None = None,
    home: Home | None = None,
    device: str = "auto",
) -> Evaluation:
    """Measure a detector on the test images recorded with it.

    The run that trained it gets the figures, tables and metrics, unless `target_fpr` is another than its own.
    Raises `DataChanged` when the data no longer match the record, and what `find_model` raises.
    """
    home = home or Home.find()
    mark_dead_runs(home)
    folder, run = find_model(home, model)
    detector = Detector.load(folder, device)
    dataset = load_dataset(detector.recipe.dataset, data_dir or _recorded_data_dir(run))
    test = detector.preprocessing.prepare_set(detector.split.test.take(dataset))
    own = detector.calibration
    if target_fpr is not None:
        detector = dataclasses.replace(detector, calibration=own.at(target_fpr))
    scores = detector.score(test.images)
    evaluation = measure(detector, test, scores, run.record.id if run else None)
    if run and detector.calibration.target_fpr == own.target_fpr:
        _keep(home, run, detector, test, scores, evaluation)
    return evaluation


def _keep(
    home: Home, run: RunFolder, detector: Detector, test: ImageSet, scores: Tensor, evaluation: Evaluation
) -> None:
    """Put what was measured into the run folder and into MLflow; what cannot be kept is said, not raised."""
    try:
        with run.lock(wait=LOCK_WAIT):
            write_tables(run.path / "evaluation", detector, test, scores, evaluation)
            figures.save_figures(run.path / "figures", draw(detector, test, scores, evaluation), run.record.name)
            tracker = Tracker(home, run.record.mlflow_run_id)
            tracker.log_results(run)
            settle(run, tracker, run.record.unlogged)
    except (RunBusy, StorageError) as error:
        say(f"warning: the evaluation is not kept with the run: {one_line(error)}")


def _recorded_data_dir(run: RunFolder | None) -> str | None:
    """Where the run found its data, if they may still be there."""
    folder = run.config.data_dir if run else None
    return folder if folder and Path(folder).is_dir() else None
