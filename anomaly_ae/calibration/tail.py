"""The generalised Pareto tail of calibration scores."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt

from anomaly_ae.errors import CalibrationError
from anomaly_ae.storage.schema import Positive, Share, Within

TAIL_SHARE, FEWEST_IN_TAIL = 0.1, 30  # of the calibration scores, the highest, and how many of them a fit needs
FEWEST_DIFFERENT = 5  # of those
SCORES_ALIKE = 1e-5  # relative, between scores that another machine may give the other way round

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto law of the calibration scores above `start`.

    start: a calibration score
    share: (count + 1) / (n + 1), the p-value just above the start; that of the start itself counts its ties as well
    count: how many scores lie above it; the law was fitted to what they exceed `start` by
    shape: ξ, at least 0; scale: σ > 0, in units of the score

    p(s) = share · (1 + ξ (s - start) / σ)^(-1/ξ) for s > start. Pickands 1975,
    https://doi.org/10.1214/aos/1176343003
    """

    start: float
    share: Share
    count: Positive
    shape: Annotated[float, Within(0, 1e3)]
    scale: Annotated[float, Within(np.finfo(np.float64).tiny)]

    @classmethod
    def fit(cls, scores: Floats) -> "Tail":
        """By maximum likelihood, of the highest tenth of scores (n,), ascending, 29 at the least; n is more than 30.

        Scores that are alike to 1e-5 are ties. The tail starts below those that are tied with the last of the tenth,
        or if they are so many that this would be more than half of all, above them, for what exceeds the start by
        nothing belongs to no law of excesses: a fit to such would end at once. A shape below 0 would end the tail at
        a finite score and call everything beyond impossible, so it becomes 0, an exponential tail, which is heavier.
        Raises `CalibrationError` when there are too few different scores.
        """
        from scipy.stats import genpareto  # a second to import, which few calibrations need

        n, start, excesses = len(scores), *tail_excesses(scores)
        shape, _, scale = genpareto.fit(excesses, floc=0)
        shape, scale = (shape, scale) if shape > 0 else (0.0, excesses.mean())
        count = len(excesses)
        return cls(start, (count + 1) / (n + 1), count, float(shape), float(scale))

    def p_values(self, scores: Floats) -> Floats:
        """p-values, in (0, share], of scores above `start`, (N,)."""
        from scipy.stats import genpareto

        survival: Floats = genpareto.sf(scores - self.start, self.shape, scale=self.scale)
        return np.maximum(self.share * survival, np.finfo(float).tiny)

    def score_at(self, p: float) -> float:
        """The score whose p-value is p, for p up to `share`."""
        from scipy.stats import genpareto

        return self.start + float(genpareto.isf(p / self.share, self.shape, scale=self.scale))


def tail_excesses(scores: Floats) -> tuple[float, Floats]:
    """Where the tail of scores (n,) starts, and by how much those above exceed it, see `Tail.fit`."""
    n, highest = len(scores), max(FEWEST_IN_TAIL, round(TAIL_SHARE * len(scores))) - 1
    apart = SCORES_ALIKE * float(np.abs(scores).max())
    above = int(np.searchsorted(scores, scores[-highest] - apart))
    if n - above > max(highest, n // 2):
        above = int(np.searchsorted(scores, scores[-highest] + apart, side="right"))
    start = float(scores[above - 1])
    excesses = scores[above:] - start
    different = len(np.unique(np.round(excesses / apart))) if apart else 0
    if len(excesses) < FEWEST_IN_TAIL - 1 or different < FEWEST_DIFFERENT:
        raise CalibrationError(
            f"too many of the {n:,} calibration scores are equal for a tail: the highest {len(excesses):,} that "
            f"differ from the rest have {different} values, and {FEWEST_IN_TAIL - 1} with {FEWEST_DIFFERENT} are "
            "needed; take the guarantee marginal or conditional, or a scorer with finer scores"
        )
    return start, excesses
