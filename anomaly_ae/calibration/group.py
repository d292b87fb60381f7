"""From score to p-value by normal images of one kind."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.calibration.rates import cross_bound
from anomaly_ae.calibration.tail import Floats, Tail
from anomaly_ae.config.run_config import CONDITIONAL, CROSS, MARGINAL
from anomaly_ae.metrics.ranking import USUAL_CONFIDENCE


@dataclass(frozen=True, eq=False)
class Group:
    """One monotone map from score to p-value, made of the scores of n calibration normals of one kind.

    scores: float32 (n,), ascending
    levels: float64 (n + 1,), ascending: the p-value of a score that c of them reach, for c = 0 to n
    tail:   the law of the highest ones, which has the say above its start, if there is one
    chosen: a threshold; from it down, p is at least one step above that of a score beyond it
    least_reached: c of that step; 0 where no threshold was chosen
    """

    scores: Tensor
    levels: Floats
    tail: Tail | None = None
    chosen: float | None = None
    least_reached: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.chosen is not None:  # now, for a graph that is being traced cannot have a number of it
            object.__setattr__(self, "least_reached", self.above(self.chosen) + 1)

    def __len__(self) -> int:
        return len(self.scores)

    def p_values(self, values: Tensor) -> Tensor:
        """p-values, float64 (N,), above 0 and up to 1, of scores, float32 (N,)."""
        reached = self._reached_by(values)
        if self.chosen is not None:
            one_step_up = reached.clamp_min(self.least_reached)
            reached = torch.where(values > self.chosen, reached, one_step_up)
        p = torch.from_numpy(self.levels)[reached]
        if self.tail:
            beyond = values > self.tail.start
            p[beyond] = torch.from_numpy(self.tail.p_values(values[beyond].double().numpy()))
        return p

    def plain_p_values(self, values: Tensor) -> Tensor:
        """The same by the levels alone, whatever the tail, or the threshold that was chosen."""
        return torch.from_numpy(self.levels)[self._reached_by(values)]

    def threshold(self, target_fpr: float) -> float:
        """The highest score whose p-value is above a rate; where the tail has the say, one close to it."""
        if self.tail and target_fpr < self.tail.share:
            return self.tail.score_at(target_fpr)
        return float(self.scores[-alarms_allowed(self.levels, target_fpr)])

    def expected_fpr(self, target_fpr: float) -> float:
        """The false-alarm rate to expect above that threshold: k / (n + 1) where it is the k-th largest score."""
        if self.tail and target_fpr < self.tail.share:
            return target_fpr
        return alarms_allowed(self.levels, target_fpr) / (len(self) + 1)

    def above(self, threshold: float) -> int:
        """How many of the scores are above a threshold."""
        return int((self.scores > threshold).sum())

    def _reached_by(self, values: Tensor) -> Tensor:
        """c, int64 (N,): how many of the scores are at least so high, of scores, float32 (N,)."""
        return len(self) - torch.searchsorted(self.scores, values)


def p_value_levels(n: int, guarantee: str = MARGINAL, confidence: float = USUAL_CONFIDENCE) -> Floats:
    """The p-value of a score that c of n calibration scores reach, for c = 0 to n, ascending, (n + 1,)."""
    at_least = np.arange(n + 1)
    if guarantee == CONDITIONAL:
        from scipy.special import betaincinv  # which the usual guarantee need not wait for

        bounds: Floats = betaincinv(at_least[:-1] + 1, n - at_least[:-1], confidence)
        return np.append(bounds, 1.0)
    return (1 + at_least) / (n + 1)


def proven_in_folds(n: int, folds: int, target_fpr: float) -> float:
    """The false-alarm rate that is proven of n scores in folds at the rate asked for, by `cross_bound`."""
    return cross_bound(n, folds, alarms_allowed(p_value_levels(n, CROSS), target_fpr))


def alarms_allowed(levels: Floats, target_fpr: float) -> int:
    """k, how many p-values of `levels` are at most α: the threshold is the k-th largest calibration score. For
    `marginal` it is ⌊α(n + 1)⌋, by the comparison that p ≤ α makes, which has no rounding error: the fraction
    k / (n + 1) and the decimal α are rounded to the same float where they are equal.
    """
    return int(np.searchsorted(levels, target_fpr, side="right"))
