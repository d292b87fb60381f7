"""What is kept and shown of a training as it goes on."""

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack

from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import Callback
from anomaly_ae.escaping import counted, printable, short_name
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.reporting.figures.saving import save_image
from anomaly_ae.reporting.run_figures import ReconstructionGrid
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import Display, Silent, display, stage
from anomaly_ae.runtime.torch_state import spinning
from anomaly_ae.training import Epoch, Snapshot, Training, earlier

KEEP_EVERY = 5.0  # seconds between checkpoints
GRID_COUNT = 8  # reconstruction grids of a training, about


class RunRecorder(Callback):
    """Keeps a training in its folder: checkpoint, losses and reconstruction grids, now and then and at the end,
    however it ends. A kill loses `KEEP_EVERY` seconds and the epoch it was in. It goes on from a checkpoint
    that is there.
    """

    def __init__(self, run: RunFolder, experiment: Experiment, images: Mapping[str, ImageSet]) -> None:
        self.run, self.validation = run, images["validation"].images
        self.grid_every = max(1, int(experiment.config.epochs or 1) // GRID_COUNT)
        self.kept_at = -math.inf
        self.snapshot: Snapshot | None = None  # after the last whole epoch

    def on_start(self, training: Training) -> None:
        if training.load(self.run.checkpoint):
            self.run.write_history(training.history)
            logger.info(f"run {self.run.record.id} goes on after epoch {len(training.history)}")
        self.pictures = ReconstructionGrid(training.network, self.validation)
        if not training.history:
            save_image(self.run.grid(0), self.pictures.draw())
        self.snapshot = training.snapshot()

    def on_epoch(self, training: Training, epoch: Epoch) -> None:
        self.snapshot = training.snapshot()
        if time.monotonic() - self.kept_at >= KEEP_EVERY:
            self._keep(self.snapshot)
        if epoch.epoch == 1 or epoch.epoch % self.grid_every == 0:
            save_image(self.run.grid(epoch.epoch), self.pictures.draw())

    def on_end(self, training: Training, error: BaseException | None) -> None:
        if self.snapshot and self.snapshot.history:
            self._keep(self.snapshot)
        if error is None:
            earlier(self.run.checkpoint).unlink(missing_ok=True)

    def _keep(self, snapshot: Snapshot) -> None:
        snapshot.save(self.run.checkpoint)
        self.run.write_history(snapshot.history)
        self.kept_at = time.monotonic()


class Progress(Callback):
    """Shows on standard error how a training goes."""

    def __init__(self, run: RunFolder, experiment: Experiment, images: Mapping[str, ImageSet]) -> None:
        self.run, self.experiment, self.count = run, experiment, len(images["fit"])
        self.total, self.shown = int(experiment.config.epochs or 1), ExitStack()
        learners = experiment.network.learners(self.count * experiment.network.copies)
        self.trained_on = sum(len(own) for _, own in learners)
        self.display: Display = Silent()

    def on_start(self, training: Training) -> None:
        config, device = self.experiment.config, self.experiment.device
        data = f"{short_name(config.dataset)} {printable(config.normal)}"
        logger.info(f"run {self.run.record.id}: {counted(self.count, 'image')} of {data} on {device}")
        if device.type == "cpu" and (warning := spinning()):
            logger.info(warning)
        done = len(training.history) * self.trained_on
        self.display = self.shown.enter_context(display(self.total * self.trained_on, done))

    def on_batches(self, images: int, state: str) -> None:
        self.display.advance(images, state)

    def on_epoch(self, training: Training, epoch: Epoch) -> None:
        self.display.line(
            f"epoch {epoch.epoch}/{self.total} · loss {epoch.train_loss:.5f} · validation loss "
            f"{epoch.validation_loss:.5f} · {epoch.images_per_second:,.0f} images/s",
            last=epoch.epoch == self.total or training.stops_early(self.total),
        )

    def on_end(self, training: Training, error: BaseException | None) -> None:
        self.shown.close()

    def stage(self, what: str) -> AbstractContextManager[None]:
        return stage(what)
