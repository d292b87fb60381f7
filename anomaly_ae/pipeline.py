"""The stages in order: train, resume, evaluate."""

import dataclasses
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from anomaly_ae import figures
from anomaly_ae.autoencoders import build_autoencoder, find_autoencoder
from anomaly_ae.autoencoders.inference import as_float, map_images, pick_device
from anomaly_ae.calibration import require_enough
from anomaly_ae.config import RunConfig
from anomaly_ae.data.classes import parse_normal
from anomaly_ae.data.images import ImageSet
from anomaly_ae.data.named import data_root, find_dataset, load_dataset
from anomaly_ae.data.preprocessing import Preprocessing
from anomaly_ae.data.splits import PARTS, Split, split_dataset
from anomaly_ae.detector import Detector, Recipe, check_target, fit_detector
from anomaly_ae.errors import DataChanged, Interrupted, ModelNotFound, RunBusy, StorageError, UsageError, one_line
from anomaly_ae.evaluation import Evaluation, draw, measure, write_tables
from anomaly_ae.figures import Array
from anomaly_ae.files import expand, storage_errors, write_json
from anomaly_ae.objectives import Objective, find_objective
from anomaly_ae.progress import display, say
from anomaly_ae.runs import FAILED, FINISHED, KILLED, LATEST, RUNNING, Home, Record, RunFolder, conflicts, now
from anomaly_ae.scorers import build_scorer
from anomaly_ae.tracking.mirror import Tracker, fetch_run, mark_dead_runs, upload
from anomaly_ae.training import Training, epoch_count, train_epochs

GRIDS = 8  # reconstruction grids of a training, about
LOCK_WAIT = 60.0  # seconds to wait for another evaluation of the same run
RETRY_AFTER = 60.0  # seconds after which MLflow, once away, may be back


@dataclass(frozen=True)
class TrainResult:
    """What a training came to; losses by the objective, the validation loss that of the best epoch."""

    run_id: str
    epochs: int
    best_epoch: int
    train_seconds: float
    images_per_second: float
    final_loss: float
    validation_loss: float
    parameters: int
    scorer: str
    threshold: float
    target_fpr: float
    calibration_images: int
    device: str
    run_folder: str


@dataclass(frozen=True)
class Job:
    """A training that has passed every check: nothing is written before there is one."""

    config: RunConfig
    recipe: Recipe
    split: Split
    split_record: dict[str, Any]
    images: dict[str, ImageSet]  # by part of the split
    objective: Objective
    device: torch.device
    parameters: int  # of the network
    save_to: Path | None

    @classmethod
    def prepare(cls, config: RunConfig, save_to: str | Path | None) -> "Job":
        """Look up every name, load and divide the data. Raises whatever is wrong with them.

        The job's own config says what was left open: the number of epochs, and where the data lie.
        """
        objective, device = find_objective(config.objective), pick_device(config.device)
        entry = find_dataset(config.dataset)
        normal = parse_normal(config.normal, entry.classes)
        find_autoencoder(config.autoencoder)
        build_scorer(config.scorer)
        if save_to:
            check_target(expand(save_to).resolve())
        dataset = load_dataset(config.dataset, config.data_dir)  # after all that needs no data, for it may download
        split = split_dataset(dataset, normal, config.seed)
        require_enough(len(split.calibration.indices), config.target_fpr)
        network = build_autoencoder(config.autoencoder, dataset.shape, config.latent)
        names = tuple(dataset.classes[position] for position in normal)
        recipe = Recipe(config.dataset, dataset.classes, names, config.autoencoder, config.latent, config.scorer)
        config = dataclasses.replace(
            config,
            epochs=epoch_count(config, len(split.fit.indices)),
            data_dir=str(data_root(config.data_dir).resolve()) if entry.torchvision else None,
        )
        return cls(
            config=config,
            recipe=recipe,
            split=split,
            split_record={"digest": dataset.digest(), "parts": split.summary()},
            images={part: getattr(split, part).take(dataset) for part in PARTS},
            objective=objective,
            device=device,
            parameters=network.parameter_count(),
            save_to=Path(save_to) if save_to else None,
        )


def train(
    config: RunConfig, *, home: Home | None = None, save_to: str | Path | None = None, tracking: bool = True
) -> TrainResult:
    """Train a detector: network, scorer, calibration. Everything is kept in the run folder and in MLflow.

    save_to: a folder that gets a copy of the detector. Raises `AnomalyAEError` of many kinds, `Interrupted`
    on Ctrl-C; the run can then be resumed.
    """
    home = home or Home.find()
    mark_dead_runs(home)
    job = Job.prepare(config, save_to)
    with storage_errors(f"keep runs in {home.root}"):
        (home.root / "runs").mkdir(parents=True, exist_ok=True)
    name = f"{config.dataset} {config.normal} · {config.autoencoder} · {config.scorer}"
    tracker = Tracker.begin(home, config.experiment, name) if tracking else Tracker(home, None)
    run_id = tracker.run_id or secrets.token_hex(16)
    run = RunFolder(home.root / "runs" / run_id)
    with _marked(run, tracker), run.lock():
        run.write_start(job.config, job.split_record)
        record = Record(run_id, tracker.run_id, name, now(), tracked=tracking, unlogged=tracking)
        run.write_record(dataclasses.replace(record, device=str(job.device), parameters=job.parameters))
        tracker.log_start(run)
        return _train(job, run, tracker)


def resume(
    name: str, asked: Sequence[Mapping[str, Any]] = (), *, home: Home | None = None, save_to: str | Path | None = None
) -> TrainResult:
    """Go on with the interrupted run `name`, to the same end as if it had not been interrupted.

    asked: layers of settings; any that differs from the run's own, but for `data_dir`, is a `UsageError`.
    """
    home = home or Home.find()
    mark_dead_runs(home)
    run = home.latest_unfinished() if name == LATEST else home.find_run(name)
    config = RunConfig.build(run.config.to_dict(), *asked)
    if str(pick_device(config.device)) == run.record.device:  # auto and cpu may be the same
        config = dataclasses.replace(config, device=run.config.device)
    if clashes := conflicts(run.config, config):
        raise UsageError(f"run {run.record.id} cannot be resumed with other settings: {'; '.join(clashes)}")
    with run.lock():
        record = run.record
        if record.status == FINISHED:
            raise UsageError(f"run {record.id} is finished; there is nothing to resume")
        job = Job.prepare(config, save_to)
        if job.split_record != run.split:
            raise DataChanged(f"the data are not those that run {record.id} was started with; use that data")
        tracker = Tracker(home, record.mlflow_run_id)
        with _marked(run, tracker):
            run.write_start(job.config, job.split_record)
            run.update(status=RUNNING, unlogged=record.tracked)
            tracker.set_status(RUNNING)
            return _train(job, run, tracker)


def _train(job: Job, run: RunFolder, tracker: Tracker) -> TrainResult:
    """Train, make the detector, draw, and mirror it all to MLflow."""
    training = _fit(job, run, tracker)
    fitting = (job.recipe, training.best, job.images, job.split, job.config.target_fpr, job.device)
    detector = fit_detector(*fitting)
    detector.save(run.path / "detector")
    drawn = _training_figures(training, detector, job.images["validation"].images)
    figures.save_figures(run.path / "figures", drawn, run.record.name)
    result = _result(training, detector, run, job.device)
    write_json(run.path / "result.json", dataclasses.asdict(result))
    run.update(status=FINISHED)
    tracker.log_results(run)
    tracker.set_status(FINISHED)
    _settle(run, tracker)
    if job.save_to:
        detector.save(job.save_to)
    return result


def _fit(job: Job, run: RunFolder, tracker: Tracker) -> Training:
    """Train the network, from the checkpoint if there is one."""
    config, fit, validation = job.config, job.images["fit"].images, job.images["validation"].images
    torch.manual_seed(config.seed)
    network = build_autoencoder(config.autoencoder, Preprocessing.for_shape(fit.shape[1:]).shape, config.latent)
    training = Training(network.to(job.device), config)
    if run.checkpoint.exists():
        training.load(run.checkpoint)
        run.write_history(training.history)
        tracker.log_missing(run)
        say(f"going on with run {run.record.id} after epoch {len(training.history)}")
    total = epoch_count(config, len(fit))
    say(f"run {run.record.id}: {len(fit):,} images of {job.recipe.dataset} {config.normal} on {job.device}")
    with display(total * len(fit), len(training.history) * len(fit)) as shown:
        for epoch in train_epochs(training, job.objective, fit, validation, run.checkpoint, shown):
            run.write_history(training.history)
            tracker.log_epochs([epoch])
            if epoch.epoch == 1 or epoch.epoch % max(1, total // GRIDS) == 0:
                path = run.path / "images" / f"epoch-{epoch.epoch:05}.png"
                figures.save_image(path, _grid(training, validation))
                tracker.log_grid(path)
            shown.line(
                f"epoch {epoch.epoch}/{total} · loss {epoch.train_loss:.5f} · validation loss "
                f"{epoch.validation_loss:.5f} · {epoch.images_per_second:,.0f} images/s",
                last=epoch.epoch == total or training.stops_early(total),
            )
    return training


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
    test = detector.split.test.take(dataset)
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
            _settle(run, tracker, run.record.unlogged)
    except (RunBusy, StorageError) as error:
        say(f"warning: the evaluation is not kept with the run: {one_line(error)}")


def _recorded_data_dir(run: RunFolder | None) -> str | None:
    """Where the run found its data, if they may still be there."""
    folder = run.config.data_dir if run else None
    return folder if folder and Path(folder).is_dir() else None


def load(model: str | Path = LATEST, *, mlruns: str | None = None, device: str = "auto") -> Detector:
    """Load a detector: `latest`, a run id, or a saved detector's folder. Raises what `find_model` raises."""
    return Detector.load(find_model(Home.find(mlruns), str(model))[0], device)


def find_model(home: Home, model: str) -> tuple[Path, RunFolder | None]:
    """The detector's folder, and the run folder it lies in if it is one of `home`.

    Raises `ModelNotFound`, or `ModelError` when the training is not finished.
    """
    path = expand(model)
    if model == LATEST:
        run = home.latest()
    elif path.is_file():
        raise ModelNotFound(f"{model} is a file; a saved detector is a folder that holds detector.json")
    elif path.is_dir() and path.resolve().parent != home.root.resolve() / "runs":
        return path, None
    else:
        run = _find_run(home, path.name)
    return run.detector_folder(), run


def _find_run(home: Home, run_id: str) -> RunFolder:
    """The run, fetched from MLflow's server if only that has it."""
    try:
        return home.find_run(run_id)
    except ModelNotFound:
        if home.is_local:
            raise
    return fetch_run(home, run_id)


@contextmanager
def _marked(run: RunFolder, tracker: Tracker) -> Iterator[None]:
    """Mark a run that is not finished KILLED on Ctrl-C and FAILED on an error, in the folder and in MLflow."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(_end(run, tracker, KILLED)) from None
    except BaseException:
        _end(run, tracker, FAILED)
        raise


def _end(run: RunFolder, tracker: Tracker, status: str) -> str:
    """Keep how a run ended; what to tell its user. MLflow hears of it even when the disk is full."""
    started = (run.path / "run.json").exists()
    if started and run.record.status == FINISHED:
        return f"interrupted after the training was finished; log the rest with: anomaly-ae runs --sync ({run.path})"
    tracker.set_status(status)
    if not started:
        return "interrupted before the training began"
    run.update(status=status, unlogged=run.record.tracked and tracker.lacks_something())
    weights = f"best weights so far: {run.checkpoint}; " if run.checkpoint.exists() else ""
    return f"interrupted; {weights}go on with: {run.resume}"


def _settle(run: RunFolder, tracker: Tracker, behind: bool = False) -> None:
    """Keep whether MLflow has everything. If not, try once more, and say where it is kept if that fails.

    behind: whether MLflow lacked something before
    """
    run.update(unlogged=run.record.tracked and (behind or tracker.lacks_something()))
    just_now = tracker.failure and time.monotonic() - tracker.failed_at < RETRY_AFTER
    if run.record.unlogged and (just_now or not upload(tracker.home, run)):
        say(f"everything is kept in {run.path}; once MLflow answers again, log it with: anomaly-ae runs --sync")


def _training_figures(training: Training, detector: Detector, validation: Tensor) -> dict[str, Figure]:
    some, heading = _some(validation), "Normal validation images and their reconstructions"
    rebuilt = detector.reconstruct(some).numpy()
    return {
        "loss_curves": figures.loss_curves(training.history),
        "reconstructions": figures.image_rows(as_float(some).numpy(), rebuilt, None, (), heading),
    }


def _grid(training: Training, validation: Tensor) -> Array:
    """Some validation images above what the network makes of them now, uint8 (H, W) or (H, W, 3)."""
    some = _some(validation)
    rebuilt = map_images(training.network, some, lambda _, outputs: outputs.reconstruction, tuple(some.shape[1:]))
    return figures.grid(as_float(some).numpy(), rebuilt.numpy())


def _some(images: Tensor) -> Tensor:
    """A row's worth of images, evenly spread."""
    return images[torch.linspace(0, len(images) - 1, min(figures.SHOWN, len(images))).long()]


def _result(training: Training, detector: Detector, run: RunFolder, device: torch.device) -> TrainResult:
    history = training.history
    seconds = sum(epoch.seconds for epoch in history)
    return TrainResult(
        run_id=run.record.id,
        epochs=len(history),
        best_epoch=training.best_epoch.epoch,
        train_seconds=seconds,
        images_per_second=sum(epoch.images_per_second * epoch.seconds for epoch in history) / seconds,
        final_loss=history[-1].train_loss,
        validation_loss=training.best_epoch.validation_loss,
        parameters=training.network.parameter_count(),
        scorer=detector.recipe.scorer,
        threshold=detector.threshold,
        target_fpr=detector.calibration.target_fpr,
        calibration_images=len(detector.calibration.scores),
        device=str(device),
        run_folder=str(run.path),
    )
