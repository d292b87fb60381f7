"""Whether the scores of a batch as a whole have moved away from those of the calibration."""

from dataclasses import dataclass

from torch import Tensor

from anomaly_ae.metrics.ranking import Interval, auroc_interval, delong, require_numbers

LEAST_EFFECT = 0.2  # on either side of 0.5: what a shift of 0.74 standard deviations or 40 % plain anomalies would do
DRIFT_CONFIDENCE = 0.99
FEWEST_COMPARED = 20  # images on each side, for an interval that means something


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
