"""Going on from a trained run with more normal images, those that people marked as good."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import MARKED_NORMAL, marked_part
from anomaly_ae.errors import DataChanged, DataMissing, UsageError
from anomaly_ae.escaping import counted
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.reporting.text.detectors import marks_words
from anomaly_ae.runs.record import TRAINING
from anomaly_ae.runs.run_folder import RunFolder, conflicts
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.scoring.marks import GOOD, read_marks
from anomaly_ae.storage.atomic import expand
from anomaly_ae.workflows.find_model import find_run
from anomaly_ae.workflows.marked import MarkedImages

OPEN = (  # settings that may be others than in the run that is gone on from
    *("epochs", "steps", "patience", "batch_size", "learning_rate", "schedule", "weight_decay", "precision"),
    *("scorer", "top_fraction", "target_fpr", "device", "experiment", "data_dir", "from_run", "add_marks"),
)
MARKS_FILE = "marks.jsonl"  # in a run folder: those that it was made with
SHORTER = 4  # times as few epochs, for much is learned already
SEEN_SHARE, MOST_TIMES = 0.1, 16  # of what is learned from, for which each marked image is seen up to so many times


def config_from(run: RunFolder, marks: str | Path, asked: Sequence[Mapping[str, Any]]) -> RunConfig:
    """The settings of a run, with a quarter of its epochs where its weights are gone on from, unless it was itself
    made so, and what else is asked over them.

    Raises `UsageError` where that would be another network or other data, or the run is none to go on from,
    `ModelError` when it is not finished, `DataMissing` without marks.
    """
    detector = Detector.load(run.detector_folder(), "cpu")
    read_marks(expand(marks))
    shorter = SHORTER if detector.network.goes_on and not run.config.from_run else 1
    epochs = -(-len(run.history()) // shorter) or None
    place = {"from_run": run.record.id, "add_marks": str(expand(marks).resolve())}
    config = RunConfig.build(run.config.to_dict(), {"epochs": epochs, "steps": None}, *asked, place)
    require_own_settings(run, config)
    return config


def require_own_settings(run: RunFolder, config: RunConfig) -> None:
    """Raise `UsageError` for settings with which no training could go on from a run, or a run that is none for it."""
    if run.record.kind != TRAINING:
        raise UsageError(f"run {run.record.id} is a {run.record.kind}; go on from the training that it belongs to")
    kept = {name: getattr(config, name) for name in OPEN}
    if clashes := conflicts(dataclasses.replace(run.config, **kept), config):
        raise UsageError(f"to go on from run {run.record.id} takes its own settings: {'; '.join(clashes)}")


def with_own_marks(config: RunConfig, run: RunFolder) -> RunConfig:
    """A run's config with its own copy of the marks, for others go on marking in the file that was named."""
    kept = run.path / MARKS_FILE
    return dataclasses.replace(config, add_marks=str(kept)) if config.add_marks and kept.exists() else config


@dataclass(frozen=True)
class MoreNormals:
    """The run that is gone on from, its detector, and images that were marked as good.

    rounds: the images that each run was made with of which the next went on from the one before, and last those that
        none of them has seen
    good: the SHA-256 of the files that were marked
    read: the marks of the last round, as a file has them
    """

    run: RunFolder
    detector: Detector
    rounds: tuple[ImageSet, ...]
    good: frozenset[str]
    read: bytes

    @classmethod
    def find(cls, config: RunConfig, home: RunStore, begun: Mapping[str, Any]) -> "MoreNormals":
        """Those that a config names. Raises `DataMissing` without any, `DataChanged` where they are not those of the
        training that is gone on with, and `UsageError` where an earlier one learned from what is marked bad now.
        """
        run = find_run(home, str(config.from_run))
        rounds, good = tuple[ImageSet, ...](), frozenset[str]()
        if run.config.from_run:
            logger.info(f"run {run.record.id} was itself made with marks; their images are taken again")
            before = cls.find(with_own_marks(run.config, run), home, run.split)
            rounds, good = before.rounds, before.good
        detector = Detector.load(run.detector_folder(), "cpu")
        marks = MarkedImages(str(config.add_marks))
        for name, text in marks_words(marks.used):
            logger.info(f"{name}: {text}")
        if not marks.used.good:
            raise DataMissing(f"no image in {config.add_marks} is marked good, and there is nothing to learn from")
        if taken_back := good & marks.called_bad():
            what = f"{counted(len(taken_back), 'file')} that run {run.record.id} was made with as normal"
            raise UsageError(
                f"{what}, now marked bad in {config.add_marks}, there or as a copy; go on from run "
                f"{run.config.from_run}, with all marks in one file"
            )
        new = _unseen(marks, detector)
        found = cls(run, detector, (*rounds, new), good | marks.digests(GOOD), marks.read)
        known = begun.get(MARKED_NORMAL, [])
        if found.record()[: len(known)] != known:
            raise DataChanged(f"the images marked good in {config.add_marks} are not those of this training any more")
        return found

    def record(self) -> list[dict[str, Any]]:
        """What split.json has of them, by round."""
        classes = self.detector.classes
        return [{"images": len(images), "digest": images.digest(classes)} for images in self.rounds]

    def hashes(self) -> Tensor:
        """A number for each of them, int64 (N,), see `ImageSet.hashes`."""
        return torch.cat([images.hashes() for images in self.rounds])

    def continue_from(self, experiment: Experiment) -> None:
        """Give the network the weights of the run, unless what it sees is reckoned anew, or it is several: that is
        said.
        """
        if experiment.network.goes_on:
            experiment.network.load_state_dict(self.detector.network.state_dict())
        else:
            logger.info(f"autoencoder {experiment.config.autoencoder} is trained anew, on all images together")

    def add_to(self, images: Mapping[str, ImageSet], config: RunConfig) -> dict[str, ImageSet]:
        """Images by part with these among them: half to learn from, half as a part of each round for the threshold;
        in folds all for both. It is said which.

        A round is divided as the seed says, which a run that goes on has from the one before: what has been learned
        from never sets a threshold later.
        """
        if config.folds:
            new = f"{counted(sum(map(len, self.rounds)), 'image')} marked good"
            logger.info(f"{new} more, in the same {config.folds} folds, which are drawn anew")
            both = reduce(ImageSet.joined, self.rounds, images["fit"])
            return {**images, "fit": both, "calibration": both}
        fit, for_threshold = images["fit"], dict[str, ImageSet]()
        for number, marked in enumerate(self.rounds, start=1):
            learned, kept = divided(marked, config.seed)
            times = max(1, min(MOST_TIMES, round(SEEN_SHARE * len(images["fit"]) / len(learned))))
            often = f", each {times} times" if times > 1 else ""
            new = f"{counted(len(marked), 'image')} marked good"
            logger.info(f"{new} more: {len(learned):,} to learn from{often}, {len(kept):,} for the threshold")
            fit = fit.joined(learned.take(torch.arange(len(learned)).repeat(times)))
            for_threshold[marked_part(number)] = kept
        return {**images, "fit": fit, **for_threshold}


def divided(images: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """Half of them to learn from, and half for the threshold, as the seed says."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    half = (len(order) + 1) // 2
    return images.take(order[:half]), images.take(order[half:])


def _unseen(marks: MarkedImages, detector: Detector) -> ImageSet:
    """The images marked good that a detector has neither been made with nor is measured with: those would say
    nothing of it any more. Raises `DataMissing` where there are none.
    """
    good = marks.of(detector, GOOD)
    if good.left_out or good.unreadable:
        logger.info(f"of these left out: {good.left_out:,} known or there twice, {good.unreadable:,} unreadable")
    images = ImageSet(good.images, torch.full((len(good),), detector.normal_indices[0]), good.names)
    is_test = torch.isin(images.hashes(), detector.split.test.hashes.cpu())
    if measured_with := int(is_test.sum()):
        they = "it measures" if measured_with == 1 else "they measure"
        own = f"{counted(measured_with, 'image')} of the run's own test set"
        logger.info(f"of these left out: {own}, for {they} how good it is")
        if measured_with == len(images):
            raise DataMissing(f"all that is new in {marks.place} is {own}; mark other pictures as good")
    return images.take(torch.nonzero(~is_test).flatten())
