from fractions import Fraction

import pytest
import torch
from scipy.stats import binom

from anomaly_ae.calibration import Calibration, alarms_allowed
from anomaly_ae.errors import CalibrationError


def test_threshold_and_p_values_by_hand() -> None:
    calibration = Calibration(torch.arange(1.0, 20.0), target_fpr=0.1)  # 19 scores, k = ⌊0.1 · 20⌋ = 2
    assert calibration.threshold == 18
    p = calibration.p_values(torch.tensor([0.0, 1.0, 18.0, 18.5, 19.0, 25.0]))
    assert p.tolist() == pytest.approx([1.0, 1.0, 3 / 20, 2 / 20, 2 / 20, 1 / 20])
    assert calibration.expected_fpr == 2 / 20


@pytest.mark.parametrize("n", [1, 9, 19, 20, 99, 107, 999, 1862])
@pytest.mark.parametrize("target_fpr", [0.01, 0.05, 0.07, 0.1, 0.3, 1 / 3, 0.5, 0.29])
def test_score_above_threshold_and_p_at_most_the_rate_always_agree(n: int, target_fpr: float) -> None:
    if 1 / (n + 1) > target_fpr:
        return
    generator = torch.Generator().manual_seed(n)
    scores = torch.randint(0, max(2, n // 3), (n,), generator=generator).float()  # many ties
    calibration = Calibration(scores, target_fpr)
    asked = torch.cat([scores, torch.rand(500, generator=generator) * scores.max() * 1.2])
    assert torch.equal(asked > calibration.threshold, calibration.p_values(asked) <= target_fpr)


def test_k_is_free_of_rounding_error() -> None:
    for thousandths in range(1, 1000):
        for n in (99, 199, 999):
            exact = int(Fraction(thousandths, 1000) * (n + 1))
            assert alarms_allowed(n, thousandths / 1000) == exact


def test_the_rate_holds_on_average_over_calibration_sets() -> None:
    """10,000 draws of calibration and fresh scores from one law; the alarms lie in a 99.9 % binomial interval."""
    generator = torch.Generator().manual_seed(1)
    draws, alarms = 10_000, 0
    for _ in range(draws):
        scores = torch.randn(40, generator=generator)
        alarms += int(scores[-1] > Calibration(scores[:-1], 0.1).threshold)  # k = 4 of 40
    assert binom.ppf(0.0005, draws, 0.1) <= alarms <= binom.ppf(0.9995, draws, 0.1)


def test_too_few_images_are_refused_with_the_smallest_rate() -> None:
    with pytest.raises(CalibrationError) as caught:
        Calibration(torch.rand(108), target_fpr=0.001)
    for part in ("0.001", "999", "108", "0.009175"):
        assert part in str(caught.value)
    Calibration(torch.rand(108), target_fpr=0.009175)


@pytest.mark.parametrize("target_fpr", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(target_fpr: float) -> None:
    with pytest.raises(CalibrationError, match="above 0 and below 1"):
        Calibration(torch.rand(10), target_fpr)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CalibrationError, match="finite"):
        Calibration(torch.tensor([float("nan")] * 30), 0.1)


def test_constant_scores_raise_no_alarm_at_themselves() -> None:
    calibration = Calibration(torch.ones(50), 0.1)
    assert not bool((torch.ones(3) > calibration.threshold).any())
    assert calibration.p_values(torch.ones(1)).item() == 1
