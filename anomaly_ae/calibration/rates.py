"""Which false-alarm rates a number of calibration images can hold, and what is proven of them."""

import math
from decimal import ROUND_CEILING, Context
from fractions import Fraction
from itertools import count

from anomaly_ae.calibration.tail import FEWEST_IN_TAIL
from anomaly_ae.config.run_config import CONDITIONAL, CROSS, MARGINAL, TAIL, USUAL_RATE
from anomaly_ae.errors import CalibrationError
from anomaly_ae.metrics.ranking import USUAL_CONFIDENCE

LARGEST_UNASKED = 1 / 8  # what ten normal images, some of which are to measure with, can hold
SMALLEST_RATE = 1e-9  # nobody has that many images
UP = Context(prec=4, rounding=ROUND_CEILING)  # a smallest rate is told in so many digits, and can be asked for so


def require_enough(
    n: int,
    target_fpr: float,
    guarantee: str = MARGINAL,
    confidence: float = USUAL_CONFIDENCE,
    most: int = 0,
    groups: int = 1,
    enough: int = 0,
    instead: str = "",
) -> None:
    """Raise `CalibrationError` when n calibration images cannot hold the rate asked for.

    most:   how many there would be for a rate that so many can hold
    groups: of how many groups these images are the smallest
    enough: normal images, learned from and all, of which so many as are needed would calibrate; 0 where unknown
    instead: what to do in place of asking for this guarantee, if anything helps
    """
    if not SMALLEST_RATE <= target_fpr < 1:
        raise CalibrationError(f"a false-alarm rate lies above 0 and below 1, and {target_fpr:g} does not")
    if can_hold(n, target_fpr, guarantee, confidence):
        return
    available = max(n, most)
    smallest = smallest_rate(available, guarantee, confidence)
    needed = images_needed(target_fpr, guarantee, confidence)
    there = f"there are {'at most ' if most else ''}{available:,}"
    there += f" in the smallest of {groups} groups" if groups > 1 else ""
    how = {CONDITIONAL: f" with {confidence:.0%} confidence", TAIL: " by a tail"}.get(guarantee, "")
    possible = f"; the smallest rate possible is {smallest:g}" if smallest < 1 else ""
    possible += "; beyond that, the guarantee tail of anomaly-ae calibrate extrapolates" if n > FEWEST_IN_TAIL else ""
    use = f"use {enough:,} or more normal images to train with" if enough else "use more normal images"
    ways = [use, instead, "ask for a higher rate"]
    if guarantee == TAIL:  # for which a higher rate needs no fewer
        ways = [use, instead or ("take another guarantee" if can_hold(available, target_fpr) else "")]
    *first, last = filter(None, ways)
    raise CalibrationError(
        f"a false-alarm rate of {target_fpr:g}{how} needs at least {needed:,} calibration images, "
        f"and {there}{possible}; {', '.join(first)}{', or ' if first else ''}{last}"
    )


def can_hold(n: int, target_fpr: float, guarantee: str = MARGINAL, confidence: float = USUAL_CONFIDENCE) -> bool:
    """Whether n calibration images are enough for a rate."""
    return target_fpr >= _lowest_p_value(n, guarantee, confidence)


def smallest_rate(n: int, guarantee: str = MARGINAL, confidence: float = USUAL_CONFIDENCE) -> float:
    """The smallest false-alarm rate that n calibration images can hold, rounded up to four digits, so that what is
    printed can be asked for; 1 where they can hold none.
    """
    return float(UP.create_decimal(repr(_lowest_p_value(n, guarantee, confidence))))


def default_rate(n: int, guarantee: str = MARGINAL) -> float:
    """The usual false-alarm rate, or where n calibration images cannot hold it the smallest that they can, or the
    largest that people would want without asking for it.
    """
    return min(max(USUAL_RATE, smallest_rate(n, guarantee)), LARGEST_UNASKED)


def _lowest_p_value(n: int, guarantee: str, confidence: float) -> float:
    """The p-value of a score above all n calibration scores; 1 where it says nothing."""
    if guarantee == TAIL:
        return SMALLEST_RATE if n > FEWEST_IN_TAIL else 1.0
    if guarantee == CONDITIONAL:
        from scipy.special import betaincinv

        return float(betaincinv(1, n, confidence)) if n else 1.0
    return 1 / (n + 1)


def images_needed(target_fpr: float, guarantee: str = MARGINAL, confidence: float = USUAL_CONFIDENCE) -> int:
    """The fewest calibration images that can hold a rate: 19 for 5 %, and 59 with 95 % confidence."""
    if guarantee == TAIL:
        return FEWEST_IN_TAIL + 1
    if guarantee in (MARGINAL, CROSS):
        return math.ceil(1 / exact(target_fpr)) - 1
    about = math.ceil(math.log(1 - confidence) / math.log1p(-target_fpr))  # or one off, where rounding makes it so
    return next(n for n in count(max(1, about - 1)) if can_hold(n, target_fpr, guarantee, confidence))


def cross_bound(n: int, folds: int, alarms: int) -> float:
    """The proven false-alarm rate of a threshold that is the k-th largest of n scores of K folds of m = n / K images:
    (k + m - 1) / (n + m).

    Let m - 1 further images and the new one be a fold of their own, and let each of the n + m images score lowest
    among the detectors trained without its fold and another's. All are exchangeable. If the new image alarms, at
    least n + 1 - k of the others' lowest scores lie below its own, so it is among the k + m - 1 highest of n + m: the
    argument of Barber et al. 2021, https://doi.org/10.1214/20-AOS1965, for the jackknife-minmax, where m = 1.
    """
    size = n // folds
    return (alarms + size - 1) / (n + size)


def exact(rate: float) -> Fraction:
    """The simple fraction that a rate was meant to be, 1/10 for 0.1, for reckoning without rounding errors."""
    return Fraction(rate).limit_denominator(10**12)
