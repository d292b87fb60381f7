"""Measuring a model on the test images recorded with it."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anomaly_ae.datasets.catalogue import Data, normal_there, open_data
from anomaly_ae.datasets.copies import called_one_way
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.datasets.layout_texts import TO_MEASURE
from anomaly_ae.datasets.splits import Part
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import Evaluation, Missed, ScorerRow
from anomaly_ae.detector.experiment import say_what_prototypes_lack
from anomaly_ae.detector.fit import in_folds
from anomaly_ae.detector.measuring import (
    class_names,
    map_defects,
    measure,
    measure_discoveries,
    measure_scorers,
    novelty,
)
from anomaly_ae.detector.missed import ENOUGH_FOUND
from anomaly_ae.detector.outputs import DetectorOutputs
from anomaly_ae.errors import DataChanged, DataError, ModelError, RunBusy, StorageError, UsageError, one_line
from anomaly_ae.escaping import short_name, shown
from anomaly_ae.images.folder_words import ANOMALOUS_CLASS, NORMAL_CLASS, same_class, sense
from anomaly_ae.images.image_set import ImageSet, hash_rows
from anomaly_ae.reporting.figures.painter import finish_figures, save_figures
from anomaly_ae.reporting.run_figures import draw_evaluation
from anomaly_ae.runs.lifecycle import LOCK_WAIT
from anomaly_ae.runs.run_folder import FIGURES, RunFolder
from anomaly_ae.runs.store import LATEST, RunStore
from anomaly_ae.runtime.messages import logger, report_skipped
from anomaly_ae.runtime.printed import to_dict
from anomaly_ae.runtime.progress import stage
from anomaly_ae.runtime.renamed import renamed_arguments
from anomaly_ae.runtime.spelling import from_here, setting
from anomaly_ae.scorers import SCORERS, build_scorer
from anomaly_ae.storage.atomic import sha256, write_csv, write_json
from anomaly_ae.tracking import calls
from anomaly_ae.tracking.run_logger import RunLogger, mark_dead_runs, sync_pending
from anomaly_ae.workflows.find_model import load_model
from anomaly_ae.workflows.marked import MarkedImages
from anomaly_ae.workflows.new_pictures import ALL_KNOWN, new_normals

if TYPE_CHECKING:
    from anomaly_ae.reporting.figures.saving import Drawing

ALL = "all"  # scorers
KEPT_LETTERS = 60  # letters, so that any file system takes it
OWN = Path("evaluation")  # where the evaluation on the test images of a run's own is kept


@renamed_arguments(beside="compare_scorers")
def evaluate(
    model: str = LATEST,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    marks: str | Path | None = None,
    target_fpr: float | None = None,
    guarantee: str | None = None,
    confidence: float | None = None,
    fdr: float | None = None,
    compare_scorers: Sequence[str] = (),
    home: RunStore | None = None,
    device: str = "auto",
    figures: bool = True,
    tell: Callable[[Evaluation], object] = lambda _: None,
) -> Evaluation:
    """Measure a detector on the test images recorded with it, or on those of another data set.

    The run that trained it gets the figures, tables and metrics, unless rate, guarantee or confidence are others than
    its own.

    Args:
        model: the detector, as `load` takes it
        dataset: another folder or manifest of labelled pictures, or data set; that of the training, if it has moved
        data_dir: where data sets lie; None: where they lay in the training
        marks: a file of marks that people gave to images, good or bad, which are measured on instead
        target_fpr: another false-alarm rate, above 0 and below 1
        guarantee: another one: marginal, conditional, cross or tail
        confidence: another one of the guarantee conditional, above 0 and below 1
        fdr: a false discovery rate, at which to look for the anomalies among all test images together
        compare_scorers: other scorers to measure on the same network and images; `all` are those that suit it
        home: where runs are kept; None: ANOMALY_AE_MLRUNS, else MLFLOW_TRACKING_URI, else ./mlruns
        device: auto, cpu, cuda or mps
        figures: whether any are drawn
        tell: is told what was measured, before it is drawn and kept

    Raises:
        DataChanged: the data no longer match the record
        CalibrationError: there are too few calibration images for the rate
        UsageError: it cannot be known what is normal in another data set
        ModelNotFound: there is no such model
        ModelError: its training is not finished

    Examples:
        >>> import anomaly_ae
        >>> evaluation = anomaly_ae.evaluate("latest")
        >>> evaluation.auroc > 0.9
        True
        >>> print(evaluation)
        digits: normal 0, 1, 2 · 1,367 test images · scorer aligned-knn
        ...
    """
    home = home or RunStore.find()
    others = tuple(dict.fromkeys(name.strip() for name in compare_scorers))
    for name in others:
        if name != ALL:
            build_scorer(name)  # a wrong name is said before anything is measured
    if marks and dataset:
        raise UsageError(f"{setting('marks')} and {setting('dataset')} both say what to measure on; leave one out")
    mark_dead_runs(home)
    marked = MarkedImages(marks) if marks else None
    loaded, run = load_model(home, model, device)
    own_dir = run.data_dir() if run else None
    data: Data | None = None
    with stage("reading the test images"):
        if marked:
            recorded = None
            detector, test = marked.as_test(loaded)
        else:
            data = open_data(dataset or loaded.config.dataset, data_dir or own_dir)
            recorded = _recorded(loaded, data)
            detector, test = (loaded, recorded) if recorded else _others_test(loaded, data)
    if others:
        own_data = data if data and recorded else open_data(loaded.config.dataset, own_dir)
        parts = {part: loaded.take(part, own_data) for part in ("fit", "validation", "calibration")}
        parts = in_folds(parts) if loaded.config.folds else parts
    own = detector.calibration
    calibration = own.as_asked(target_fpr, guarantee, confidence)
    if fdr is not None:
        calibration.check_discoveries(fdr)
    detector = dataclasses.replace(detector, calibration=calibration)
    masks = data.masks(test.names or (), detector.preprocessing) if data else None
    with stage(f"scoring {len(test.images):,} test images"):
        outputs = DetectorOutputs.of(detector, test.images, keep=figures or masks is not None)
    mapped = None if masks is None else map_defects(outputs, test, *masks)
    evaluation = measure(outputs, test, run.record.id if run else None, mapped)
    if evaluation.missed:
        name, again = run.path.name[:8] if run else model, {"guarantee": guarantee, "confidence": confidence}
        known: dict[str, object] = {"marks": marks} if marks else {"anomaly_folder": "FOLDER"}
        missed = _with_command(evaluation.missed, partial(home.command, "calibrate", name), known, again)
        evaluation = dataclasses.replace(evaluation, missed=missed)
    if others:
        names = _others(detector, others)
        say_what_prototypes_lack(names, str(detector.config.autoencoder))
        with stage("measuring the other scorers"):
            rows = measure_scorers(detector, names, parts, test, outputs.scores, mapped)
        evaluation = dataclasses.replace(evaluation, beside=rows)
    found = None if fdr is None else measure_discoveries(detector, test, outputs.scores, fdr)
    whole = dataclasses.replace(evaluation, discoveries=found, marks=marked.used if marked else None)
    tell(whole)
    if run and calibration is own:
        folder = OWN if recorded else Path("evaluations", _kept_name(str(detector.config.dataset)))
        drawn = partial(draw_evaluation, outputs, test, mapped=mapped) if figures else None
        _keep(home, run, folder, detector, test, outputs.scores, evaluation, drawn)
    return whole


def _kept_name(data: str) -> str:
    """What the evaluation on other data is kept as: readable, and of a file or folder unlike any other's."""
    name = short_name(data)
    return name if name == data else f"{name[:KEPT_LETTERS]}-{sha256(os.fsencode(data))[:8]}"


def _with_command(
    missed: Missed, calibrate: Callable[..., str], known: Mapping[str, object], again: Mapping[str, object]
) -> Missed:
    """The same with the command that sets a threshold which finds them: by its rate, or by themselves."""
    if missed.target_fpr is None:
        return dataclasses.replace(missed, command=calibrate(**known, detect=ENOUGH_FOUND))
    return dataclasses.replace(missed, command=calibrate(target_fpr=missed.target_fpr, **again))


def _recorded(detector: Detector, data: Data) -> ImageSet | None:
    """The test images recorded with the detector, if `data` are those it was trained on, perhaps at another place.

    Raises `DataChanged` when that data set no longer holds them.
    """
    try:
        return detector.take("test", data)
    except DataChanged:
        if data.name == detector.config.dataset:
            raise
        return None


def _others_test(detector: Detector, data: Data) -> tuple[Detector, ImageSet]:
    """A detector that knows the classes of another data set, and all images of that, or those of its test part.

    Raises `UsageError` when it cannot be known what is normal in it.
    """
    is_bad = False
    if isinstance(data, PictureData) and data.says_bad:
        data = data.as_one()
        name, is_bad = data.classes[0], len(data.classes) == 1
        taken = {same_class(each) for each in (NORMAL_CLASS, ANOMALOUS_CLASS, *detector.normal)}
        if is_bad and (sense(name) > 0 or same_class(name) in taken):  # which says nothing of them, or the contrary
            data = data.renamed(short_name(data.name))
    normal = () if is_bad else normal_there(detector.normal, detector.classes, data)
    if isinstance(data, PictureData):
        logger.info(data.describe([data.classes.index(name) for name in normal], TO_MEASURE))
    dataset = data.load(detector.preprocessing)
    normal = normal or detector.normal  # without any image, where all are anomalous
    classes = data.classes + tuple(name for name in normal if name not in data.classes)
    config = dataclasses.replace(detector.config, dataset=data.name)
    there = dataclasses.replace(detector, config=config, classes=classes, normal=normal)
    file = "test" if "test" in dataset.files else "train"
    images = detector.preprocessing.prepare_set(dataset.files[file], dataset)
    unseen = detector.unseen(images.images)
    report_skipped(dataset.left_out)
    if isinstance(data, PictureData):
        is_normal = torch.isin(images.labels[unseen], torch.tensor(there.normal_indices))
        clear = called_one_way(hash_rows(images.images)[unseen], is_normal)
        unseen, is_normal = unseen[clear], is_normal[clear]
        normals = new_normals(detector, images.images, unseen[is_normal])
        unseen = torch.cat([normals, unseen[~is_normal]]).sort().values
        if not len(unseen):
            raise DataError(ALL_KNOWN)
    test = images.take(unseen)
    part = Part(file, unseen, test.digest(data.classes), test.hashes(), test.names)
    split = dataclasses.replace(detector.split, test=part)
    return dataclasses.replace(there, split=split), test


def _others(detector: Detector, asked: Sequence[str]) -> list[str]:
    """The scorers to measure beside the detector's own."""
    if ALL in asked:
        asked = [name for name in SCORERS if _suits(detector, name)]
    return [name for name in asked if name != detector.config.scorer]


def _suits(detector: Detector, name: str) -> bool:
    """Whether the detector's network has what a scorer needs."""
    image = torch.zeros(1, *detector.preprocessing.shape, device=next(detector.network.parameters()).device)
    try:
        outputs = detector.network(image)
        build_scorer(name).check(outputs.members[0] if outputs.members else outputs)
    except UsageError:
        return False
    return True


def _measured_before(run: RunFolder) -> list[ScorerRow]:
    """What was measured beside the detector's own scorer; nothing where that is damaged, for it is written anew."""
    try:
        return [ScorerRow.read(row) for row in run.read(f"{OWN}/metrics.json").get("beside") or []]
    except ModelError:
        return []


def _keep(
    home: RunStore,
    run: RunFolder,
    folder: Path,
    detector: Detector,
    test: ImageSet,
    scores: Tensor,
    evaluation: Evaluation,
    drawn: "Callable[[Evaluation], dict[str, Drawing]] | None",
) -> None:
    """Put what was measured into `folder` of the run and into MLflow; what cannot be kept is said, not raised."""
    place = run.path / (FIGURES if folder == OWN else folder)
    try:
        with run.lock(wait=LOCK_WAIT):
            if folder == OWN and not evaluation.beside:  # what was measured on the same images is still true
                evaluation = dataclasses.replace(evaluation, beside=_measured_before(run))
            behind = run.record.unlogged
            run.update(unlogged=run.record.tracked)  # until it is all there, whatever happens before
            if drawn:
                with stage("drawing the figures"):
                    save_figures(place, drawn(evaluation), run.record.name)
            _write_tables(run.path / folder, detector, test, scores, evaluation)
            run_logger = RunLogger(home, run.record.mlflow_run_id)
            if drawn:
                with stage("drawing the figures"):
                    finish_figures()
            with stage("logging to MLflow"):
                run_logger.tell(calls.log_results, run)
                sync_pending(run, run_logger, behind)
            places = dict.fromkeys((place, run.path / folder) if drawn else (run.path / folder,))
            kept = "figures and tables" if drawn else "tables"
            logger.info(f"{kept} are in {' and '.join(map(from_here, places))}")
    except (RunBusy, StorageError) as error:
        logger.warning(f"the evaluation is not kept with the run: {one_line(error)}")


def _write_tables(folder: Path, detector: Detector, test: ImageSet, scores: Tensor, evaluation: Evaluation) -> None:
    """Write what was measured as JSON and CSV, and the score of every test image."""
    whole = evaluation.to_dict()
    single = {key: value for key, value in whole.items() if not isinstance(value, list)}
    columns = {
        "index": list(range(len(test))) if test.names else detector.split.test.indices.tolist(),
        **({"path": [shown(name) for name in test.names]} if test.names else {}),
        "class": class_names(detector, test),
        "is_novel": novelty(detector, test).tolist(),
        "score": scores.tolist(),
        "p_value": detector.p_values(scores).tolist(),
        "guarantee": [detector.calibration.guarantee] * len(test),
        "is_anomaly": (scores > detector.threshold).tolist(),
    }
    write_csv(folder / "metrics.csv", [{"metric": key, "value": value} for key, value in single.items()])
    write_csv(folder / "per_class.csv", list(map(to_dict, evaluation.per_class)))
    if evaluation.beside:
        write_csv(folder / "beside.csv", list(map(to_dict, evaluation.beside)))
    rows = zip(*columns.values(), strict=True)
    write_csv(folder / "scores.csv", [dict(zip(columns, row, strict=True)) for row in rows])
    write_json(folder / "metrics.json", whole)  # last: where it is, everything is
