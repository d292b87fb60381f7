"""Where a threshold misses anomalies that rank high: what would find them."""

import math

from torch import Tensor

from anomaly_ae.calibration.rates import UP, exact
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import Evaluation, Missed
from anomaly_ae.metrics.ranking import proportion_interval

WELL_RANKED, CHANCE = 0.9, 0.5  # AUROC
FEW_FOUND, ENOUGH_FOUND = 0.5, 0.9  # shares of the anomalies
MOST_ALARMS = 0.5  # the highest false-alarm rate that anybody may be advised to take


def find_missed(detector: Detector, evaluation: Evaluation, anomalies: Tensor) -> Missed | None:
    """What would find the anomalies with scores (N,), where the ranking is good and the threshold finds few of them.

    None where that is not so, where they are too few to be sure of it, and where the threshold was chosen, so that no
    rate stands behind it.
    """
    if detector.calibration.chosen is not None or not _is_missing(detector, evaluation, anomalies):
        return None
    odd, p_values = evaluation.odd_normals, detector.p_values(anomalies).sort().values
    without = _share_above(anomalies, odd.threshold_without if odd else None)
    needed = float(p_values[math.ceil(exact(ENOUGH_FOUND) * len(anomalies)) - 1])
    rate = float(UP.create_decimal(repr(needed)))
    if rate > MOST_ALARMS:
        return Missed(None, None, None, without)
    threshold = detector.calibration.at(target_fpr=rate).threshold
    return Missed(rate, threshold, _share_above(anomalies, threshold), without)


def _is_missing(detector: Detector, evaluation: Evaluation, anomalies: Tensor) -> bool:
    """Whether they rank high and few are found, both beyond what chance brings about with so few images."""
    auroc, interval = evaluation.auroc, evaluation.auroc_ci
    if auroc is None or interval is None or auroc < WELL_RANKED or interval[0] <= CHANCE:
        return False
    return proportion_interval(int((anomalies > detector.threshold).sum()), len(anomalies))[1] < FEW_FOUND


def _share_above(scores: Tensor, threshold: float | None) -> float | None:
    return None if threshold is None else float((scores > threshold).double().mean())
