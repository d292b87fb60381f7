"""Whether the scores of a batch as a whole have moved away from those of the calibration."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from anomaly_ae.metrics.ranking import Interval, auroc_interval, delong, require_numbers

LEAST_EFFECT = 0.2  # on either side of 0.5: what a shift of 0.74 standard deviations or 40 % plain anomalies would do
DRIFT_CONFIDENCE = 0.99
FEWEST_COMPARED = 20  # images on each side, for an interval that means something
WINDOW, FEWEST_IN_WINDOW, COMPARED_EVERY = 300, 100, 30  # of scores that come one by one


@dataclass(frozen=True)
class Drift:
    """A two-sample comparison of a batch with the calibration normals, or those of the group that is most like it.

    A test of mere inequality would alarm on every large batch, since no two sets of images are quite alike.

    Attributes:
        effect: the share of pairs in which the image of the batch scores above the calibration image, ties counted
            half; 0.5 where nothing has moved (the Mann-Whitney statistic, <https://doi.org/10.1214/aoms/1177730491>)
        interval: at 99 % confidence
        moved: whether the whole interval lies more than 0.2 from 0.5, and those of all other groups on the same side,
            for what lies above one group and below another may be a mixture of both
    """

    effect: float
    interval: Interval
    moved: bool

    @property
    def side(self) -> int:
        """1 where the whole interval lies more than 0.2 above 0.5, -1 where it lies below, and 0 elsewhere."""
        return (self.interval.low > 0.5 + LEAST_EFFECT) - (self.interval.high < 0.5 - LEAST_EFFECT)


def measure_drift(batch: Tensor, groups: Sequence[Tensor]) -> Drift | None:
    """Compare scores of a batch, (N,), with the calibration scores, (n,), of each group; None with fewer than 20 in
    the batch, or in every group. Smaller groups are left out.

    Raises `DataError` for a score that is no number.
    """
    require_numbers(batch)
    large = [group for group in groups if len(group) >= FEWEST_COMPARED]
    if len(batch) < FEWEST_COMPARED or not large:
        return None
    drifts = [_compare(batch, group) for group in large]
    nearest = min(drifts, key=lambda drift: (abs(drift.side), abs(drift.effect - 0.5)))
    return replace(nearest, moved={drift.side for drift in drifts} in ({1}, {-1}))


def _compare(batch: Tensor, group: Tensor) -> Drift:
    above, below = batch.double().numpy(), group.double().numpy()
    return Drift(delong(above, below)[0], auroc_interval(above, below, DRIFT_CONFIDENCE), moved=False)


@dataclass
class RollingDrift:
    """Drift of the last 300 of scores that come one by one, from calibration scores, (n,), of each group.

    It begins when the whole interval lies more than 0.2 from 0.5, and ends when the whole of it lies less, or on one
    side of one group and on the other of another: between the two, nothing changes, so that it does not begin again
    and again.
    """

    groups: Sequence[Tensor]
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
        drift = measure_drift(torch.tensor(self._scores), self.groups)
        if drift is None or not (_is_over(drift) if self.moved else drift.moved):
            return None
        self.moved = not self.moved
        return drift


def _is_over(drift: Drift) -> bool:
    if drift.side:
        return not drift.moved
    return drift.interval.low > 0.5 - LEAST_EFFECT and drift.interval.high < 0.5 + LEAST_EFFECT
