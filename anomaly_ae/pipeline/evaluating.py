"""Measuring a model on the test images recorded with it."""

import dataclasses

from torch import Tensor

from anomaly_ae import figures
from anomaly_ae.data.images import ImageSet
from anomaly_ae.data.named import load_dataset
from anomaly_ae.detector import Detector
from anomaly_ae.errors import RunBusy, StorageError, one_line
from anomaly_ae.evaluation import Evaluation, draw, measure, measure_discoveries, write_tables
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
    guarantee: str | None = None,
    confidence: float | None = None,
    fdr: float | None = None,
    home: Home | None = None,
    device: str = "auto",
) -> Evaluation:
    """Measure a detector on the test images recorded with it.

    The run that trained it gets the figures, tables and metrics, unless rate, guarantee or confidence are others than
    its own. fdr: a false discovery rate, at which to look for the anomalies among all test images together.
    Raises `DataChanged` when the data no longer match the record, and what `find_model` raises.
    """
    home = home or Home.find()
    mark_dead_runs(home)
    folder, run = find_model(home, model)
    detector = Detector.load(folder, device)
    dataset = load_dataset(detector.recipe.dataset, data_dir or (run.data_dir() if run else None))
    test = detector.preprocessing.prepare_set(detector.split.test.take(dataset))
    own = detector.calibration
    asked = {"target_fpr": target_fpr, "guarantee": guarantee, "confidence": confidence}
    changes = {key: value for key, value in asked.items() if value not in (None, getattr(own, key))}
    detector = dataclasses.replace(detector, calibration=own.at(**changes))
    scores = detector.score(test.images)
    evaluation = measure(detector, test, scores, run.record.id if run else None)
    if run and not changes:
        _keep(home, run, detector, test, scores, evaluation)
    if fdr is not None:
        found = measure_discoveries(detector, test, scores, fdr)
        evaluation = dataclasses.replace(evaluation, discoveries=found)
    return evaluation


def _keep(
    home: Home, run: RunFolder, detector: Detector, test: ImageSet, scores: Tensor, evaluation: Evaluation
) -> None:
    """Put what was measured into the run folder and into MLflow; what cannot be kept is said, not raised."""
    try:
        with run.lock(wait=LOCK_WAIT):
            behind = run.record.unlogged
            run.update(unlogged=run.record.tracked)  # until it is all there, whatever happens before
            figures.save_figures(run.path / "figures", draw(detector, test, scores, evaluation), run.record.name)
            write_tables(run.path / "evaluation", detector, test, scores, evaluation)
            tracker = Tracker(home, run.record.mlflow_run_id)
            tracker.log_results(run)
            settle(run, tracker, behind)
    except (RunBusy, StorageError) as error:
        say(f"warning: the evaluation is not kept with the run: {one_line(error)}")
