import contextlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, false_discovery_control, genpareto

from anomaly_ae.calibration.conformal import (
    MANUAL,
    Calibration,
    images_needed,
    smallest_rate,
)
from anomaly_ae.calibration.drift import measure_drift
from anomaly_ae.calibration.group import alarms_allowed, p_value_levels
from anomaly_ae.calibration.tail import Tail
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


def test_k_is_free_of_rounding_error() -> None:
    for thousandths in range(1, 1000):
        for n in (99, 199, 999):
            exact = int(Fraction(thousandths, 1000) * (n + 1))
            assert alarms_allowed(p_value_levels(n), thousandths / 1000) == exact


def test_the_rate_holds_on_average_over_calibration_sets() -> None:
    """10,000 draws of calibration and fresh scores from one law; the alarms lie in a 99.9 % binomial interval."""
    generator = torch.Generator().manual_seed(1)
    draws, alarms = 10_000, 0
    for _ in range(draws):
        scores = torch.randn(40, generator=generator)
        alarms += int(scores[-1] > Calibration(scores[:-1], 0.1).threshold)  # k = 4 of 40
    assert binom.ppf(0.0005, draws, 0.1) <= alarms <= binom.ppf(0.9995, draws, 0.1)


@given(n=st.integers(1, 3_000), guarantee=st.sampled_from([MARGINAL, CONDITIONAL]), confidence=st.floats(0.5, 0.99))
@settings(max_examples=100, deadline=None)
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
@settings(max_examples=150, deadline=None)
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


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 59), (0.01, 299), (0.1, 29)])
def test_the_fewest_images_for_the_conditional_guarantee(rate: float, needed: int) -> None:
    assert images_needed(rate, CONDITIONAL, 0.95) == needed
    Calibration(torch.rand(needed), rate, CONDITIONAL)
    with pytest.raises(CalibrationError, match=f"with 95% confidence needs at least {needed:,}"):
        Calibration(torch.rand(needed - 1), rate, CONDITIONAL)


def test_conditional_p_values_are_the_upper_clopper_pearson_bounds() -> None:
    levels = p_value_levels(200, CONDITIONAL, 0.95)
    theirs = [binomtest(c, 200).proportion_ci(0.9, "exact").high for c in range(201)]  # two-sided 90 %
    assert levels == pytest.approx(theirs)


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


def test_a_tail_finds_the_law_its_scores_were_drawn_from() -> None:
    generator = np.random.default_rng(0)
    scores = genpareto.rvs(0.2, scale=1.5, size=20_000, random_state=generator)
    tail = Tail.fit(np.sort(scores))
    assert tail.shape == pytest.approx(0.2, abs=0.05)
    calibration = Calibration(torch.from_numpy(scores), 1e-4, TAIL)
    assert calibration.threshold == pytest.approx(genpareto.isf(1e-4, 0.2, scale=1.5), rel=0.2)
    assert "extrapolation" in calibration.method


def test_a_tail_is_never_bounded_so_that_no_p_value_is_zero() -> None:
    calibration = Calibration(torch.rand(2_000), 1e-4, TAIL)  # uniform: the fitted shape is about -1
    assert calibration.tails[0].shape == 0
    assert 0 < float(calibration.p_values(torch.tensor([2.0]))) < 1e-4


TWO_LEVELS = torch.cat([torch.zeros(150), torch.ones(50)])


@pytest.mark.parametrize("scores", [torch.rand(30), torch.zeros(100), torch.ones(100), TWO_LEVELS, TWO_LEVELS / 1e9])
def test_a_tail_of_too_few_or_equal_scores_is_refused(scores: torch.Tensor) -> None:
    with pytest.raises(CalibrationError, match=r"tail.*(use more normal images|take the guarantee marginal)"):
        Calibration(scores, 0.001, TAIL)


def test_ties_where_a_tail_would_start_are_no_part_of_its_law() -> None:
    """An exponential law of σ = 1, on top of scores that are all 1 or, but for rounding, 1: σ and share are found."""
    generator = torch.Generator().manual_seed(5)
    excesses = torch.empty(300).exponential_(generator=generator)
    for noise in (0.0, 1e-6):
        same = 1 + noise * torch.rand(3_700, generator=generator)
        (tail,) = Calibration(torch.cat([same, 1 + excesses]), 0.001, TAIL).tails
        assert tail.start == pytest.approx(1, abs=1e-5)
        assert tail.share == pytest.approx(301 / 4_001)
        assert tail.scale == pytest.approx(1, abs=0.2)


LAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "continuous": lambda rng, n: rng.gamma(3, size=n),
    "coarse": lambda rng, n: np.round(rng.gamma(3, size=n)),
    "of 20 levels": lambda rng, n: np.round(np.minimum(np.exp(rng.normal(size=n) / 2), 6) * 20 / 6),
    "of binary images": lambda rng, n: np.sqrt(rng.poisson(8, n)) / 28,  # distances: roots of pixels that differ
    "of binary images, rounded": lambda rng, n: np.sqrt(rng.poisson(8, n)) / 28 * (1 + 1e-7 * rng.normal(size=n)),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.8, 0, rng.exponential(size=n)),
    "mostly equal": lambda rng, n: np.where(rng.random(n) < 0.95, 1, 1 + rng.exponential(size=n)),
}


@pytest.mark.parametrize("law", LAWS)
def test_the_rate_of_a_tail_is_about_what_was_asked_whatever_the_ties(law: str) -> None:
    """The realised rate, known from 200,000 scores: of 20 calibrations at most two exceed five times the target."""
    rng = np.random.default_rng(6)
    many = np.sort(LAWS[law](rng, 200_000).astype(np.float32))
    for n, rate in ((200, 0.01), (1_000, 0.001)):
        realised = []
        for _ in range(20):
            with contextlib.suppress(CalibrationError):  # too few different scores, which is an answer
                threshold = Calibration(torch.from_numpy(rng.choice(many, n)), rate, TAIL).threshold
                realised.append(1 - np.searchsorted(many, threshold, side="right") / len(many))
        assert sum(share > 5 * rate for share in realised) <= 2
        assert not realised or np.mean(realised) <= 2 * rate


@pytest.mark.parametrize("fdr", [0.01, 0.1, 0.3])
def test_discoveries_are_those_of_benjamini_and_hochberg(fdr: float) -> None:
    generator = torch.Generator().manual_seed(3)
    calibration = Calibration(torch.randn(500, generator=generator), 0.05)
    batch = torch.cat([torch.randn(150, generator=generator), torch.randn(50, generator=generator) + 3])
    found = calibration.discoveries(batch, fdr).found
    p = calibration.p_values(batch).numpy()
    passing = [i for i, value in enumerate(np.sort(p), start=1) if value <= fdr * i / len(p) + 1e-12]
    limit = np.sort(p)[passing[-1] - 1] if passing else -1.0
    assert found.tolist() == (p <= limit).tolist() == (false_discovery_control(p) <= fdr).tolist()


@given(n=st.integers(1, 120), batch=st.integers(1, 400), hundredths=st.integers(1, 99))
@settings(max_examples=300, deadline=None)
def test_as_many_discoveries_as_are_announced_as_possible_are_found(n: int, batch: int, hundredths: int) -> None:
    calibration, fdr = Calibration(torch.arange(n).float(), 0.9), hundredths / 100
    possible = calibration.discoveries(torch.zeros(batch), fdr).possible
    assert possible == max(1, math.ceil(Fraction(batch * 100, hundredths * (n + 1))))
    assert (possible <= batch) == (n >= images_needed(fdr))
    for novel in {possible - 1, possible} & set(range(1, batch + 1)):
        scores = torch.full((batch,), -1.0)
        scores[:novel] = n
        assert int(calibration.discoveries(scores, fdr).found.sum()) == (novel if novel == possible else 0)


def test_the_false_discovery_rate_holds() -> None:
    generator = torch.Generator().manual_seed(4)
    shares = []
    for _ in range(500):
        calibration = Calibration(torch.randn(400, generator=generator), 0.05)
        batch = torch.cat([torch.randn(80, generator=generator), torch.randn(20, generator=generator) + 4])
        found = calibration.discoveries(batch, 0.2).found
        shares.append(float(found[:80].sum()) / max(1, int(found.sum())))
    mean, error = np.mean(shares), np.std(shares) / len(shares) ** 0.5
    assert mean <= 0.2 + 3 * error


def test_the_fewest_possible_discoveries_are_said_and_cannot_be_undercut() -> None:
    calibration = Calibration(torch.rand(99), 0.05)
    batch = torch.cat([torch.full((9,), 5.0), torch.zeros(91)])  # nine beyond all: p = 0.01 each
    result = calibration.discoveries(batch, 0.1)
    assert result.possible == 10
    assert not bool(result.found.any())
    batch[9] = 5.0
    assert int(calibration.discoveries(batch, 0.1).found.sum()) == 10
    assert calibration.discoveries(torch.full((50,), 5.0), 0.005).possible == 100  # more than there are


def test_discoveries_need_marginal_p_values_and_a_rate() -> None:
    with pytest.raises(CalibrationError, match="marginal"):
        Calibration(torch.rand(100), 0.05, CONDITIONAL).discoveries(torch.rand(3), 0.1)
    with pytest.raises(CalibrationError, match="false discovery rate"):
        Calibration(torch.rand(100), 0.05, MARGINAL).discoveries(torch.rand(3), 1.5)


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
    assert calibration.changes(0.1, None, 0.9) == {"target_fpr": 0.1, "confidence": 0.9}
    with pytest.raises(UsageError, match="goes with the guarantee conditional"):
        calibration.changes(guarantee=MARGINAL, confidence=0.9)
    with pytest.raises(UnknownName, match="conditional"):
        calibration.changes(guarantee="conditionel")


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
@settings(max_examples=200, deadline=None)
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
    for _ in range(400):
        calibration = grouped(torch.randn(300, generator=generator), 3 * torch.randn(99, generator=generator))
        normal = torch.cat([torch.randn(10, generator=generator), 3 * torch.randn(70, generator=generator)])
        batch = torch.cat([normal, torch.randn(20, generator=generator) + 15])
        for kept, by in ((shares, calibration), (pooled, Calibration(calibration.scores, 0.05))):
            found = by.discoveries(batch, 0.2).found
            kept.append(float(found[:80].sum()) / max(1, int(found.sum())))
    assert np.mean(shares) <= 0.2 + 3 * np.std(shares) / len(shares) ** 0.5
    assert np.mean(pooled) > 0.25


def test_a_threshold_between_two_float32_counts_what_lies_just_above_it() -> None:
    calibration = Calibration(torch.linspace(0, 0.1, 51), 0.5).at_threshold(0.1)  # float32 has 0.100000001 for it
    assert calibration.target_fpr == 2 / 52
    highest = calibration.scores[-1:]
    assert bool(highest > calibration.threshold)
    assert calibration.p_values(highest).item() == 2 / 52
