"""Whether the scores of a batch as a whole have moved away from those of the calibration."""

from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anomaly_ae.metrics.ranking import Interval, auroc_interval, delong, require_numbers

LEAST_EFFECT = 0.2  # on either side of 0.5: what a shift of 0.74 standard deviations or 40 % plain anomalies would do
DRIFT_CONFIDENCE = 0.99
FEWEST_COMPARED = 20  # images on each side, for an interval that means something
WINDOW, FEWEST_IN_WINDOW, COMPARED_EVERY = 300, 100, 30  # of scores that come one by one


@dataclass(frozen=True)
class Drift:
    """A two-sample comparison of a batch with the calibration normals.

    effect: the share of pairs in which the image of the batch scores above the calibration image, ties counted half;
    0.5 where nothing has moved (the Mann-Whitney statistic, https://doi.org/10.1214/aoms/1177730491)
    interval: at 99 % confidence
    moved: whether the whole interval lies more than 0.2 from 0.5. A test of mere inequality would alarm on every
    large batch, since no two sets of images are quite alike
    """

    effect: float
    interval: Interval
    moved: bool


def measure_drift(batch: Tensor, calibration: Tensor) -> Drift | None:
    """Compare scores of a batch, (N,), with calibration scores, (n,); None with fewer than 20 on either side.

    Raises `DataError` for a score that is no number.
    """
    require_numbers(batch)
    if min(len(batch), len(calibration)) < FEWEST_COMPARED:
        return None
    above, below = batch.double().numpy(), calibration.double().numpy()
    interval = auroc_interval(above, below, DRIFT_CONFIDENCE)
    moved = interval.low > 0.5 + LEAST_EFFECT or interval.high < 0.5 - LEAST_EFFECT
    return Drift(delong(above, below)[0], interval, moved)


@dataclass
class RollingDrift:
    """Drift of the last 300 of scores that come one by one.

    It begins when the whole interval lies more than 0.2 from 0.5, and ends when the whole of it lies less: between
    the two, nothing changes, so that it does not begin again and again.
    """

    calibration: Tensor
    moved: bool = False
    _scores: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _fresh: int = 0

    def add(self, scores: Tensor) -> Drift | None:
        """Take scores in, (N,), which are numbers; the drift where it has begun or ended with them."""
        self._scores.extend(scores.tolist())
        self._fresh += len(scores)
        if self._fresh < COMPARED_EVERY or len(self._scores) < FEWEST_IN_WINDOW:
            return None
        self._fresh = 0
        drift = measure_drift(torch.tensor(self._scores), self.calibration)
        if drift is None or not (_is_within(drift) if self.moved else drift.moved):
            return None
        self.moved = not self.moved
        return drift


def _is_within(drift: Drift) -> bool:
    return drift.interval.low > 0.5 - LEAST_EFFECT and drift.interval.high < 0.5 + LEAST_EFFECT
