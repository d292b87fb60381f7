import contextlib
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, false_discovery_control, genpareto

from anomaly_ae.calibration.conformal import (
    Calibration,
    alarms_allowed,
    images_needed,
    p_value_levels,
    smallest_rate,
)
from anomaly_ae.calibration.drift import measure_drift
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
    assert calibration.tail is not None
    assert calibration.tail.shape == 0
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
        tail = Calibration(torch.cat([same, 1 + excesses]), 0.001, TAIL).tail
        assert tail is not None
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
        lambda: measure_drift(scores, calibration.scores),
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
