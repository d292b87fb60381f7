import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.rates import images_needed, smallest_rate
from anomaly_ae.config.run_config import CONDITIONAL, MARGINAL
from anomaly_ae.errors import CalibrationError


@given(n=st.integers(1, 3_000), guarantee=st.sampled_from([MARGINAL, CONDITIONAL]), confidence=st.floats(0.5, 0.99))
@example(n=1, guarantee=CONDITIONAL, confidence=0.99)  # where a quotient of logarithms is rounded to above 1
@settings(max_examples=100)
def test_the_smallest_rate_that_is_told_can_be_asked_for_and_hardly_a_smaller_one(
    n: int, guarantee: str, confidence: float
) -> None:
    told = smallest_rate(n, guarantee, confidence)
    assert told == float(f"{told:g}")
    Calibration(torch.arange(n).float(), told, guarantee, confidence)
    assert images_needed(told, guarantee, confidence) <= n
    with pytest.raises(CalibrationError, match=f"the smallest rate possible is {told:g}|use more normal images"):
        Calibration(torch.arange(n).float(), 0.998 * told, guarantee, confidence)


@pytest.mark.parametrize("rate", [1 / 3, 1 / 7, 0.1, 0.05, 0.07, 0.29, 0.001, 1 / 999, 0.9, 0.35])
@pytest.mark.parametrize("guarantee", [MARGINAL, CONDITIONAL])
def test_the_images_needed_are_the_fewest(rate: float, guarantee: str) -> None:
    needed = images_needed(rate, guarantee)
    Calibration(torch.rand(needed), rate, guarantee)
    with pytest.raises(CalibrationError, match=f"needs at least {needed:,} calibration images"):
        Calibration(torch.rand(needed - 1), rate, guarantee)


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


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 59), (0.01, 299), (0.1, 29)])
def test_the_fewest_images_for_the_conditional_guarantee(rate: float, needed: int) -> None:
    assert images_needed(rate, CONDITIONAL, 0.95) == needed
    Calibration(torch.rand(needed), rate, CONDITIONAL)
    with pytest.raises(CalibrationError, match=f"with 95% confidence needs at least {needed:,}"):
        Calibration(torch.rand(needed - 1), rate, CONDITIONAL)
