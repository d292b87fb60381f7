"""From score to p-value, and the threshold that holds a false-alarm rate."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from anomaly_ae.errors import CalibrationError

METHOD = "marginal"
SMALLEST_RATE = 1e-9  # nobody has that many images


@dataclass(frozen=True)
class Calibration:
    """The `marginal` method: conformal p-values from the scores of n calibration normals.

    scores:     float32 (n,), of normal images used for nothing else, ascending
    target_fpr: the false-alarm rate α asked for, in (0, 1)

    With c the number of calibration scores ≥ s, p(s) = (1 + c) / (n + 1). The threshold is the k-th largest
    calibration score, k = ⌊α(n + 1)⌋, so that s > threshold exactly when p(s) ≤ α; ties count against an
    alarm. For a normal image exchangeable with the calibration ones, P(alarm) ≤ k / (n + 1) ≤ α, on average
    over calibration sets. Vovk, Gammerman and Shafer 2005, https://doi.org/10.1007/b106715; Bates et al. 2023,
    https://doi.org/10.1214/22-AOS2244

    Raises `CalibrationError` when n is too small for α or a score is not finite.
    """

    scores: Tensor
    target_fpr: float

    def __post_init__(self) -> None:
        require_enough(len(self.scores), self.target_fpr)
        if not bool(torch.isfinite(self.scores).all()):
            raise CalibrationError("some calibration scores are not finite numbers; train again, with a lower rate")
        object.__setattr__(self, "scores", self.scores.float().cpu().sort().values)

    @property
    def threshold(self) -> float:
        """The score above which an image is called anomalous."""
        return float(self.scores[-alarms_allowed(len(self.scores), self.target_fpr)])

    @property
    def expected_fpr(self) -> float:
        """k / (n + 1): the false-alarm rate to expect of new normal images, at most `target_fpr`."""
        return alarms_allowed(len(self.scores), self.target_fpr) / (len(self.scores) + 1)

    def p_values(self, scores: Tensor) -> Tensor:
        """p-values, float64 (N,), in [1/(n + 1), 1], of scores (N,)."""
        n = len(self.scores)
        below = torch.searchsorted(self.scores, scores.float().cpu().contiguous())  # how many are < s
        return (1 + n - below).double() / (n + 1)

    def at(self, target_fpr: float) -> "Calibration":
        """The same calibration scores for another rate."""
        return Calibration(self.scores, target_fpr)


def alarms_allowed(n: int, target_fpr: float) -> int:
    """The largest k with k / (n + 1) ≤ α: ⌊α(n + 1)⌋ by the comparison that p ≤ α makes, so that both agree."""
    guess = math.floor(target_fpr * (n + 1))
    return max(k for k in range(guess - 1, guess + 2) if k / (n + 1) <= target_fpr)


def require_enough(n: int, target_fpr: float) -> None:
    """Raise `CalibrationError` when n calibration images cannot hold the rate asked for."""
    if not SMALLEST_RATE <= target_fpr < 1:
        raise CalibrationError(f"a false-alarm rate lies above 0 and below 1, and {target_fpr:g} does not")
    if alarms_allowed(n, target_fpr) >= 1:
        return
    smallest = math.ceil(1e6 / (n + 1)) / 1e6
    raise CalibrationError(
        f"a false-alarm rate of {target_fpr:g} needs at least {math.ceil(1 / target_fpr) - 1:,} calibration images, "
        f"and there are {n:,}; the smallest rate possible is {smallest:g}"
    )
