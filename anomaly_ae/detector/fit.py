"""From an experiment and its images to a detector: trained, its scorer fitted, its threshold set. No file is touched,
and nothing printed: who wants to see or keep what happens hands over a `Callback`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial, reduce

import torch
from torch import Tensor

from anomaly_ae.augmentation.transforms import varied_copies
from anomaly_ae.autoencoders import Autoencoder, Outputs
from anomaly_ae.autoencoders.autoencoder import Prepared
from anomaly_ae.autoencoders.folds import FoldAutoencoders
from anomaly_ae.autoencoders.inference import map_jointly
from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.group import alarms_allowed, p_value_levels
from anomaly_ae.calibration.rates import can_hold, require_enough
from anomaly_ae.config.run_config import LOCATION_FIELDS, MARGINAL, RunConfig
from anomaly_ae.datasets.splits import Split
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit_scorer import REFERENCES, fit_scorer
from anomaly_ae.errors import CalibrationError
from anomaly_ae.escaping import counted
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.statistics import Profile
from anomaly_ae.runtime.messages import logger
from anomaly_ae.scorers import Scorer
from anomaly_ae.scorers.fold_scorer import FoldScorer, map_part, score_and_map
from anomaly_ae.scorers.scorer import sample
from anomaly_ae.training import Epoch, Training, train_epochs

MARKED_NORMAL = "marked"  # what people called normal, beside the parts of a split
POOLED = "the rate is that of these together, and may be higher among images of one kind"


class Callback:
    """What watches a training. Each method does nothing unless a subclass has its own."""

    def on_start(self, training: Training) -> None:
        """Before the first epoch; an interrupted training may be gone on with here, by `Training.load`."""

    def on_batches(self, images: int, state: str) -> None:
        """After some batches of so many images together; `state` says in a few words how it goes."""

    def on_epoch(self, training: Training, epoch: Epoch) -> None:
        """After each epoch."""

    def on_end(self, training: Training, error: BaseException | None) -> None:
        """After the last epoch, or as soon as an error, Ctrl-C included, ends the training."""

    def stage(self, what: str) -> AbstractContextManager[None]:
        """Around what follows the training, in words."""
        return nullcontext()


def fit(
    experiment: Experiment, images: Mapping[str, ImageSet], split: Split, callbacks: Sequence[Callback] = ()
) -> Detector:
    """Train the experiment's network, fit its scorer, and calibrate.

    images: by part of the split: "fit", "validation" and "calibration", at the network's size; with the guarantee
        cross as `in_folds` has them; and by `marked_part` what is kept for the threshold of each round of marked ones
    Raises `TrainingError`, and `CalibrationError` when there are too few calibration images for the target rate.
    """
    with _stage(callbacks, "looking at the images"):
        prepared = prepare(experiment, images["fit"].images, images["validation"].images)
    training = run_training(experiment, prepared, callbacks)
    found = dataclasses.replace(experiment.config, precision=training.precision)
    experiment, network = dataclasses.replace(experiment, config=found), training.finished_network()
    with _stage(callbacks, f"fitting the scorer {experiment.config.scorer}, and calibrating"):
        return make_detector(experiment, network, images, split, prepared)


@contextmanager
def _stage(callbacks: Sequence[Callback], what: str) -> Iterator[None]:
    with ExitStack() as stages:
        for each in callbacks:
            stages.enter_context(each.stage(what))
        yield


def prepare(experiment: Experiment, fit_images: Tensor, validation: Tensor) -> Prepared:
    """What the experiment's network is trained on, of images, uint8 (N, C, H, W)."""
    network = experiment.network
    varied = varied_copies(fit_images, experiment.augment, network.copies, experiment.config.seed)
    return network.prepare(varied, validation)


def run_training(experiment: Experiment, prepared: Prepared, callbacks: Sequence[Callback] = ()) -> Training:
    """The training of the experiment's network, when it has ended.

    prepared: what `prepare` gave of images
    """
    network, augment = experiment.network, prepared.augment or experiment.augment
    training = Training(network, experiment.config, experiment.objective, augment)

    def advance(count: int, state: str) -> None:
        for each in callbacks:
            each.on_batches(count, state)

    try:
        for each in callbacks:
            each.on_start(training)
        for epoch in train_epochs(training, prepared.fit, prepared.validation, advance):
            for each in callbacks:
                each.on_epoch(training, epoch)
    except BaseException as error:
        _end(callbacks, training, error)
        raise
    _end(callbacks, training, None)
    return training


def _end(callbacks: Sequence[Callback], training: Training, error: BaseException | None) -> None:
    """Tell each callback, in order, that the training has ended, whatever another raises."""
    with ExitStack() as stack:
        for each in reversed(callbacks):
            stack.callback(each.on_end, training, error)


def make_detector(
    experiment: Experiment,
    network: Autoencoder,
    images: Mapping[str, ImageSet],
    split: Split,
    prepared: Prepared | None = None,
) -> Detector:
    """A detector of a trained network: its scorer learns from the fit and validation images, its threshold is set by
    the calibration images.

    prepared: what `prepare` gave of the fit and validation images, where it is at hand
    """
    config = experiment.config
    trained_on = images["fit"].images, images["validation"].images
    scorer = fit_scorer(experiment.scorer, network, *trained_on, config, prepared)
    calibration, peaks = _calibrate(config, network, scorer, images)
    anywhere = {name: getattr(RunConfig(), name) for name in LOCATION_FIELDS}
    detector = Detector(
        config=dataclasses.replace(config, **anywhere),
        classes=experiment.classes,
        normal=experiment.normal,
        preprocessing=experiment.preprocessing,
        network=network,
        scorer=scorer,
        calibration=calibration,
        split=split,
        profile=Profile.of(images["fit"].images),
    )
    if peaks is None:
        return detector
    rank = max(1, alarms_allowed(p_value_levels(len(peaks)), config.rate))
    return dataclasses.replace(detector, heat_level=float(peaks[-rank]), heat_peaks=peaks)


Judged = tuple[Autoencoder, Scorer, ImageSet]


def held_out(network: Autoencoder, scorer: Scorer, calibrating: ImageSet) -> list[Judged]:
    """Networks and scorers with the calibration images that they have not learned from: of folds each its own, but
    for the few images that are in none.
    """
    if not (isinstance(scorer, FoldScorer) and isinstance(network, FoldAutoencoders)):
        return [(network, scorer, calibrating)]
    drawn = network.folds_of(len(calibrating))
    return [
        (own, part, calibrating.take(torch.nonzero(drawn == fold).flatten()))
        for fold, (own, part) in enumerate(zip(network, scorer.parts, strict=True))
    ]


def _calibrate(
    config: RunConfig, network: Autoencoder, scorer: Scorer, images: Mapping[str, ImageSet]
) -> tuple[Calibration, Tensor | None]:
    """By the scores of images that have not been learned from, in groups where some of them are marked normal, so
    that the rate is held for images like those of any. And the highest values of the heat maps of some that are not
    marked, float32 (M,), ascending, where there are maps.
    """
    guarantee, groups = config.guarantee or MARGINAL, threshold_groups(images, config)
    if rounds := _marked(images):
        require_enough(len(images["calibration"]), config.rate, guarantee)
        _say_pooled(rounds, config)
    scores, highest, names = zip(*(_judge(held_out(network, scorer, group)) for group in groups), strict=True)
    peaks = None
    if highest[0] is not None:
        own = highest[0][: len(images["calibration"])]  # marked ones may come after these
        peaks = own[sample(len(own), REFERENCES)].sort().values
    calibrate = partial(
        Calibration,
        torch.cat(scores),
        config.rate,
        guarantee,
        names=sum(names, ()) if all(names) else None,
        folds=config.folds or 0,
    )
    sizes = torch.tensor([len(each) for each in scores])
    try:
        calibration = calibrate(groups=torch.arange(len(sizes)).repeat_interleave(sizes))
    except CalibrationError as error:
        if len(groups) == 1:
            raise
        logger.info(f"no threshold by groups, for {error}; {POOLED}")
        return calibrate(), peaks
    if len(groups) > 1:
        _say_thresholds(calibration)
    return calibration, peaks


def threshold_groups(images: Mapping[str, ImageSet], config: RunConfig) -> list[ImageSet]:
    """The images that set the threshold, by part as `fit` has them, in groups that each hold the rate by themselves:
    those of the data set, and those of each round of marked ones. Rounds that are too small for it are one group;
    where that is too small as well, they are with those of the data set.
    """
    own, rounds = images["calibration"], _marked(images)
    large, small = ([each for each in rounds if _holds(len(each), config) == is_large] for is_large in (True, False))
    if not small:
        return [own, *large]
    pooled = reduce(ImageSet.joined, small)
    return [own, *large, pooled] if _holds(len(pooled), config) else [own.joined(pooled), *large]


def calibration_images(images: Mapping[str, ImageSet], detector: Detector) -> list[ImageSet]:
    """The images of each group of a detector's calibration, by part as `fit` has them."""
    groups = threshold_groups(images, detector.config)
    return [reduce(ImageSet.joined, groups)] if detector.calibration.groups is None else groups


def marked_part(number: int) -> str:
    """The name of a part, of images that people called normal in a round of marking, beside those of the split."""
    return f"{MARKED_NORMAL} {number}"


def _marked(images: Mapping[str, ImageSet]) -> list[ImageSet]:
    """Those that are marked normal, of each round that keeps any for the threshold."""
    return [part for name, part in images.items() if name.startswith(MARKED_NORMAL) and len(part)]


def _holds(count: int, config: RunConfig) -> bool:
    """Whether so many images hold the rate by themselves."""
    return can_hold(count, config.rate, config.guarantee or MARGINAL)


def _say_pooled(rounds: Sequence[ImageSet], config: RunConfig) -> None:
    """Which of the images that are marked normal are no group by themselves, if any."""
    small = [len(each) for each in rounds if not _holds(len(each), config)]
    if not small:
        return
    too_few = f"too few to hold the rate {config.rate:g} by themselves"
    if _holds(sum(small), config):
        sizes = " and ".join(f"{count:,}" for count in small)
        logger.info(f"rounds of {sizes} images marked normal are each {too_few}, and one group; {POOLED}")
    else:
        many = counted(sum(small), "image marked normal is", "images marked normal are")
        logger.info(f"{many} {too_few}, and in one group with the others for the threshold; {POOLED}")


def _say_thresholds(calibration: Calibration) -> None:
    """What each group would set the threshold at, and that the highest counts."""
    own, *marked = [(len(group), group.threshold(calibration.target_fpr)) for group in calibration.by_group]
    ends = [f"{count:,} marked normal at {threshold:.4g}" for count, threshold in marked]
    which, kinds = ("higher", "either") if len(marked) == 1 else ("highest", "any of them")
    logger.info(
        f"the {own[0]:,} images for the threshold alone would set it at {own[1]:.4g}, the {', the '.join(ends)}; "
        f"here and at any other rate the {which} one holds, for images like {kinds}"
    )


def _judge(pairs: Sequence[Judged]) -> tuple[Tensor, Tensor | None, tuple[bytes, ...] | None]:
    """The scores of images, the highest values of their heat maps, if they have any, and the names of their files, if
    they come from any.
    """
    names = tuple(name for _, _, part in pairs for name in part.names or ()) or None
    if map_part(pairs[0][1]) is None:
        return torch.cat([scorer.score_all(network, part.images) for network, scorer, part in pairs]), None, names
    both = [
        map_jointly(network, part.images, partial(_score_and_peak, scorer), decoded=scorer.reads_reconstruction)
        for network, scorer, part in pairs
    ]
    scores, peaks = (torch.cat(parts) for parts in zip(*both, strict=True))
    return scores, peaks, names


def _score_and_peak(scorer: Scorer, images: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Scores and the highest values of the heat maps, (N,) each, which have their work in common."""
    scores, maps = score_and_map(scorer, images, outputs)
    return scores, maps.flatten(1).amax(dim=1)


def in_folds(images: Mapping[str, ImageSet]) -> dict[str, ImageSet]:
    """Images by part of a split, as they are for the guarantee cross: those of fit and calibration are both."""
    both = images["fit"].joined(images["calibration"])
    return {**images, "fit": both, "calibration": both}
