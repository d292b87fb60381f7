"""Setting a detector's threshold anew, without training it."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomaly_ae.calibration.conformal import DETECT, Calibration, threshold_that_finds
from anomaly_ae.calibration.drift import measure_drift
from anomaly_ae.calibration.odd import odd_normals
from anomaly_ae.calibration.rates import SMALLEST_RATE, smallest_rate
from anomaly_ae.config.run_config import CONDITIONAL, CROSS, MARGINAL, TAIL
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import MarksUsed
from anomaly_ae.errors import UsageError
from anomaly_ae.images.image_set import ImageSet, hash_rows
from anomaly_ae.metrics.ranking import best_f1, proportion_interval
from anomaly_ae.reporting.figures.saving import Drawing, write_figures
from anomaly_ae.reporting.run_figures import draw_odd_normals
from anomaly_ae.runs.lifecycle import finish_run, start_run
from anomaly_ae.runs.record import CALIBRATION, RunRecord
from anomaly_ae.runs.run_folder import CALIBRATION_SCORES, EXAMPLE, RunFolder
from anomaly_ae.runs.run_results import CalibrateResult, KnownAnomalies
from anomaly_ae.runs.store import LATEST, RunStore
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import write_csv, write_json
from anomaly_ae.tracking import calls
from anomaly_ae.tracking.run_logger import RunLogger, mark_dead_runs
from anomaly_ae.workflows.calibration_images import Anomalies, Normals, apart, find_anomalies, find_normals
from anomaly_ae.workflows.find_model import load_model
from anomaly_ae.workflows.marked import MarkedImages

# Images that the detector was trained on score low: from this share below that quantile on, it is worth a word
KNOWN_SHARE, LOW = 0.3, 0.1


def calibrate(
    model: str = LATEST,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    normal_folder: str | Path | None = None,
    anomaly_folder: str | Path | None = None,
    marks: str | Path | None = None,
    target_fpr: float | None = None,
    threshold: float | None = None,
    detect: float | None = None,
    guarantee: str | None = None,
    confidence: float | None = None,
    home: RunStore | None = None,
    tracking: bool = True,
    device: str = "auto",
) -> CalibrateResult:
    """Make a new detector of an old one, with the threshold that new normal images, rate or guarantee ask for.

    What is not said stays as it was, and so do the level of the anomaly map and the peaks that regions are compared
    with, whatever the images. Without new normal images the detector's own calibration scores stay. The new detector
    is kept in a run of its own, below the old one's.

    Args:
        model: the old detector, as `load` takes it
        dataset: another data set, whose classes with the same names are the normal images
        data_dir: where data sets lie; None: ANOMALY_AE_DATA_DIR, else ./data
        normal_folder: a folder below which all images are normal
        anomaly_folder: one of known anomalies, to say how many of them are found
        marks: a file of marks that people gave to images, which has both kinds, good and bad
        target_fpr: the false-alarm rate, above 0 and below 1
        threshold: one given instead of a rate; the normal images then say what rate it holds
        detect: the share of the anomalies, in (0, 1], that the threshold has to find, likewise
        guarantee: marginal, conditional, cross or tail
        confidence: of the guarantee conditional, above 0 and below 1
        home: where runs are kept; None: ANOMALY_AE_MLRUNS, else MLFLOW_TRACKING_URI, else ./mlruns
        tracking: whether the new run is logged to MLflow
        device: auto, cpu, cuda or mps

    Raises:
        UsageError: nothing is asked for, or the data set that the detector was trained on
        CalibrationError: there are too few images for the rate
        ModelNotFound: there is no such model
        ModelError: its training is not finished

    Examples:
        >>> import anomaly_ae
        >>> stricter = anomaly_ae.calibrate("latest", target_fpr=0.02)
        >>> stricter.threshold > stricter.threshold_before
        True
        >>> anomaly_ae.load(stricter.run_id)
        Detector('digits 0,1,2 · conv · aligned-knn', images=1×8×8, threshold=..., target_fpr=0.02, marginal)
    """
    home = home or RunStore.find()
    asked, chosen = (target_fpr, guarantee, confidence), (threshold, detect)
    if not (dataset or normal_folder or anomaly_folder or marks) and (*asked, *chosen) == (None,) * 5:
        raise UsageError(
            f"nothing to calibrate was given; name new normal images with {setting('normal_folder')}, "
            f"{setting('dataset')} or {setting('marks')}, another {setting('target_fpr')} or "
            f"{setting('guarantee')}, or a {setting('threshold')}"
        )
    if marks and (dataset or normal_folder or anomaly_folder):
        raise UsageError(
            f"{setting('marks')} say which images are normal and which are not; leave {setting('dataset')}, "
            f"{setting('normal_folder')} and {setting('anomaly_folder')} out"
        )
    _check_chosen(threshold, detect, asked, anomaly_folder or marks)
    mark_dead_runs(home)
    marked = MarkedImages(marks) if marks else None
    detector, parent = load_model(home, model, device)
    changes = detector.calibration.changes(*asked)
    normals = find_normals(detector, dataset, data_dir, normal_folder, marked)
    # What cannot be held is said before anomalies are scored
    detector.calibration.at(scores=normals.scores, names=normals.names, **changes)
    anomalies, known = None, find_anomalies(detector, anomaly_folder, marked)
    if known is not None:
        normals, known = apart(normals, known)
    calibration = detector.calibration.at(scores=normals.scores, names=normals.names, **changes)
    if threshold is not None:
        calibration = calibration.at_threshold(threshold)
    if known is not None:
        if detect is not None:
            calibration = calibration.at_threshold(threshold_that_finds(detect, known.scores), DETECT)
        anomalies = _measure_anomalies(calibration, known)
    new = dataclasses.replace(detector, calibration=calibration)
    if normals.images is not None:  # with which nothing is to be measured from now on
        new = dataclasses.replace(new, split=detector.split.with_copies(hash_rows(normals.images)))
    found = known.images if known is not None and detect is not None else None
    of_the_test = _measured_with(detector, {"normal": normals.images, "anomalous": found})
    doubts = [*_doubts(detector, new, normals, anomalies), *of_the_test]
    normals = dataclasses.replace(normals, differences=(*normals.differences, *doubts))
    return _keep(home, parent, detector, new, normals, anomalies, tracking, marked.used if marked else None)


def _check_chosen(
    threshold: float | None, detect: float | None, asked: tuple[Any, ...], anomaly_folder: str | Path | None
) -> None:
    """Raise `UsageError` where a threshold, a share to detect and a rate get in each other's way."""
    if detect is not None and not anomaly_folder:
        raise UsageError(
            f"{setting('detect')} is a share of known anomalies; name a folder of them with "
            f"{setting('anomaly_folder')}, or {setting('marks')} on them"
        )
    if threshold is not None and detect is not None:
        raise UsageError(
            f"{setting('threshold')} says what {setting('detect')} is to find out, and both were given; leave one of "
            "them out"
        )
    if (threshold, detect) != (None, None) and any(value is not None for value in asked):
        raise UsageError(
            f"a threshold is set by {setting('threshold')}, by {setting('detect')} or by a rate: leave out "
            f"{setting('target_fpr')}, {setting('guarantee')} and {setting('confidence')}, or the other"
        )


def _measure_anomalies(calibration: Calibration, known: Anomalies) -> KnownAnomalies:
    """How many known anomalies the threshold finds, and the threshold with the best F1 against calibration images.

    That threshold is chosen with these very anomalies and holds no rate; its figures are what it came to on them. So
    is one that was to detect a share of them: instead of an interval there is what is to be expected of new ones, of
    which any falls with the same probability between, below or above the known ones.
    """
    found, was_chosen = int((known.scores > calibration.threshold).sum()), calibration.guarantee == DETECT
    interval = None if was_chosen else list(proportion_interval(found, len(known.scores)))
    f1, threshold = best_f1(known.scores.numpy(), calibration.scores.numpy())
    return KnownAnomalies(
        folder=known.source,
        images=len(known.scores),
        median_score=float(known.scores.median()),
        unreadable=known.unreadable,
        detection_rate=found / len(known.scores),
        detection_rate_ci=interval,
        expected_detection_rate=found / (len(known.scores) + 1) if was_chosen else None,
        best_f1=f1,
        best_f1_threshold=threshold,
        best_f1_false_positive_rate=float((calibration.scores > threshold).float().mean()),
        best_f1_detection_rate=float((known.scores > threshold).float().mean()),
    )


def _doubts(old: Detector, new: Detector, normals: Normals, anomalies: KnownAnomalies | None) -> list[str]:
    """What speaks against the images that were given, or the threshold that they come to."""
    doubts = [odd.about] if (odd := odd_normals(new.calibration)) else []
    low = float((normals.scores < old.calibration.scores.quantile(LOW)).float().mean())
    if low > KNOWN_SHARE:
        doubts.append(
            f"{low:.0%} of the normal images score as low as {LOW:.0%} did before; if the detector was trained on "
            "them, the rate does not hold"
        )
    if anomalies and anomalies.median_score < float(normals.scores.median()):
        doubts.append("the anomalies score lower than the normal images; are the folders swapped?")
    return doubts


def _measured_with(detector: Detector, images: Mapping[str, Tensor | None]) -> list[str]:
    """That some of the images that set the threshold, (N, C, H, W) of each kind, are the run's own test images."""
    test = detector.split.test.hashes.cpu()
    counts = {kind: int(torch.isin(hash_rows(each), test).sum()) for kind, each in images.items() if each is not None}
    if not any(counts.values()):
        return []
    kinds = " and ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    are = "image that set the threshold is" if sum(counts.values()) == 1 else "images that set the threshold are"
    return [
        f"{kinds} {are} of the run's own test set, whose rates say little of new images then; evaluate it with others"
    ]


def _keep(
    home: RunStore,
    parent: RunFolder | None,
    old: Detector,
    new: Detector,
    normals: Normals,
    anomalies: KnownAnomalies | None,
    tracking: bool,
    marks: MarksUsed | None,
) -> CalibrateResult:
    """Keep the new detector in a run of its own."""
    trained_with = parent.config if parent else old.config
    config = dataclasses.replace(trained_with, target_fpr=new.calibration.target_fpr)
    name = f"calibration · {new.calibration.guarantee} · {new.calibration.target_fpr:g}"
    split = parent.split if parent else {"digest": "", "parts": old.split.summary()}
    files = {"config.json": config.to_dict(), "split.json": split}
    record = RunRecord.new(name, tracking, parent.record.id if parent else None)
    record = dataclasses.replace(record, kind=CALIBRATION, resume="the same anomaly-ae calibrate again")
    run_logger = RunLogger(home, None)
    with start_run(home, config.experiment, record, files, run_logger) as run:
        run_logger.tell(calls.log_start, run)
        result = dataclasses.replace(_result(run, old, new, normals, anomalies), marks=marks)
        new.save(run.path / "detector")
        if rows := new.calibration.by_file():
            write_csv(run.path / CALIBRATION_SCORES, rows)
        drawn = {"calibration": Drawing.of("distributions.calibration", new.calibration)}
        if normals.images is not None:
            no_labels = torch.zeros(len(normals.images), dtype=torch.int64)
            drawn |= draw_odd_normals(new, [ImageSet(normals.images, no_labels, normals.names)])
        write_figures(run.path / "figures", {name: each.draw() for name, each in drawn.items()}, record.name)
        write_json(run.path / "result.json", result.to_dict())
        if parent and (parent.path / EXAMPLE).exists():
            shutil.copy2(parent.path / EXAMPLE, run.path / EXAMPLE)
        finish_run(run, run_logger)
    return result


def _result(
    run: RunFolder, old: Detector, new: Detector, normals: Normals, anomalies: KnownAnomalies | None
) -> CalibrateResult:
    calibration, before = new.calibration, old.calibration
    moved = None if normals.scores is before.scores else measure_drift(calibration.scores, before.scores_by_group)
    return CalibrateResult(
        run_id=run.path.name,
        calibrated_on=normals.source,
        images=len(calibration.scores),
        unreadable=normals.unreadable,
        left_out=normals.left_out,
        guarantee=calibration.method,
        target_fpr=calibration.target_fpr,
        expected_fpr=calibration.expected_fpr,
        threshold=calibration.threshold,
        threshold_before=before.threshold,
        smallest_rates=smallest_rates(calibration),
        drift=moved,
        differences=list(normals.differences),
        odd_normals=odd_normals(calibration),
        anomalies=anomalies,
        run_folder=str(run.path),
        next=run.next_commands(),
    )


def smallest_rates(calibration: Calibration) -> dict[str, float]:
    """By guarantee, the smallest false-alarm rate that these images can hold; `tail` where one can be fitted."""
    count = calibration.fewest
    if calibration.folds:
        return {CROSS: smallest_rate(count, CROSS)}
    rates = {MARGINAL: smallest_rate(count), CONDITIONAL: smallest_rate(count, CONDITIONAL, calibration.confidence)}
    return rates | ({TAIL: SMALLEST_RATE} if calibration.can_have_tail else {})
