"""Normal calibration images that score so unlike the others that somebody should look at them."""

from dataclasses import dataclass

import numpy as np
import torch

from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.rates import smallest_rate
from anomaly_ae.calibration.tail import SCORES_ALIKE, Floats
from anomaly_ae.errors import CalibrationError
from anomaly_ae.escaping import counted, shown

ODD_LEVEL = 0.005  # the probability that one of usual scores, whose logarithms follow a normal law, is called odd
ODD_SHARE, FEWEST_TO_JUDGE = 0.2, 5  # the share that may be odd, and the fewest that show what is usual
MOST_SAID = 3  # of the odd ones, in a sentence


@dataclass(frozen=True)
class OddNormals:
    """The normal images that look odd, the highest score first, and what they do to the threshold.

    Attributes:
        names: of their files; None where they are none
        images: how many set the threshold, these among them
        threshold_without: what the others would set at the same rate; None where they are too few to hold it
        fewest_without: how many others there are, of those of the smallest group
        smallest_rate_without: the smallest rate that the others can hold
    """

    names: list[str] | None
    scores: list[float]
    images: int
    target_fpr: float
    threshold: float
    threshold_without: float | None
    fewest_without: int
    smallest_rate_without: float

    @property
    def about(self) -> str:
        """What is to be said of them, in a sentence."""
        one = len(self.scores) == 1
        them, they_are = ("it", "it is") if one else ("them", "they are")
        looks = f"{self._who} {'looks' if one else 'look'} odd among {counted(self.images, 'normal image')}"
        return (
            f"{looks}; without {them}, {self._without}: look at {them}, and if {they_are} not normal, train or "
            f"calibrate without {them}"
        )

    @property
    def _who(self) -> str:
        scores = [f"{score:.4g}" for score in self.scores[:MOST_SAID]]
        more = f" and {left:,} more" if (left := len(self.scores) - MOST_SAID) > 0 else ""
        if self.names:
            pairs = zip(self.names, scores, strict=False)
            return ", ".join(f"{name} (score {score})" for name, score in pairs) + more
        return f"{counted(len(self.scores), 'image')} (score {', '.join(scores)}{more})"

    @property
    def _without(self) -> str:
        if self.threshold_without is None:
            are_all = self.fewest_without == self.images - len(self.scores)
            left = f"{self.fewest_without:,}" if are_all else f"the {self.fewest_without:,} of the smallest group"
            return f"{left} would be too few for this rate, and enough from {self.smallest_rate_without:g} on"
        before, after = f"{self.threshold:.4g}", f"{self.threshold_without:.4g}"
        return f"the threshold would {f'stay {before}' if before == after else f'be {after} instead of {before}'}"


def odd_normals(calibration: Calibration) -> OddNormals | None:
    """Those of the calibration images that look odd; None where none does, or none of them set the threshold."""
    counts = odd_counts(calibration)
    if not any(counts):
        return None
    scores, names, groups = calibration.scores, calibration.names, calibration.groups
    is_odd = torch.zeros(len(scores), dtype=torch.bool)
    for number, count in enumerate(counts):
        members = torch.arange(len(scores)) if groups is None else torch.nonzero(groups == number).flatten()
        is_odd[members[len(members) - count :]] = True
    odd, usual = torch.nonzero(is_odd).flatten().flip(0), torch.nonzero(~is_odd).flatten()
    fewest = min(len(group) - count for group, count in zip(calibration.by_group, counts, strict=True))
    try:
        without = calibration.at(
            scores=scores[usual],
            names=names and tuple(names[i] for i in usual.tolist()),
            groups=None if groups is None else groups[usual],
        ).threshold
    except CalibrationError:
        without = None
    return OddNormals(
        names=[shown(names[i]) for i in odd.tolist()] if names else None,
        scores=scores[odd].tolist(),
        images=len(scores),
        target_fpr=calibration.target_fpr,
        threshold=calibration.threshold,
        threshold_without=without,
        fewest_without=fewest,
        smallest_rate_without=smallest_rate(fewest, calibration.guarantee, calibration.confidence),
    )


def odd_counts(calibration: Calibration) -> list[int]:
    """How many of the highest scores of each group are odd; none where the threshold was chosen."""
    if calibration.chosen is not None:
        return [0] * len(calibration.by_group)
    return [odd_count(group.scores.double().numpy()) for group in calibration.by_group]


def odd_count(scores: Floats) -> int:
    """How many of the highest of ascending scores (n,) are odd: a fifth of them at most.

    By the generalised extreme Studentised deviate test for outliers above, Rosner 1983,
    https://doi.org/10.1080/00401706.1983.10487848, of the logarithms where all scores are above 0; others are sums of
    logarithms already. Each of the highest in turn is compared with mean and deviation of those up to it, and the
    last that stands out is odd with all above it, so that two alike do not hide each other. Of scores of a log-normal
    law some are called odd in one of two hundred sets, and of a normal or an exponential law more rarely.
    """
    n, most = len(scores), int(ODD_SHARE * len(scores))
    if n < FEWEST_TO_JUDGE:
        return 0
    from scipy.special import stdtrit

    logs = np.log(scores) if scores[0] > 0 else scores
    centred = logs - np.median(logs)
    left = n - np.arange(most)  # how many there are up to each of the highest
    mean = centred.cumsum()[left - 1] / left
    variance = ((centred**2).cumsum()[left - 1] - left * mean**2).clip(0) / (left - 1)
    t = stdtrit(left - 2, 1 - ODD_LEVEL / left)
    critical = (left - 1) / np.sqrt(left) * np.sqrt(t**2 / (left - 2 + t**2))
    is_apart = scores[left - 1] - scores[left - 2] > SCORES_ALIKE * np.abs(scores[left - 1])
    stands_out = (centred[left - 1] - mean > critical * np.sqrt(variance)) & is_apart
    return int(np.flatnonzero(stands_out).max(initial=-1)) + 1
