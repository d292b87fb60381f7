"""How well scores rank and what a threshold lets through, measured on labelled test images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from anomaly_ae.errors import DataError

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]

USUAL_CONFIDENCE = 0.95
DELONG = "DeLong, on the logit scale"
DELONG_TEST = "DeLong, paired"
BOOTSTRAP = "bootstrap over images, percentiles"
RESAMPLES = 2000
PARTIAL_TO = 0.1  # FPR to which the partial AUROC goes
FEWEST_FOR_TEST = 10  # images on each side, for a test by DeLong's variance
FEW = f"none: fewer than {FEWEST_FOR_TEST} images on one side"
DEGENERATE = "none: an AUROC of 0 or 1 has no variance"
PERFECT = "one-sided bound at perfect separation"
TOO_FEW = "none: fewer than two images on one side"
NO_DIFFERENCE = "none: the scores do not differ"


@dataclass(frozen=True)
class Interval:
    """A confidence interval and the method it was made by."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Ranking:
    """Quality of the ranking alone, free of any threshold; all but the interval in [0, 1].

    average_precision is the mean precision over the thresholds, each weighted by what it adds to the recall;
    partial_auroc is the area to 10 % FPR, standardised so that 0.5 is chance (McClish 1989,
    https://doi.org/10.1177/0272989X8900900307).
    """

    auroc: float
    auroc_ci: Interval
    average_precision: float
    fpr_at_95_tpr: float
    partial_auroc: float


@dataclass(frozen=True)
class Comparison:
    """How far the AUROC of one score lies above that of another on the same images, in [-1, 1], and the two-sided
    p-value of there being no difference; None where the test cannot be made, and the interval's method says why.
    """

    difference: float
    interval: Interval
    p_value: float | None


@dataclass(frozen=True)
class Verdicts:
    """What the verdicts at a threshold come to; None where there is nothing to divide by."""

    false_positive_rate: float | None
    true_positive_rate: float | None
    precision: float | None
    f1: float | None


def require_numbers(scores: npt.ArrayLike) -> None:
    """Raise `DataError` when one of the scores (N,) is no number: it is neither normal nor anomalous."""
    values = np.asarray(scores)
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        raise DataError(
            f"{len(bad):,} of {values.size:,} scores are no numbers (NaN), the first at position {bad[0]:,}; leave "
            "them out, or look at the images they are of"
        )


def ranking(scores: Floats, novel: Bools) -> Ranking:
    """Measure scores (N,), higher for more anomalous, against labels (N,), True for novel; both must occur.

    Raises `DataError` for a score that is no number, as all do that measure scores.
    """
    require_numbers(scores)
    curve = roc_curve(scores, novel)
    return Ranking(
        auroc=delong(scores[novel], scores[~novel])[0],
        auroc_ci=auroc_interval(scores[novel], scores[~novel]),
        average_precision=float(min(1.0, (np.diff(curve.tpr) * curve.precision).sum())),  # 1 but for rounding
        fpr_at_95_tpr=float(curve.fpr[np.argmax(curve.tpr >= 0.95)]),
        partial_auroc=curve.partial_area(PARTIAL_TO),
    )


@dataclass(frozen=True)
class RocCurve:
    """What thresholds come to, from above all scores down to the lowest of them: false and true positive rate, (K,)
    in [0, 1], from (0, 0) to (1, 1), and the precision at each but the first, (K - 1,).
    """

    fpr: Floats
    tpr: Floats
    precision: Floats

    def partial_area(self, to: float) -> float:
        """The area to a false positive rate, standardised: 0.5 is chance, 1 the highest, McClish 1989."""
        inside = self.fpr <= to
        fpr, tpr = np.append(self.fpr[inside], to), np.append(self.tpr[inside], np.interp(to, self.fpr, self.tpr))
        area, least = float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum()), to**2 / 2
        return min(1.0, (1 + (area - least) / (to - least)) / 2)


def roc_curve(scores: Floats, novel: Bools) -> RocCurve:
    """The curve of scores (N,), higher for more anomalous, with labels (N,), True for novel; both must occur."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    at = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)  # equal ones alarm together
    caught = np.cumsum(novel[order])[at]
    false = 1 + at - caught
    fpr, tpr = (np.append(0.0, counts / counts[-1]) for counts in (false, caught))
    return RocCurve(fpr, tpr, caught / (1 + at))


def verdicts(alarms: Bools, novel: Bools) -> Verdicts:
    """Count alarms (N,) against labels (N,), True for novel; precision and F1 are of both kinds, or none."""
    caught, false = int((alarms & novel).sum()), int((alarms & ~novel).sum())
    missed, are_both = int(novel.sum()) - caught, bool(novel.any() and not novel.all())
    return Verdicts(
        false_positive_rate=_share(false, int((~novel).sum())),
        true_positive_rate=_share(caught, int(novel.sum())),
        precision=_share(caught, caught + false) if are_both else None,
        f1=_share(2 * caught, 2 * caught + false + missed) if are_both else None,
    )


def auroc_interval(novel: Floats, normal: Floats, confidence: float = USUAL_CONFIDENCE) -> Interval:
    """Confidence interval of the AUROC of scores of novel (M,) and normal (N,) images; of the mean AUROC of S scores
    of the same images, (S, M) and (S, N).

    DeLong's variance, taken to the logit scale so that the interval stays inside (0, 1). DeLong, DeLong and
    Clarke-Pearson 1988, https://doi.org/10.2307/2531595

    At perfect separation that variance is zero and says nothing. Then min(M, N) disjoint pairs were all in
    order, which an AUROC of θ brings about with probability θ^min(M, N) at the most likely: the one-sided
    bound is (1 - confidence)^(1 / min(M, N)). Where it is zero since the scores do not differ, nothing can be said,
    and the interval is [0, 1].
    """
    auroc, variance = delong(novel, normal)
    if auroc in (0.0, 1.0):
        bound = float((1 - confidence) ** (1 / _fewer(novel, normal)))
        return Interval(bound, 1.0, PERFECT) if auroc == 1.0 else Interval(0.0, 1 - bound, PERFECT)
    if _fewer(novel, normal) < 2:
        return Interval(0.0, 1.0, TOO_FEW)
    if variance == 0:
        return Interval(0.0, 1.0, NO_DIFFERENCE)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * np.sqrt(variance) / (auroc * (1 - auroc))
    centre = np.log(auroc / (1 - auroc))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-half, half]))))
    return Interval(float(low), float(high), DELONG)


def bootstrap_interval(novel: Floats, normal: Floats, confidence: float = USUAL_CONFIDENCE) -> Interval:
    """The interval of `auroc_interval` by the bootstrap instead: the percentiles of the AUROC over 2,000 samples, for
    each of which as many novel images and as many normal ones as there are were drawn with replacement.

    Every call draws the same. Where DeLong's interval is none, neither is this one: no sample is in another order.
    Efron and Tibshirani 1993, An Introduction to the Bootstrap, https://doi.org/10.1201/9780429246593
    """
    if (interval := auroc_interval(novel, normal, confidence)).method != DELONG:
        return interval
    ranks = [np.split(_order(np.concatenate(both)), [novel.shape[-1]]) for both in _by_score(novel, normal)]
    draws, areas = np.random.default_rng(0), np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        of_novel, of_normal = (draws.integers(side.shape[-1], size=side.shape[-1]) for side in (novel, normal))
        areas[i] = np.mean([_area(above[of_novel], below[of_normal]) for above, below in ranks])
    low, high = np.quantile(areas, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), BOOTSTRAP)


def _area(novel: npt.NDArray[np.intp], normal: npt.NDArray[np.intp]) -> float:
    """The AUROC of ranks, (M,) and (N,); faster than by sorting, for they are counted."""
    normals = np.bincount(normal, minlength=int(novel.max()) + 1)
    return float((np.cumsum(normals) - normals / 2)[novel].mean() / len(normal))


def delong(novel: Floats, normal: Floats) -> tuple[float, float]:
    """AUROC and DeLong's variance of it, of several scores that of their mean; the variance is NaN with fewer than
    two images on one side.
    """
    above, below = placements(novel, normal)
    if _fewer(novel, normal) < 2:
        return float(above.mean()), float("nan")
    return float(above.mean()), float(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))


def placements(novel: Floats, normal: Floats) -> tuple[Floats, Floats]:
    """The share of normals that each novel image is above, (M,), and of novel images above each normal, (N,).

    Ties count half. Of several scores of the same images, (S, M) and (S, N), it is the mean.
    """
    require_numbers(novel)
    require_numbers(normal)
    both = [(_share_below(a, b), 1 - _share_below(b, a)) for a, b in _by_score(novel, normal)]
    above, below = (np.mean(shares, axis=0) for shares in zip(*both, strict=True))
    return above, below


def _by_score(novel: Floats, normal: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Scores of novel and of normal images, (M,) and (N,), one after the other of several."""
    return zip(np.atleast_2d(novel), np.atleast_2d(normal), strict=True)


def _fewer(novel: Floats, normal: Floats) -> int:
    """The number of images on the side that has fewer."""
    return int(min(novel.shape[-1], normal.shape[-1]))


def _share_below(scores: Floats, others: Floats) -> Floats:
    """For each score, (N,), the share of the others, (M,), that lie below it; those equal to it count half."""
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    share: Floats = (below + up_to) / (2 * len(others))
    return share


def compare_auroc(scores: Floats, others: Floats, novel: Bools) -> Comparison:
    """DeLong's test of two scores, (N,) each, of the same images with labels (N,), True for novel.

    DeLong, DeLong and Clarke-Pearson 1988, https://doi.org/10.2307/2531595. With fewer than 10 images on one side, or
    an AUROC of 0 or 1, its variance says nothing: there is no p-value, and the interval is what those of the two
    AUROCs leave open, see `auroc_interval`.
    """
    first, second = (placements(values[novel], values[~novel]) for values in (scores, others))
    areas = float(first[0].mean()), float(second[0].mean())
    difference = areas[0] - areas[1]
    if np.array_equal(_order(scores), _order(others)):
        return Comparison(0.0, Interval(0.0, 0.0, DELONG_TEST), 1.0)
    variance = sum(float((a - b).var(ddof=1)) / len(a) for a, b in zip(first, second, strict=True) if len(a) > 1)
    is_few = min(int(novel.sum()), int((~novel).sum())) < FEWEST_FOR_TEST
    if is_few or not {0.0, 1.0}.isdisjoint(areas) or variance == 0:
        one, other = (auroc_interval(values[novel], values[~novel]) for values in (scores, others))
        return Comparison(
            difference, Interval(one.low - other.high, one.high - other.low, FEW if is_few else DEGENERATE), None
        )
    error = variance**0.5
    half = NormalDist().inv_cdf(0.5 + USUAL_CONFIDENCE / 2) * error
    p_value = math.erfc(abs(difference) / error / math.sqrt(2))
    return Comparison(difference, Interval(difference - half, difference + half, DELONG_TEST), p_value)


def _order(scores: Floats) -> npt.NDArray[np.intp]:
    """The rank of each score, (N,), equal ones the same."""
    return np.unique(scores, return_inverse=True)[1]


def proportion_interval(successes: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a proportion, https://doi.org/10.1093/biomet/26.4.404; trials ≥ 1."""
    from scipy.special import betaincinv  # a second less than all of scipy.stats

    above, missed = (1 + USUAL_CONFIDENCE) / 2, trials - successes
    low = betaincinv(successes, missed + 1, 1 - above) if successes else 0.0
    high = betaincinv(successes + 1, missed, above) if missed else 1.0
    return float(low), float(high)


def best_f1(novel: Floats, normal: Floats) -> tuple[float, float]:
    """The highest F1 that a threshold reaches on scores of novel (M,) and normal (N,) images, and the highest such
    threshold, above which an image is called anomalous.
    """
    values = np.sort(np.concatenate([novel, normal]))
    thresholds = np.unique(np.append(values, np.nextafter(values[0], -np.inf)))
    caught = len(novel) - np.searchsorted(np.sort(novel), thresholds, side="right")
    false = len(normal) - np.searchsorted(np.sort(normal), thresholds, side="right")
    f1 = 2 * caught / (caught + false + len(novel))
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    return float(f1[best]), float(thresholds[best])


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
