"""Training a detector: network, scorer, calibration."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from anomaly_ae.autoencoders import parameter_count
from anomaly_ae.autoencoders.inference import pick_device
from anomaly_ae.autoencoders.network_files import save_parts
from anomaly_ae.calibration.odd import odd_normals
from anomaly_ae.calibration.rates import smallest_rate
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.catalogue import whole_name
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import fit
from anomaly_ae.detector.measuring import mse_and_latents, reconstruction_mse
from anomaly_ae.detector.serialization import check_target
from anomaly_ae.errors import DataChanged, UsageError
from anomaly_ae.escaping import short_name
from anomaly_ae.reporting.figures.painter import finish_figures
from anomaly_ae.reporting.figures.saving import as_pixels, save_image
from anomaly_ae.reporting.run_figures import (
    DRAWN_FROM,
    reconstruct,
    save_samples,
    save_training_figures,
    shown_images,
)
from anomaly_ae.runs.lifecycle import finish_run, run_status, start_run
from anomaly_ae.runs.record import FINISHED, RUNNING, TRAINING, RunRecord
from anomaly_ae.runs.run_folder import CALIBRATION_SCORES, EXAMPLE, RunFolder, conflicts
from anomaly_ae.runs.run_results import TrainResult
from anomaly_ae.runs.store import LATEST, RunStore
from anomaly_ae.runtime.progress import stage
from anomaly_ae.runtime.torch_state import left_as_found
from anomaly_ae.storage.atomic import expand, storage_errors, write_bytes, write_csv, write_json, write_with
from anomaly_ae.storage.pixel_values import as_float
from anomaly_ae.tracking import calls
from anomaly_ae.tracking.run_logger import RunLogger, mark_dead_runs
from anomaly_ae.tracking.training_logger import TrainingLogger
from anomaly_ae.workflows.find_model import find_run, has_detector
from anomaly_ae.workflows.more_normals import MARKS_FILE, config_from, require_own_settings, with_own_marks
from anomaly_ae.workflows.resolve import TrainingData, resolve
from anomaly_ae.workflows.training_callbacks import Progress, RunRecorder

BRIEFLY = 2.0  # seconds to wait for another command that only looks at a run


@dataclass(frozen=True)
class CellPosition:
    """Where a training stands in a pipeline: its cell there, and the run whose network it takes over, if any."""

    parent: RunFolder
    cell: str
    weights: RunFolder | None = None


@left_as_found()
def train(
    config: RunConfig,
    *,
    home: RunStore | None = None,
    save_to: str | Path | None = None,
    tracking: bool = True,
    figures: bool = True,
    place: CellPosition | None = None,
) -> TrainResult:
    """Train a detector: network, scorer, calibration. Everything is kept in the run folder and in MLflow.

    Args:
        config: the settings
        home: where runs are kept; None: ANOMALY_AE_MLRUNS, else MLFLOW_TRACKING_URI, else ./mlruns
        save_to: a folder that gets a copy of the detector
        tracking: whether the run is logged to MLflow
        figures: whether any are drawn; `anomaly-ae figures` draws them later
        place: where the training stands in a pipeline; None: in none

    Raises:
        UsageError: the settings do not go together, or not with the data
        DataError: the data are missing or damaged
        CalibrationError: there are too few images for the false-alarm rate
        TrainingError: training cannot go on
        Interrupted: on Ctrl-C; the run can then be resumed

    Examples:
        >>> from anomaly_ae import RunConfig, train
        >>> result = train(RunConfig(normal="0,1,2", epochs=2))
        >>> result.epochs, result.target_fpr
        (2, 0.05)
        >>> print(result)
        run           ...
        trained       2 epochs in ...
    """
    home = home or RunStore.find()
    mark_dead_runs(home)
    begun: Mapping[str, Any] = {}
    if config.from_run:
        other = find_run(home, config.from_run)
        require_own_settings(other, config)
        begun = other.split
    with stage("reading the images"):
        experiment, data = resolve(config, home, begun)
    if save_to:
        check_target(expand(save_to).resolve())
    used = experiment.config
    name = place.cell if place else f"{short_name(used.dataset)} {used.normal} · {used.autoencoder} · {used.scorer}"
    name += f" · from {used.from_run[:8]}" if used.from_run else ""
    record = dataclasses.replace(
        RunRecord.new(name, tracking, place.parent.record.id if place else None),
        device=str(experiment.device),
        parameters=parameter_count(experiment.network),
        threads=torch.get_num_threads(),
    )
    files = {"config.json": used.to_dict(), "split.json": data.record}
    run_logger = RunLogger(home, None)
    with start_run(home, used.experiment, record, files, run_logger) as run:
        if data.marks:  # as they were read, for others go on marking, and whoever resumes needs these
            write_bytes(run.path / MARKS_FILE, data.marks)
        if place and place.weights and place.weights.split["parts"] == data.record["parts"]:
            _take_over(place.weights, run)
        run_logger.tell(calls.log_start, run)
        return _train(experiment, data, run, run_logger, save_to, figures)


def train_from(
    name: str,
    marks: str | Path,
    asked: Sequence[Mapping[str, Any]] = (),
    *,
    home: RunStore | None = None,
    save_to: str | Path | None = None,
    tracking: bool = True,
    figures: bool = True,
) -> TrainResult:
    """Go on from a trained run with more normal images, those marked as good in a file.

    Half of them are to learn from, half for the threshold. That is a new run, which begins with the weights of the
    other one.

    Args:
        name: of the run: its id or the unique beginning of it, `latest`, `models:/name@alias`
        marks: the file of marks
        asked: layers of settings over those of the run, the later ones over the earlier
        home: where runs are kept; None: ANOMALY_AE_MLRUNS, else MLFLOW_TRACKING_URI, else ./mlruns
        save_to: a folder that gets a copy of the detector
        tracking: whether the run is logged to MLflow
        figures: whether any are drawn

    Raises:
        ModelNotFound: there is no such run
        DataMissing: nothing is marked good
        UsageError: the settings need another network or other data

    Examples:
        >>> from anomaly_ae import train_from
        >>> result = train_from("latest", "scores.parquet.marks.jsonl", [{"epochs": 1}])
        >>> result.calibration_images  # the 108 of the other run, and 5 of 10 that were marked
        113
    """
    home = home or RunStore.find()
    config = config_from(find_run(home, name), marks, asked)
    return train(config, home=home, save_to=save_to, tracking=tracking, figures=figures)


def _take_over(other: RunFolder, run: RunFolder) -> None:
    """Give a run the finished training of another, that differs in scorer or target rate alone."""
    with storage_errors(f"copy a checkpoint to {run.path}"):
        write_with(run.checkpoint, partial(shutil.copyfile, other.checkpoint))
        shutil.copytree(other.path / "images", run.path / "images")


@left_as_found()
def resume(
    name: str,
    asked: Sequence[Mapping[str, Any]] = (),
    *,
    home: RunStore | None = None,
    save_to: str | Path | None = None,
    figures: bool = True,
) -> TrainResult:
    """Go on with the interrupted run `name`, to the same end as if it had not been interrupted.

    asked: layers of settings; any that differs from the run's own, but for `data_dir`, is a `UsageError`.
    """
    home = home or RunStore.find()
    mark_dead_runs(home)
    run = home.latest_unfinished() if name == LATEST else home.find_run(name)
    if run.record.kind != TRAINING:
        raise UsageError(f"run {run.record.id} is that of a {run.record.kind}; go on with it: {run.resume}")
    torch.set_num_threads(run.record.threads or torch.get_num_threads())
    config = RunConfig.build(run.config.to_dict(), *asked)
    config = dataclasses.replace(config, dataset=whole_name(config.dataset, config.data_dir))
    if str(pick_device(config.device)) == run.record.device:  # auto and cpu may be the same
        config = dataclasses.replace(config, device=run.config.device)
    if clashes := conflicts(run.config, config):
        raise UsageError(f"run {run.record.id} cannot be resumed with other settings: {'; '.join(clashes)}")
    with run.lock(wait=BRIEFLY):
        record = run.record
        if record.status == FINISHED and has_detector(run):
            raise UsageError(f"run {record.id} is finished; there is nothing to resume")
        if save_to:
            check_target(expand(save_to).resolve())
        with stage("reading the images"):
            experiment, data = resolve(with_own_marks(config, run), home, run.split)
        if any(data.record[key] != run.split.get(key) for key in ("digest", "parts")):
            raise DataChanged(f"the data are not those that run {record.id} was started with; use that data")
        run_logger = RunLogger(home, record.mlflow_run_id)
        with run_status(run, run_logger):
            run.write_start(experiment.config, data.record)
            run.update(status=RUNNING, unlogged=record.tracked)
            run_logger.set_status(RUNNING)
            return _train(experiment, data, run, run_logger, save_to, figures, behind=record.unlogged)


def _train(
    experiment: Experiment,
    data: TrainingData,
    run: RunFolder,
    run_logger: RunLogger,
    save_to: str | Path | None,
    figures: bool,
    behind: bool = False,
) -> TrainResult:
    """Make the detector, draw, and mirror it all to MLflow.

    behind: whether MLflow lacked something before
    """
    config, images = experiment.config, data.images
    untrained = reconstruct(experiment.network, shown_images(images["validation"]))
    callbacks = (
        RunRecorder(run, experiment, images),
        TrainingLogger(run, run_logger),
        Progress(run, experiment, images),
    )
    detector = fit(experiment, images, data.split, callbacks)
    detector.save(run.path / "detector")
    if rows := detector.calibration.by_file():
        write_csv(run.path / CALIBRATION_SCORES, rows)
    save_image(run.path / EXAMPLE, as_pixels(as_float(images["validation"].images[0]).numpy()))
    save_parts(run.path / "network", detector.network, str(config.autoencoder), detector.preprocessing.shape, config)
    if figures:
        with stage("drawing the figures"):
            save_training_figures(run, detector, images, untrained)
    with stage("measuring the reconstructions of the training images"):
        train_mse, latents = mse_and_latents(detector, images["fit"].images, DRAWN_FROM if figures else 0)
        validation_mse = reconstruction_mse(detector, images["validation"].images)
    if figures:
        with stage("finishing the figures"):
            save_samples(run, detector, latents)
            finish_figures()
    result = _result(detector, experiment, run, train_mse, validation_mse)
    write_json(run.path / "result.json", result.to_dict())
    finish_run(run, run_logger, behind=behind)
    if save_to:
        detector.save(save_to)
    return result


def _result(
    detector: Detector, experiment: Experiment, run: RunFolder, train_mse: float, validation_mse: float
) -> TrainResult:
    history, odd = run.history(), odd_normals(detector.calibration)
    best = min(history, key=lambda epoch: epoch.validation_loss)
    encoder, decoder = detector.network.parameter_counts()
    seconds = sum(epoch.seconds for epoch in history)
    return TrainResult(
        run_id=run.record.id,
        epochs=len(history),
        best_epoch=best.epoch,
        train_seconds=seconds,
        images_per_second=sum(epoch.images_per_second * epoch.seconds for epoch in history) / seconds,
        final_loss=history[-1].train_loss,
        validation_loss=best.validation_loss,
        train_mse=train_mse,
        validation_mse=validation_mse,
        parameters=encoder + decoder,
        encoder_parameters=encoder,
        decoder_parameters=decoder,
        span=detector.network.span,
        scorer=str(detector.config.scorer),
        threshold=detector.threshold,
        target_fpr=detector.calibration.target_fpr,
        calibration_images=len(detector.calibration.scores),
        guarantee=detector.calibration.method,
        proven_fpr=detector.calibration.proven_fpr,
        smallest_rate=smallest_rate(detector.calibration.fewest, detector.calibration.guarantee),
        threshold_warning=odd.about if odd else None,
        odd_normals=odd,
        device=str(experiment.device),
        run_folder=str(run.path),
        next=run.next_commands(),
        precision=detector.config.precision,
    )
