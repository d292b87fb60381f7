"""Going on from a trained run with more normal images, those that people marked as good."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import MARKED_NORMAL
from anomaly_ae.errors import DataChanged, DataMissing, UsageError
from anomaly_ae.escaping import counted
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.reporting.text.detectors import marks_words
from anomaly_ae.runs.record import TRAINING
from anomaly_ae.runs.store import RunFolder, RunStore, conflicts
from anomaly_ae.runtime.messages import logger
from anomaly_ae.scoring.marks import GOOD, read_marks
from anomaly_ae.storage.atomic import expand
from anomaly_ae.workflows.find_model import find_run
from anomaly_ae.workflows.marked import MarkedImages

OPEN = (  # settings that may be others than in the run that is gone on from
    *("epochs", "steps", "patience", "batch_size", "learning_rate", "schedule", "weight_decay", "precision"),
    *("scorer", "top_fraction", "target_fpr", "device", "experiment", "data_dir", "from_run", "add_marks"),
)
SHORTER = 4  # times as few epochs, for much is learned already
SEEN_SHARE, MOST_TIMES = 0.1, 16  # of what is learned from, for which each marked image is seen up to so many times


def config_from(run: RunFolder, marks: str | Path, asked: Sequence[Mapping[str, Any]]) -> RunConfig:
    """The settings of a run, with a quarter of its epochs where its weights are gone on from, and what else is asked
    over them.

    Raises `UsageError` where that would be another network or other data, or the run is none to go on from,
    `ModelError` when it is not finished, `DataMissing` without marks.
    """
    detector = Detector.load(run.detector_folder(), "cpu")
    read_marks(expand(marks))
    shorter = SHORTER if detector.network.goes_on else 1
    epochs = -(-len(run.history()) // shorter) or None
    place = {"from_run": run.record.id, "add_marks": str(expand(marks).resolve())}
    config = RunConfig.build(run.config.to_dict(), {"epochs": epochs, "steps": None}, *asked, place)
    require_own_settings(run, config)
    return config


def require_own_settings(run: RunFolder, config: RunConfig) -> None:
    """Raise `UsageError` for settings with which no training could go on from a run, or a run that is none for it."""
    if run.record.kind != TRAINING:
        raise UsageError(f"run {run.record.id} is a {run.record.kind}; go on from the training that it belongs to")
    if run.config.from_run:
        raise UsageError(
            f"run {run.record.id} was itself made with marks; go on from run {run.config.from_run}, with all marks "
            "in one file, one after the other"
        )
    kept = {name: getattr(config, name) for name in OPEN}
    if clashes := conflicts(dataclasses.replace(run.config, **kept), config):
        raise UsageError(f"to go on from run {run.record.id} takes its own settings: {'; '.join(clashes)}")


@dataclass(frozen=True)
class MoreNormals:
    """The run that is gone on from, its detector, and images that were marked as good, which that has not seen."""

    run: RunFolder
    detector: Detector
    images: ImageSet

    @classmethod
    def find(cls, config: RunConfig, home: RunStore, begun: Mapping[str, Any]) -> "MoreNormals":
        """Those that a config names. Raises `DataMissing` without any, `DataChanged` where they are not those of the
        training that is gone on with.
        """
        run = find_run(home, str(config.from_run))
        detector = Detector.load(run.detector_folder(), "cpu")
        marks = MarkedImages(str(config.add_marks))
        for name, text in marks_words(marks.used):
            logger.info(f"{name}: {text}")
        if not marks.used.good:
            raise DataMissing(f"no image in {config.add_marks} is marked good, and there is nothing to learn from")
        good = marks.of(detector, GOOD)
        if good.left_out or good.unreadable:
            logger.info(f"of these left out: {good.left_out:,} known or there twice, {good.unreadable:,} unreadable")
        label = detector.normal_indices[0]
        found = cls(run, detector, ImageSet(good.images, torch.full((len(good),), label), good.names))
        if begun.get(MARKED_NORMAL, found.record()) != found.record():
            raise DataChanged(f"the images marked good in {config.add_marks} are not those of this training any more")
        return found

    def record(self) -> dict[str, Any]:
        """What split.json has of them."""
        return {"images": len(self.images), "digest": self.images.digest(self.detector.classes)}

    def continue_from(self, experiment: Experiment) -> None:
        """Give the network the weights of the run, unless what it sees is reckoned anew, or it is several: that is
        said.
        """
        if experiment.network.goes_on:
            experiment.network.load_state_dict(self.detector.network.state_dict())
        else:
            logger.info(f"autoencoder {experiment.config.autoencoder} is trained anew, on all images together")

    def divided(self, seed: int) -> tuple[ImageSet, ImageSet]:
        """Half of them to learn from, and half for the threshold, as the seed says."""
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed))
        half = (len(order) + 1) // 2
        return self.images.take(order[:half]), self.images.take(order[half:])

    def add_to(self, images: Mapping[str, ImageSet], config: RunConfig) -> dict[str, ImageSet]:
        """Images by part with these among them: half to learn from, half as a part of their own for the threshold; in
        folds all for both. It is said which.
        """
        new = f"{counted(len(self.images), 'image')} marked good"
        if config.folds:
            logger.info(f"{new} more, in the same {config.folds} folds, which are drawn anew")
            both = images["fit"].joined(self.images)
            return {**images, "fit": both, "calibration": both}
        learned, kept = self.divided(config.seed)
        times = max(1, min(MOST_TIMES, round(SEEN_SHARE * len(images["fit"]) / len(learned))))
        often = f", each {times} times" if times > 1 else ""
        logger.info(f"{new} more: {len(learned):,} to learn from{often}, {len(kept):,} for the threshold")
        repeated = learned.take(torch.arange(len(learned)).repeat(times))
        return {**images, "fit": images["fit"].joined(repeated), MARKED_NORMAL: kept}
