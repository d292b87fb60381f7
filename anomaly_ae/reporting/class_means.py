"""Novel classes of a pipeline, such as kinds of defects, each by itself: means over the seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from anomaly_ae.detector.evaluation import PIXELS
from anomaly_ae.metrics.ranking import Bools, Floats, auroc_interval, bootstrap_interval, delong
from anomaly_ae.reporting.cells import Done
from anomaly_ae.reporting.comparison import Tested, read_scores
from anomaly_ae.runs.pipeline_results import ClassMeans
from anomaly_ae.runs.record import FINISHED
from anomaly_ae.runs.run_results import KeptEvaluation

ALL_NOVEL = "together"  # in place of a class, for all of them
INTERVALS = ("low", "high", "bootstrap_low", "bootstrap_high")


@dataclass(frozen=True)
class Seed:
    """What a detector came to with one seed."""

    tested: Tested
    evaluation: KeptEvaluation

    def members(self, name: str) -> Bools:
        """Which test images are of a class, (N,)."""
        is_member: Bools = self.tested.novel if name == ALL_NOVEL else self.tested.classes == name
        return is_member

    def scores(self, name: str) -> tuple[Floats, Floats]:
        """Those of a class, (M,), and of all normal images, (N,)."""
        return self.tested.scores[self.members(name)], self.tested.scores[~self.tested.novel]

    def pixels(self, name: str) -> Mapping[str, float | None]:
        """The figures of the heat maps."""
        rows = (row for row in self.evaluation.per_class or () if row["class"] == name)
        return vars(self.evaluation) if name == ALL_NOVEL else next(rows, dict.fromkeys(PIXELS))


def class_table(done: Sequence[Done]) -> list[ClassMeans]:
    """A row for each novel class of each detector, below one of all together where there are several; none where the
    cells differ in what is normal.
    """
    if len({each.run.config.normal for each in done}) > 1:
        return []
    detectors: dict[str, list[Seed]] = {}
    for each in done:
        evaluation = each.run.evaluation()
        if each.run.record.status == FINISHED and evaluation and (tested := read_scores(each.run)):
            detectors.setdefault(each.cell.detector, []).append(Seed(tested, evaluation))
    return [_row(detector, name, seeds) for detector, seeds in detectors.items() for name in _names(seeds[0].tested)]


def _names(tested: Tested) -> list[str]:
    classes = list(dict.fromkeys(tested.classes[tested.novel].tolist()))
    return [ALL_NOVEL, *classes] if len(classes) > 1 else classes


def _row(detector: str, name: str, seeds: Sequence[Seed]) -> ClassMeans:
    scores = [seed.scores(name) for seed in seeds]
    pixels = [seed.pixels(name) for seed in seeds]
    are_same = len({seed.tested.images for seed in seeds}) == 1
    return ClassMeans(
        system=detector,
        class_=name,
        images=len(scores[0][0]),
        seeds=len(seeds),
        auroc=fmean(delong(*each)[0] for each in scores),
        **(_intervals(scores) if are_same else dict.fromkeys(INTERVALS)),
        detection_rate=fmean(seed.tested.alarms[seed.members(name)].mean() for seed in seeds),
        false_alarm_rate=fmean(seed.tested.alarms[~seed.tested.novel].mean() for seed in seeds),
        **{key: _mean(each[key] for each in pixels) for key in PIXELS},
    )


def _intervals(scores: Sequence[tuple[Floats, Floats]]) -> dict[str, Any]:
    """Those of the mean AUROC of several scores of the same images, by the names of `ClassMeans`."""
    novel, normal = (np.stack(side) for side in zip(*scores, strict=True))
    delongs, bootstrapped = auroc_interval(novel, normal), bootstrap_interval(novel, normal)
    return dict(zip(INTERVALS, (delongs.low, delongs.high, bootstrapped.low, bootstrapped.high), strict=True))


def _mean(values: Iterable[float | None]) -> float | None:
    """None where one is missing."""
    known = list(values)
    return None if None in known else fmean(value for value in known if value is not None)
