"""The guarantee cross by itself; detectors that have it are tested in tests/workflows/test_cross.py."""

import numpy as np
import pytest
import torch

from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.rates import cross_bound, smallest_rate
from anomaly_ae.config.run_config import CONDITIONAL, CROSS, MARGINAL
from anomaly_ae.errors import CalibrationError


def cross(count: int = 30, target_fpr: float = 0.1, folds: int = 10) -> Calibration:
    return Calibration(torch.arange(1.0, count + 1), target_fpr, CROSS, folds=folds)


def test_threshold_p_values_and_bound_by_hand() -> None:
    calibration = cross()  # k = ⌊0.1 · 31⌋ = 3, folds of m = 3
    assert calibration.threshold == 28
    assert calibration.p_values(torch.tensor([0.0, 28.0, 28.5, 31.0])).tolist() == pytest.approx(
        [1.0, 4 / 31, 3 / 31, 1 / 31]
    )
    assert calibration.proven_fpr == 5 / 33
    assert calibration.method == "cross, 10 folds, at most 0.152 proven"


def test_where_each_image_is_a_fold_the_rate_asked_is_proven() -> None:
    assert cross_bound(19, 19, 2) == 2 / 20


@pytest.mark.parametrize(("folds", "fitted"), [(3, "mean"), (6, "mean"), (3, "nearest"), (2, "noise"), (6, "noise")])
def test_the_bound_holds_whatever_is_fitted(folds: int, fitted: str) -> None:
    """6 numbers of a law with a heavy tail, and what is learned of some of them changes wildly with any of them."""
    draws, count = 20_000, 6
    random = np.random.default_rng(0)
    values, size = random.standard_t(1.5, (draws, count + 1)), count // folds
    fold = np.arange(count) // size

    def scores(k: int, of: np.ndarray) -> np.ndarray:
        learned = values[:, :count][:, fold != k]  # (draws, some)
        if fitted == "nearest":
            return np.abs(of[:, :, None] - learned[:, None]).min(axis=2)
        scale = np.exp(5 * np.sin(1e3 * learned.sum(axis=1, keepdims=True))) if fitted == "noise" else 1.0
        return np.abs(of - learned.mean(axis=1, keepdims=True)) * scale

    own = np.concatenate([scores(k, values[:, :count][:, fold == k]) for k in range(folds)], axis=1)
    new = np.min([scores(k, values[:, count:]) for k in range(folds)], axis=0)
    reached = (own >= new).sum(axis=1)
    for alarms in (1, 2):
        rate = (reached <= alarms - 1).mean()
        assert rate <= cross_bound(count, folds, alarms) + 4 * (rate * (1 - rate) / draws) ** 0.5


def test_what_it_cannot_hold_is_refused_with_the_smallest_rate() -> None:
    with pytest.raises(CalibrationError, match=r"the smallest rate possible is 0\.1;"):
        cross(count=9, target_fpr=0.05, folds=9)
    assert smallest_rate(9, CROSS) == 0.1


def test_it_goes_with_a_detector_of_folds_alone() -> None:
    with pytest.raises(CalibrationError, match="trained in folds, which this is not; train with"):
        Calibration(torch.arange(30.0), 0.1, CROSS)
    with pytest.raises(CalibrationError, match="and conditional was asked; calibrate with other normal images"):
        cross().changes(guarantee=CONDITIONAL)
    with pytest.raises(CalibrationError, match="discoveries need marginal p-values"):
        cross().discoveries(torch.arange(3.0), 0.1)


def test_other_images_or_a_threshold_or_rate_take_its_place() -> None:
    other = cross().at(scores=torch.arange(50.0))
    assert (other.guarantee, other.folds) == (MARGINAL, 0)
    chosen = cross().at_threshold(20.5)
    assert (chosen.folds, chosen.target_fpr) == (10, 11 / 31)
    again = chosen.at(**chosen.changes(target_fpr=0.2))
    assert (again.guarantee, again.threshold) == (CROSS, 25)
    assert cross().at(**cross().changes(target_fpr=0.2)).threshold == 25
