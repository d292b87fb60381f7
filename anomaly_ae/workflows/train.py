"""Training a detector: network, scorer, calibration."""

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomaly_ae.autoencoders.inference import as_float, pick_device
from anomaly_ae.autoencoders.network_files import save_parts
from anomaly_ae.calibration.conformal import smallest_rate
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.catalogue import whole_name
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import reconstruction_mse
from anomaly_ae.detector.fit import fit_detector
from anomaly_ae.errors import DataChanged, UsageError
from anomaly_ae.escaping import counted, printable, short_name
from anomaly_ae.reporting import text
from anomaly_ae.reporting.figures.saving import as_pixels, save_image
from anomaly_ae.reporting.run_figures import reconstruction_grid, save_training_figures
from anomaly_ae.runs.record import FINISHED, RUNNING, TRAINING, RunRecord
from anomaly_ae.runs.store import CALIBRATION_SCORES, EXAMPLE, LATEST, RunFolder, RunStore, conflicts
from anomaly_ae.runtime.progress import display, say, stage
from anomaly_ae.runtime.torch_state import left_as_found, spinning
from anomaly_ae.storage.atomic import storage_errors, write_csv, write_json, write_with
from anomaly_ae.tracking.run_logger import RunLogger, mark_dead_runs
from anomaly_ae.training import Epoch, Training, earlier, epoch_count, train_epochs
from anomaly_ae.workflows.experiment import Experiment
from anomaly_ae.workflows.find_model import has_detector
from anomaly_ae.workflows.lifecycle import finish_run, run_status, start_run

BRIEFLY = 2.0  # seconds to wait for another command that only looks at a run
KEEP_EVERY = 5.0  # seconds between checkpoints
GRIDS = 8  # reconstruction grids of a training, about


@dataclass(frozen=True)
class TrainResult(text.Printed):
    """What a training came to.

    Losses are by the objective, the validation loss that of the best epoch, whose weights are kept. `train_mse` and
    `validation_mse` are the mean squared reconstruction errors of those weights, of images in [0, 1]; on the scale
    that the network works on inside they are `span`² times as large. `smallest_rate` is the smallest false-alarm
    rate that so many calibration images can hold; `threshold_warning` says if one of them alone sets it.
    """

    _text = staticmethod(text.trained)

    run_id: str
    epochs: int
    best_epoch: int
    train_seconds: float
    images_per_second: float
    final_loss: float
    validation_loss: float
    train_mse: float
    validation_mse: float
    parameters: int
    encoder_parameters: int
    decoder_parameters: int
    span: float
    scorer: str
    threshold: float
    target_fpr: float
    calibration_images: int
    smallest_rate: float
    threshold_warning: str | None
    device: str
    run_folder: str
    next: list[str]  # commands that one may want now


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

    save_to: a folder that gets a copy of the detector. figures: whether any are drawn; `draw_again` draws them later.
    Raises `AnomalyAEError` of many kinds, `Interrupted` on Ctrl-C; the run can then be resumed.
    """
    home = home or RunStore.find()
    mark_dead_runs(home)
    with stage("reading the images"):
        job = Experiment.prepare(config, home, save_to)
    used = job.config
    name = place.cell if place else f"{short_name(used.dataset)} {used.normal} · {used.autoencoder} · {used.scorer}"
    parent = place.parent if place else None
    files = {"config.json": used.to_dict(), "split.json": job.split_record}
    record = RunRecord.new(name, tracking, parent.record.id if parent else None)
    device, threads = str(job.device), torch.get_num_threads()
    record = dataclasses.replace(record, device=device, parameters=job.parameters, threads=threads)
    with start_run(home, config.experiment, record, files) as (run, tracker):
        if place and place.weights and place.weights.split["parts"] == job.split_record["parts"]:
            _take_over(place.weights, run)
        tracker.log_start(run)
        return _train(job, run, tracker, figures)


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
        with stage("reading the images"):
            job = Experiment.prepare(config, home, save_to, run.split)
        if any(job.split_record[key] != run.split.get(key) for key in ("digest", "parts")):
            raise DataChanged(f"the data are not those that run {record.id} was started with; use that data")
        tracker = RunLogger(home, record.mlflow_run_id)
        with run_status(run, tracker):
            run.write_start(job.config, job.split_record)
            run.update(status=RUNNING, unlogged=record.tracked)
            tracker.set_status(RUNNING)
            return _train(job, run, tracker, figures, behind=record.unlogged)


def _train(job: Experiment, run: RunFolder, tracker: RunLogger, figures: bool, behind: bool = False) -> TrainResult:
    """Train, make the detector, draw, and mirror it all to MLflow.

    behind: whether MLflow lacked something before
    """
    training = _fit(job, run, tracker)
    fitting = (job.recipe, job.preprocessing, training.best, job.images, job.split, job.config.target_fpr, job.device)
    with stage(f"fitting the scorer {job.recipe.scorer}, and calibrating"):
        detector = fit_detector(*fitting)
    detector.save(run.path / "detector")
    if rows := detector.calibration.by_file():
        write_csv(run.path / CALIBRATION_SCORES, rows)
    save_image(run.path / EXAMPLE, as_pixels(as_float(job.images["validation"].images[0]).numpy()))
    recipe, shape = detector.recipe, detector.preprocessing.shape
    save_parts(run.path / "network", detector.network, recipe.autoencoder, shape, recipe.options)
    if figures:
        with stage("drawing the figures"):
            save_training_figures(run, training.history, detector, job)
    with stage("measuring the reconstructions of the training images"):
        result = _result(training, detector, job, run)
    write_json(run.path / "result.json", result.to_dict())
    finish_run(run, tracker, behind=behind)
    if job.save_to:
        detector.save(job.save_to)
    return result


def _fit(job: Experiment, run: RunFolder, tracker: RunLogger) -> Training:
    """Train the network, from the checkpoint if there is one."""
    config, fit, validation = job.config, job.images["fit"].images, job.images["validation"].images
    torch.manual_seed(config.seed)
    training = Training(job.recipe.build(job.preprocessing.shape).to(job.device), config)
    if training.load(run.checkpoint):
        run.write_history(training.history)
        tracker.log_missing(run)
        say(f"run {run.record.id} goes on after epoch {len(training.history)}")
    else:
        _log_grid(training, validation, 0, run, tracker)
    total = epoch_count(config, len(fit))
    data = f"{short_name(job.recipe.dataset)} {printable(config.normal)}"
    say(f"run {run.record.id}: {counted(len(fit), 'image')} of {data} on {job.device}")
    if job.device.type == "cpu" and (warning := spinning()):
        say(warning)
    shown_before = len(training.history) * len(fit)
    with display(total * len(fit), shown_before) as shown, _kept(training, run, tracker) as keep:
        for epoch in train_epochs(training, job.objective, fit, validation, shown):
            keep(epoch)
            if epoch.epoch == 1 or epoch.epoch % max(1, total // GRIDS) == 0:
                _log_grid(training, validation, epoch.epoch, run, tracker)
            shown.line(
                f"epoch {epoch.epoch}/{total} · loss {epoch.train_loss:.5f} · validation loss "
                f"{epoch.validation_loss:.5f} · {epoch.images_per_second:,.0f} images/s",
                last=epoch.epoch == total or training.stops_early(total),
            )
    return training


@contextmanager
def _kept(training: Training, run: RunFolder, tracker: RunLogger) -> Iterator[Callable[[Epoch], None]]:
    """Keeps a training in its folder and in MLflow: now and then, of the epochs that it is told of, and at the end,
    however it ends. A kill loses `KEEP_EVERY` seconds and the epoch it was in.
    """
    snapshot, waiting, kept_at = training.snapshot(), list[Epoch](), -math.inf

    def write() -> None:
        snapshot.save(run.checkpoint)
        run.write_history(snapshot.history)

    def keep(epoch: Epoch) -> None:
        nonlocal snapshot, waiting, kept_at
        snapshot = training.snapshot()
        waiting.append(epoch)
        if time.monotonic() - kept_at >= KEEP_EVERY:
            write()
            told, waiting = waiting, []
            tracker.log_epochs(told)
            kept_at = time.monotonic()

    try:
        yield keep
    except BaseException:
        if snapshot.history:
            write()
            tracker.log_missing(run)
        raise
    write()
    tracker.log_epochs(waiting)
    earlier(run.checkpoint).unlink(missing_ok=True)


def _log_grid(training: Training, validation: Tensor, epoch: int, run: RunFolder, tracker: RunLogger) -> None:
    """Keep what the network makes of some validation images after this epoch; epoch 0 is before training."""
    path = run.path / "images" / f"epoch-{epoch:05}.png"
    save_image(path, reconstruction_grid(training, validation))
    tracker.log_grid(path)


def _result(training: Training, detector: Detector, job: Experiment, run: RunFolder) -> TrainResult:
    history = training.history
    seconds = sum(epoch.seconds for epoch in history)
    encoder, decoder = detector.network.parameter_counts()
    return TrainResult(
        run_id=run.record.id,
        epochs=len(history),
        best_epoch=training.best_epoch.epoch,
        train_seconds=seconds,
        images_per_second=sum(epoch.images_per_second * epoch.seconds for epoch in history) / seconds,
        final_loss=history[-1].train_loss,
        validation_loss=training.best_epoch.validation_loss,
        train_mse=reconstruction_mse(detector, job.images["fit"].images),
        validation_mse=reconstruction_mse(detector, job.images["validation"].images),
        parameters=job.parameters,
        encoder_parameters=encoder,
        decoder_parameters=decoder,
        span=detector.network.span,
        scorer=detector.recipe.scorer,
        threshold=detector.threshold,
        target_fpr=detector.calibration.target_fpr,
        calibration_images=len(detector.calibration.scores),
        smallest_rate=smallest_rate(len(detector.calibration.scores)),
        threshold_warning=detector.calibration.warning,
        device=str(job.device),
        run_folder=str(run.path),
        next=run.next_commands(),
    )
