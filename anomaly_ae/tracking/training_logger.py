"""A training as MLflow hears of it while it goes on."""

import math
import time

from anomaly_ae.detector.fit import Callback
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.tracking import calls
from anomaly_ae.tracking.run_logger import RunLogger
from anomaly_ae.training import Epoch, Training

TELL_EVERY = 5.0  # seconds between calls of MLflow, each of which takes long beside an epoch


class TrainingLogger(Callback):
    """Tells MLflow of a training what its folder has: losses now and then, grids as they are drawn, and at the end
    all that is missing.
    """

    def __init__(self, run: RunFolder, run_logger: RunLogger) -> None:
        self.run, self.run_logger = run, run_logger
        self.waiting: list[Epoch] = []
        self.told_at = -math.inf

    def on_start(self, training: Training) -> None:
        if training.history:
            self.run_logger.tell(calls.log_missing, self.run)
        else:
            self.run_logger.tell(calls.log_grid, self.run.grid(0))

    def on_epoch(self, training: Training, epoch: Epoch) -> None:
        self.waiting.append(epoch)
        if time.monotonic() - self.told_at >= TELL_EVERY:
            told, self.waiting = self.waiting, []
            self.run_logger.log_epochs(told)
            self.told_at = time.monotonic()
        if self.run.grid(epoch.epoch).exists():
            self.run_logger.tell(calls.log_grid, self.run.grid(epoch.epoch))

    def on_end(self, training: Training, error: BaseException | None) -> None:
        if error is None:
            self.run_logger.log_epochs(self.waiting)
        elif training.history:  # what was being told when it was interrupted may be half told
            self.run_logger.tell(calls.log_missing, self.run)
