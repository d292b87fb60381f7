from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, false_discovery_control

from anomaly_ae.calibration.conformal import MANUAL, Calibration
from anomaly_ae.calibration.group import alarms_allowed, p_value_levels
from anomaly_ae.calibration.rates import smallest_rate
from anomaly_ae.config.run_config import CONDITIONAL, MARGINAL, TAIL
from anomaly_ae.errors import CalibrationError


def test_k_is_free_of_rounding_error() -> None:
    for thousandths in range(1, 1000):
        for n in (99, 199, 999):
            exact = int(Fraction(thousandths, 1000) * (n + 1))
            assert alarms_allowed(p_value_levels(n), thousandths / 1000) == exact


def test_conditional_p_values_are_the_upper_clopper_pearson_bounds() -> None:
    levels = p_value_levels(200, CONDITIONAL, 0.95)
    theirs = [binomtest(c, 200).proportion_ci(0.9, "exact").high for c in range(201)]  # two-sided 90 %
    assert levels == pytest.approx(theirs)


MANY, FEW = torch.arange(1.0, 20.0), torch.tensor([0.0] * 8 + [100.0])  # 19 scores, and 9 of another kind


def grouped(*groups: torch.Tensor, target_fpr: float = 0.1, guarantee: str = MARGINAL, **more: Any) -> Calibration:
    """A calibration of groups of scores, which it gets in no order."""
    scores, numbers = torch.cat(groups), torch.cat([torch.full((len(each),), i) for i, each in enumerate(groups)])
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))
    return Calibration(scores[order], target_fpr, guarantee, groups=numbers[order], **more)


def test_groups_by_hand_each_sets_the_threshold_at_some_rate() -> None:
    calibration = grouped(MANY, FEW)
    assert calibration.threshold == 100  # k is 2 of 19 and 1 of 9: 18 and 100
    assert calibration.at(target_fpr=0.2).threshold == 16  # 4 and 2: 16 and 0
    p = calibration.p_values(torch.tensor([0.0, 5.0, 16.5, 19.0, 100.0, 101.0]))
    assert p.tolist() == pytest.approx([1, 16 / 20, 4 / 20, 2 / 10, 2 / 10, 1 / 10])
    assert calibration.expected_fpr == 2 / 20
    assert calibration.at(target_fpr=0.19).expected_fpr == 3 / 20  # and 1 of 10
    assert (calibration.proven_fpr, calibration.fewest) == (0.1, 9)
    assert calibration.method == "marginal, the higher of 2 groups of 19 and 9 images"
    assert calibration.scores.tolist() == sorted([*MANY.tolist(), *FEW.tolist()])
    three = grouped(MANY, FEW, MANY / 10, guarantee=CONDITIONAL, target_fpr=0.4)
    assert three.method == "conditional, with 95% confidence, the highest of 3 groups of 19, 9 and 19 images"


def test_any_threshold_holds_the_highest_rate_of_the_groups() -> None:
    calibration = grouped(MANY, FEW)
    held = calibration.held_at(15)  # 4 of 19 and 1 of 9 are above it, and the bound is that of the fewer
    assert held.rate == 5 / 20
    assert held.at_most == pytest.approx(binomtest(1, 9).proportion_ci(0.9, "exact").high)
    assert held.guarantee == "marginal, the higher of 2 groups of 19 and 9 images"
    chosen = calibration.at_threshold(12.5)  # 7 of 19 and 1 of 9
    assert (chosen.target_fpr, chosen.threshold, chosen.expected_fpr) == (8 / 20, 12.5, 8 / 20)
    assert chosen.p_values(torch.tensor([12.5, 13.0])).tolist() == [9 / 20, 8 / 20]
    assert chosen.at(**chosen.changes(target_fpr=0.1)).threshold == 100
    with pytest.raises(CalibrationError, match="calls 9 of 9 normal calibration images anomalous"):
        grouped(torch.arange(-990.0, 10.0), FEW + 1).at_threshold(0)


def test_ties_within_a_group_and_between_groups_count_against_an_alarm() -> None:
    calibration = grouped(torch.ones(30), torch.cat([torch.ones(10), torch.full((10,), 2.0)]))
    assert calibration.threshold == 2
    assert calibration.p_values(torch.tensor([1.0, 2.0, 2.5])).tolist() == pytest.approx([1, 11 / 21, 1 / 21])


@given(
    first=st.lists(st.integers(-40, 40), min_size=40, max_size=150),
    second=st.lists(st.integers(-40, 40), min_size=40, max_size=150),
    scale=st.sampled_from([0.1, 1.0, 3.0]),
    asked=st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=50),
    rate=st.sampled_from([0.03, 0.05, 0.1, 0.3, 0.9]),
    guarantee=st.sampled_from([MARGINAL, CONDITIONAL, TAIL, MANUAL]),
)
@settings(max_examples=80)
def test_with_groups_p_and_threshold_are_the_largest_of_theirs_and_verdicts_agree(
    first: list[int], second: list[int], scale: float, asked: list[float], rate: float, guarantee: str
) -> None:
    groups = torch.tensor(first).float(), torch.tensor(second).float() * scale
    try:
        if guarantee == MANUAL:
            both, *alone = (
                each.at_threshold(asked[0])
                for each in (grouped(*groups), *(Calibration(scores, 0.1) for scores in groups))
            )
        else:
            both = grouped(*groups, target_fpr=rate, guarantee=guarantee)
            alone = [Calibration(scores, rate, guarantee) for scores in groups]
    except CalibrationError:
        return  # too few for that rate, a tail of equal scores, or a threshold below all
    assert both.threshold == max(each.threshold for each in alone)
    edge = np.float32(both.threshold)
    near = [edge, *(np.nextafter(edge, np.float32(end)) for end in (-np.inf, np.inf))]
    values = torch.tensor([*asked, *map(float, near)])
    values = torch.cat([values, *groups]).sort().values
    p = both.p_values(values)
    assert torch.equal(p, torch.stack([each.p_values(values) for each in alone]).amax(dim=0))
    assert torch.equal(values > both.threshold, p <= both.target_fpr)
    assert bool((p.diff() <= 0).all())


@pytest.mark.parametrize("rate", [0.05, 0.25])
def test_the_rate_is_held_in_each_group_at_a_rate_that_the_calibration_was_not_made_for(rate: float) -> None:
    """The first group has the higher threshold at one of these rates, and the second at the other; what is pooled
    holds neither.
    """
    generator = torch.Generator().manual_seed(1)
    draws, alarms, pooled = 4_000, torch.zeros(2), torch.zeros(2)
    for _ in range(draws):
        usual, rare = torch.randn(40, generator=generator) + 2, 3 * torch.randn(40, generator=generator)
        calibration = grouped(usual[:-1], rare[:-1], target_fpr=0.1).at(target_fpr=rate)
        new = torch.stack([usual[-1], rare[-1]])
        alarms += new > calibration.threshold
        pooled += new > Calibration(calibration.scores, rate).threshold
    most = binom.ppf(0.9995, draws, rate)
    assert bool((alarms <= most).all())
    assert alarms.argmax() == (1 if rate == 0.05 else 0)
    assert alarms.max() > 0.8 * rate * draws  # nor is it held by never alarming
    assert pooled.max() > most


def test_the_smallest_group_says_which_rates_are_possible() -> None:
    with pytest.raises(CalibrationError) as caught:
        grouped(torch.rand(500), torch.rand(40), target_fpr=0.01)
    assert "needs at least 99 calibration images, and there are 40 in the smallest of 2 groups" in str(caught.value)
    assert f"the smallest rate possible is {smallest_rate(40):g}" in str(caught.value)
    assert grouped(torch.rand(500), torch.rand(40), target_fpr=smallest_rate(40)).threshold > 0
    with pytest.raises(CalibrationError, match="too many of the 40 calibration scores are equal"):
        grouped(torch.rand(500), torch.ones(40), target_fpr=0.01, guarantee=TAIL)
    assert grouped(torch.rand(500), torch.rand(40)).can_have_tail
    assert not grouped(torch.rand(500), torch.rand(30)).can_have_tail
    assert not grouped(torch.rand(500), torch.ones(40)).can_have_tail


def test_tails_are_of_the_groups() -> None:
    generator = torch.Generator().manual_seed(5)
    groups = [torch.empty(400).exponential_(generator=generator), torch.rand(300, generator=generator)]
    calibration = grouped(*groups, target_fpr=1e-4, guarantee=TAIL)
    assert calibration.tails == tuple(Calibration(scores, 1e-4, TAIL).tails[0] for scores in groups)
    assert "from the 39 and 29 highest scores, the higher of 2 groups of 400 and 300 images" in calibration.method


def test_groups_stay_with_their_scores_and_other_scores_are_one_group() -> None:
    calibration = grouped(MANY, FEW)
    assert calibration.groups is not None
    assert [*zip(calibration.scores.tolist(), calibration.groups.tolist(), strict=True)] == sorted(
        [*((score, 0) for score in MANY.tolist()), *((score, 1) for score in FEW.tolist())]
    )
    assert calibration.at(scores=calibration.scores, target_fpr=0.2).groups is not None
    other = calibration.at(scores=torch.arange(50.0))
    assert (other.groups, other.threshold) == (None, Calibration(torch.arange(50.0), 0.1).threshold)
    assert Calibration(MANY, 0.1, groups=torch.full((19,), 3)).groups is None
    numbered = Calibration(torch.cat([FEW, MANY]), 0.1, groups=torch.tensor([7] * 9 + [2] * 19))
    assert [len(group) for group in numbered.by_group] == [19, 9]


def test_discoveries_of_groups_are_those_of_benjamini_and_hochberg_by_the_largest_p_values() -> None:
    generator = torch.Generator().manual_seed(3)
    calibration = grouped(torch.randn(500, generator=generator), 2 * torch.randn(199, generator=generator))
    batch = torch.cat([torch.randn(150, generator=generator), torch.randn(50, generator=generator) + 8])
    result = calibration.discoveries(batch, 0.1)
    found = false_discovery_control(calibration.p_values(batch).numpy()) <= 0.1
    assert result.found.tolist() == found.tolist()
    assert 40 < found.sum() < 60
    assert result.possible == 10  # 200 images, p no lower than 1 in 200: 200 / (0.1 · 200)


def test_the_false_discovery_rate_holds_with_groups_and_is_not_held_by_what_is_pooled() -> None:
    generator = torch.Generator().manual_seed(4)
    shares, pooled = [], []
    for _ in range(200):
        calibration = grouped(torch.randn(300, generator=generator), 3 * torch.randn(99, generator=generator))
        normal = torch.cat([torch.randn(10, generator=generator), 3 * torch.randn(70, generator=generator)])
        batch = torch.cat([normal, torch.randn(20, generator=generator) + 15])
        for kept, by in ((shares, calibration), (pooled, Calibration(calibration.scores, 0.05))):
            found = by.discoveries(batch, 0.2).found
            kept.append(float(found[:80].sum()) / max(1, int(found.sum())))
    assert np.mean(shares) <= 0.2 + 3 * np.std(shares) / len(shares) ** 0.5
    assert np.mean(pooled) > 0.25
