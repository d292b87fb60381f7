import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.drift import measure_drift
from anomaly_ae.config.run_config import CONDITIONAL, MARGINAL, TAIL
from anomaly_ae.errors import CalibrationError, DataError, UnknownName, UsageError
from anomaly_ae.metrics.ranking import auroc_interval, ranking


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


def test_the_rate_holds_on_average_over_calibration_sets() -> None:
    """10,000 draws of calibration and fresh scores from one law; the alarms lie in a 99.9 % binomial interval."""
    generator = torch.Generator().manual_seed(1)
    draws, alarms = 10_000, 0
    for _ in range(draws):
        scores = torch.randn(40, generator=generator)
        alarms += int(scores[-1] > Calibration(scores[:-1], 0.1).threshold)  # k = 4 of 40
    assert binom.ppf(0.0005, draws, 0.1) <= alarms <= binom.ppf(0.9995, draws, 0.1)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CalibrationError, match="finite"):
        Calibration(torch.tensor([float("nan")] * 30), 0.1)


def test_constant_scores_raise_no_alarm_at_themselves() -> None:
    calibration = Calibration(torch.ones(50), 0.1)
    assert not bool((torch.ones(3) > calibration.threshold).any())
    assert calibration.p_values(torch.ones(1)).item() == 1


@given(
    scores=st.lists(st.integers(-40, 40), min_size=60, max_size=300),
    asked=st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=50),
    rate=st.sampled_from([0.02, 0.05, 0.1, 0.3, 0.9]),
    guarantee=st.sampled_from([MARGINAL, CONDITIONAL, TAIL]),
)
@settings(max_examples=80)
def test_verdict_and_p_value_agree_for_every_guarantee_and_p_falls_with_the_score(
    scores: list[int], asked: list[float], rate: float, guarantee: str
) -> None:
    try:
        calibration = Calibration(torch.tensor(scores).float(), rate, guarantee)
    except CalibrationError:
        return  # too few for that rate, or a tail of equal scores
    edge = np.float32(calibration.threshold)
    neighbours = [edge, *(np.nextafter(edge, np.float32(end)) for end in (-np.inf, np.inf))]
    near = [*neighbours, *(np.nextafter(float(edge), end) for end in (-np.inf, np.inf))]  # also of float64
    single = torch.tensor([*asked, *map(float, scores), *neighbours]).sort().values
    assert torch.equal(single > calibration.threshold, calibration.p_values(single) <= rate)
    values = torch.tensor([*asked, *map(float, scores), *map(float, near)], dtype=torch.float64).sort().values
    p = calibration.p_values(values)
    assert torch.equal(values > calibration.threshold, p <= rate)
    assert bool((p.diff() <= 0).all())
    assert p.min() >= 0
    assert p.max() <= 1


def test_the_conditional_rate_holds_in_19_of_20_calibration_sets() -> None:
    """Of uniform scores the rate above a threshold is known exactly: 1 - threshold."""
    generator = torch.Generator().manual_seed(2)
    sets = 2_000
    kept = sum(
        1 - Calibration(torch.rand(300, generator=generator), 0.05, CONDITIONAL).threshold <= 0.05
        for _ in range(sets)
    )
    assert kept >= binom.ppf(0.0005, sets, 0.95)
    marginal = sum(1 - Calibration(torch.rand(300, generator=generator), 0.05).threshold <= 0.05 for _ in range(sets))
    assert marginal < 0.7 * sets  # which is why there are two


def test_a_guarantee_by_another_name_is_refused() -> None:
    with pytest.raises(UnknownName, match="marginal, conditional, tail"):
        Calibration(torch.rand(100), 0.05, "surely")


def test_a_score_that_is_no_number_is_an_error_wherever_scores_come_in() -> None:
    calibration, scores = Calibration(torch.rand(100), 0.05), torch.rand(30)
    scores[7] = float("nan")
    novel = np.arange(30) < 9
    for use in (
        lambda: calibration.p_values(scores),
        lambda: calibration.discoveries(scores, 0.1),
        lambda: measure_drift(scores, [calibration.scores]),
        lambda: ranking(scores.numpy(), novel),
        lambda: auroc_interval(scores.numpy(), calibration.scores.numpy()),
    ):
        with pytest.raises(DataError, match=r"1 of .* scores are no numbers .* at position 7"):
            use()
    assert calibration.p_values(torch.tensor([torch.inf, -torch.inf])).tolist() == pytest.approx([1 / 101, 1.0])


def test_only_what_is_other_is_a_change() -> None:
    calibration = Calibration(torch.rand(400), 0.05, CONDITIONAL)
    assert calibration.changes(0.05, CONDITIONAL, 0.95) == {}
    assert calibration.as_asked(0.05, CONDITIONAL, 0.95) is calibration
    assert calibration.changes(0.1, None, 0.9) == {"target_fpr": 0.1, "confidence": 0.9}
    assert calibration.as_asked(confidence=0.9).confidence == 0.9
    with pytest.raises(UsageError, match="goes with the guarantee conditional"):
        calibration.changes(guarantee=MARGINAL, confidence=0.9)
    with pytest.raises(UnknownName, match="conditional"):
        calibration.changes(guarantee="conditionel")


def test_a_threshold_between_two_float32_counts_what_lies_just_above_it() -> None:
    calibration = Calibration(torch.linspace(0, 0.1, 51), 0.5).at_threshold(0.1)  # float32 has 0.100000001 for it
    assert calibration.target_fpr == 2 / 52
    highest = calibration.scores[-1:]
    assert bool(highest > calibration.threshold)
    assert calibration.p_values(highest).item() == 2 / 52
