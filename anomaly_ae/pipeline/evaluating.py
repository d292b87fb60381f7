"""Measuring a model on the test images recorded with it."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from anomaly_ae import figures
from anomaly_ae.data.images import ImageSet
from anomaly_ae.data.named import load_dataset
from anomaly_ae.detector import Detector
from anomaly_ae.errors import RunBusy, StorageError, UsageError, one_line
from anomaly_ae.evaluation import Evaluation, draw, measure, measure_beside, measure_discoveries, write_tables
from anomaly_ae.pipeline.marking import settle
from anomaly_ae.pipeline.models import find_model
from anomaly_ae.progress import say
from anomaly_ae.runs import LATEST, Home, RunFolder
from anomaly_ae.scorers import SCORERS, build_scorer
from anomaly_ae.tracking.mirror import Tracker, mark_dead_runs

ALL = "all"
LOCK_WAIT = 60.0  # seconds to wait for another evaluation of the same run


def evaluate(
    model: str = LATEST,
    *,
    data_dir: str | None = None,
    target_fpr: float | None = None,
    guarantee: str | None = None,
    confidence: float | None = None,
    fdr: float | None = None,
    beside: Sequence[str] = (),
    home: Home | None = None,
    device: str = "auto",
) -> Evaluation:
    """Measure a detector on the test images recorded with it.

    The run that trained it gets the figures, tables and metrics, unless rate, guarantee or confidence are others than
    its own. fdr: a false discovery rate, at which to look for the anomalies among all test images together.
    beside: other scorers to measure on the same network and images; `all` are those that suit it.
    Raises `DataChanged` when the data no longer match the record, and what `find_model` raises.
    """
    home = home or Home.find()
    beside = tuple(dict.fromkeys(name.strip() for name in beside))
    for name in beside:
        if name != ALL:
            build_scorer(name)  # a wrong name is said before anything is measured
    mark_dead_runs(home)
    folder, run = find_model(home, model)
    detector = Detector.load(folder, device)
    dataset = load_dataset(detector.recipe.dataset, data_dir or (run.data_dir() if run else None))

    def images(part: str) -> ImageSet:
        return detector.preprocessing.prepare_set(getattr(detector.split, part).take(dataset))

    test = images("test")
    own = detector.calibration
    changes = own.changes(target_fpr, guarantee, confidence)
    calibration = own.at(**changes) if changes else own
    if fdr is not None:
        calibration.check_discoveries(fdr)
    detector = dataclasses.replace(detector, calibration=calibration)
    scores = detector.score(test.images)
    evaluation = measure(detector, test, scores, run.record.id if run else None)
    if beside:
        known = {part: images(part) for part in ("fit", "validation")}
        rows = measure_beside(detector, _others(detector, beside), known, test, scores)
        evaluation = dataclasses.replace(evaluation, beside=rows)
    if run and not changes:
        _keep(home, run, detector, test, scores, evaluation)
    if fdr is not None:
        found = measure_discoveries(detector, test, scores, fdr)
        evaluation = dataclasses.replace(evaluation, discoveries=found)
    return evaluation


def _others(detector: Detector, asked: Sequence[str]) -> list[str]:
    """The scorers to measure beside the detector's own."""
    if ALL in asked:
        asked = [name for name in SCORERS if _suits(detector, name)]
    return [name for name in asked if name != detector.recipe.scorer]


def _suits(detector: Detector, name: str) -> bool:
    """Whether the detector's network has what a scorer needs."""
    image = torch.zeros(1, *detector.preprocessing.shape, device=next(detector.network.parameters()).device)
    try:
        build_scorer(name).check(detector.network(image))
    except UsageError:
        return False
    return True


def _keep(
    home: Home, run: RunFolder, detector: Detector, test: ImageSet, scores: Tensor, evaluation: Evaluation
) -> None:
    """Put what was measured into the run folder and into MLflow; what cannot be kept is said, not raised."""
    try:
        with run.lock(wait=LOCK_WAIT):
            before = run.read("evaluation/metrics.json").get("beside")
            if before and not evaluation.beside:  # what was measured beside it is still true
                evaluation = dataclasses.replace(evaluation, beside=before)
            behind = run.record.unlogged
            run.update(unlogged=run.record.tracked)  # until it is all there, whatever happens before
            figures.save_figures(run.path / "figures", draw(detector, test, scores, evaluation), run.record.name)
            write_tables(run.path / "evaluation", detector, test, scores, evaluation)
            tracker = Tracker(home, run.record.mlflow_run_id)
            tracker.log_results(run)
            settle(run, tracker, behind)
    except (RunBusy, StorageError) as error:
        say(f"warning: the evaluation is not kept with the run: {one_line(error)}")
