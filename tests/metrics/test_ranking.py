import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from MLstatkit import Delong_test
from scipy.stats import binomtest, bootstrap
from sklearn import metrics
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from anomaly_ae.metrics.ranking import (
    BOOTSTRAP,
    DEGENERATE,
    DELONG,
    FEW,
    NO_DIFFERENCE,
    PERFECT,
    TOO_FEW,
    auroc_interval,
    bootstrap_interval,
    compare_auroc,
    delong,
    proportion_interval,
    ranking,
    roc_curve,
    verdicts,
)


def scores(seed: int, m: int = 80, n: int = 120, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = np.round(np.concatenate([rng.normal(shift, 1, m), rng.normal(0, 1, n)]), 1)  # with ties
    return values, np.arange(m + n) < m


def test_ranking_by_hand() -> None:
    values, novel = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    ranked = ranking(values, novel)
    assert ranked.auroc == 0.75  # three of four pairs in order
    assert ranked.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert ranked.fpr_at_95_tpr == 0.5


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60))
def test_areas_and_curves_are_scikit_learns(images: list[tuple[int, bool]]) -> None:
    values, novel = np.array([score for score, _ in images], float), np.array([is_novel for _, is_novel in images])
    assume(novel.any() and not novel.all())
    ranked, curve = ranking(values, novel), roc_curve(values, novel)
    assert ranked.auroc == pytest.approx(roc_auc_score(novel, values))
    assert ranked.average_precision == pytest.approx(metrics.average_precision_score(novel, values))
    assert ranked.partial_auroc == pytest.approx(roc_auc_score(novel, values, max_fpr=0.1))
    assert min(ranked.average_precision, ranked.partial_auroc) >= 0
    assert max(ranked.average_precision, ranked.partial_auroc) <= 1
    fpr, tpr, _ = metrics.roc_curve(novel, values, drop_intermediate=False)
    assert np.array_equal([curve.fpr, curve.tpr], [fpr, tpr])
    precision, recall, _ = metrics.precision_recall_curve(novel, values)  # whose last point is no threshold's
    assert np.array_equal([curve.precision, curve.tpr[1:]], [precision[-2::-1], recall[-2::-1]])


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 40), (3, 40), (39, 40), (40, 40), (7, 5_000)])
def test_a_proportion_has_clopper_and_pearsons_interval(successes: int, trials: int) -> None:
    exact = binomtest(successes, trials).proportion_ci(0.95, "exact")
    assert proportion_interval(successes, trials) == pytest.approx((exact.low, exact.high))


def test_fpr_at_95_tpr_is_the_smallest_rate_that_catches_95_percent() -> None:
    values, novel = scores(0)
    candidates = [
        (values[~novel] >= threshold).mean() for threshold in values if (values[novel] >= threshold).mean() >= 0.95
    ]
    assert ranking(values, novel).fpr_at_95_tpr == pytest.approx(min(candidates))


def delong_by_pairs(novel: np.ndarray, normal: np.ndarray) -> tuple[float, float]:
    """The definition, pair by pair."""
    kernel = (novel[:, None] > normal[None]).astype(float) + 0.5 * (novel[:, None] == normal[None])
    rows, columns = kernel.mean(axis=1), kernel.mean(axis=0)
    return kernel.mean(), rows.var(ddof=1) / len(rows) + columns.var(ddof=1) / len(columns)


@pytest.mark.parametrize("seed", range(4))
def test_delong_by_ranks_is_delong_by_pairs(seed: int) -> None:
    values, novel = scores(seed)
    auroc, variance = delong(values[novel], values[~novel])
    assert (auroc, variance) == pytest.approx(delong_by_pairs(values[novel], values[~novel]))
    assert auroc == pytest.approx(roc_auc_score(novel, values))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth, hits = 0.760250, 0  # Φ(1/√2), for normals one standard deviation apart
    rng = np.random.default_rng(0)
    for _ in range(1000):
        interval = auroc_interval(rng.normal(1, 1, 60), rng.normal(0, 1, 60))
        hits += interval.low <= truth <= interval.high
    assert interval.method == DELONG
    assert 0.93 <= hits / 1000 <= 0.97


def three_scores(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of 40 novel and 25 normal images by three detectors that agree in part, (3, 40) and (3, 25), with ties."""
    rng = np.random.default_rng(seed)
    image = np.concatenate([rng.normal(1.2, 1, 40), rng.normal(0, 1, 25)])
    return tuple(np.split(np.round(image + rng.normal(0, 0.7, (3, 65)), 1), [40], axis=1))


def kernel(novel: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Whether each novel image is above each normal one, (M, N), the mean of several scores."""
    novel, normal = novel[:, :, None], normal[:, None]
    return ((novel > normal) + 0.5 * (novel == normal)).mean(axis=0)


def test_several_scores_of_the_same_images_have_the_interval_of_their_mean() -> None:
    novel, normal = three_scores()
    auroc, variance = delong(novel, normal)
    pairs = kernel(novel, normal)
    by_pairs = pairs.mean(axis=1).var(ddof=1) / 40 + pairs.mean(axis=0).var(ddof=1) / 25
    assert (auroc, variance) == pytest.approx((pairs.mean(), by_pairs))
    one, mean = auroc_interval(novel[0], normal[0]), auroc_interval(novel, normal)
    assert auroc_interval(np.stack([novel[0]] * 3), np.stack([normal[0]] * 3)) == one
    assert mean.high - mean.low < one.high - one.low  # what the detectors disagree in is averaged


@pytest.mark.parametrize("count", [1, 3])
def test_the_bootstrap_agrees_with_scipy_s(count: int) -> None:
    novel, normal = (scores[:count] for scores in three_scores())
    pairs = kernel(novel, normal)

    def mean_auroc(rows: np.ndarray, columns: np.ndarray, axis: int) -> np.ndarray:
        return pairs[rows[..., :, None], columns[..., None, :]].mean(axis=(-2, -1))

    images = np.arange(40), np.arange(25)
    theirs = bootstrap(images, mean_auroc, n_resamples=20_000, batch=2000, method="percentile", rng=1)
    ours = bootstrap_interval(novel, normal) if count > 1 else bootstrap_interval(novel[0], normal[0])
    assert ours.method == BOOTSTRAP
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.015)
    assert ours == bootstrap_interval(novel, normal)


def test_the_bootstrap_says_nothing_of_its_own_at_perfect_separation() -> None:
    apart = np.arange(10, 40.0), np.arange(0, 10.0)
    assert bootstrap_interval(*apart) == auroc_interval(*apart)


def test_perfect_separation_has_a_one_sided_bound() -> None:
    interval = auroc_interval(np.arange(10, 40.0), np.arange(0, 10.0))
    assert (interval.low, interval.high, interval.method) == (pytest.approx(0.05 ** (1 / 10)), 1.0, PERFECT)
    reverse = auroc_interval(np.arange(0, 10.0), np.arange(10, 40.0))
    assert (reverse.low, reverse.high) == (0.0, pytest.approx(1 - 0.05 ** (1 / 10)))


def test_one_image_on_a_side_knows_nothing() -> None:
    interval = auroc_interval(np.array([0.5]), np.array([0.1, 0.9]))
    assert (interval.low, interval.high, interval.method) == (0.0, 1.0, TOO_FEW)


def test_verdicts_agree_with_scikit_learn() -> None:
    values, novel = scores(5)
    alarms = values > 0.7
    counted = verdicts(alarms, novel)
    assert counted.true_positive_rate == pytest.approx(recall_score(novel, alarms))
    assert counted.precision == pytest.approx(precision_score(novel, alarms))
    assert counted.f1 == pytest.approx(f1_score(novel, alarms))
    assert counted.false_positive_rate == pytest.approx(alarms[~novel].mean())


def test_no_alarm_at_all_has_no_precision() -> None:
    counted = verdicts(np.zeros(4, bool), np.array([True, True, False, False]))
    assert (counted.precision, counted.true_positive_rate, counted.f1) == (None, 0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_the_comparison_of_two_scores_agrees_with_an_independent_delong_test(seed: int) -> None:
    values, novel = scores(seed)
    others = values + np.random.default_rng(seed + 9).normal(0, 1, len(values))
    ours = compare_auroc(values, others, novel)
    _, p_value = Delong_test(novel.astype(int), values, others, return_ci=False, return_auc=False)
    assert ours.p_value == pytest.approx(p_value, rel=1e-6)
    assert ours.difference == pytest.approx(roc_auc_score(novel, values) - roc_auc_score(novel, others))
    assert ours.interval.low < ours.difference < ours.interval.high


def test_scores_in_the_same_order_do_not_differ() -> None:
    values, novel = scores(0)
    same = compare_auroc(values, np.exp(values) * 3, novel)
    assert (same.difference, same.p_value) == (0.0, 1.0)


@pytest.mark.parametrize(("normal", "novel"), [(4, 15), (15, 4), (9, 200), (1, 30)])
def test_a_comparison_of_too_few_images_has_no_p_value_and_says_so(normal: int, novel: int) -> None:
    is_novel = np.arange(normal + novel) < novel
    rng = np.random.default_rng(0)
    good, poor = rng.normal(is_novel * 2.0, 1), rng.normal(is_novel * -1.0, 1)
    few = compare_auroc(good, poor, is_novel)
    assert (few.p_value, few.interval.method) == (None, FEW)
    assert -1 <= few.interval.low < few.difference < few.interval.high <= 1


@pytest.mark.parametrize("auroc", [0, 1])
def test_a_comparison_with_a_perfect_ranking_has_no_p_value_and_an_interval_that_is_open(auroc: int) -> None:
    novel = np.arange(60) < 20
    perfect, usual = np.where(novel, auroc, 1 - auroc) + np.arange(60) / 100, scores(3, 20, 40)[0]
    for one, other, sign in ((perfect, usual, 1), (usual, perfect, -1)):
        found = compare_auroc(one, other, novel)
        assert (found.p_value, found.interval.method) == (None, DEGENERATE)
        bounds = [auroc_interval(values[novel], values[~novel]) for values in (perfect, usual)]
        widest = sorted(sign * (a - b) for a, b in ((bounds[0].low, bounds[1].high), (bounds[0].high, bounds[1].low)))
        assert [found.interval.low, found.interval.high] == pytest.approx(widest)


def test_scores_that_do_not_differ_have_no_interval_of_no_width() -> None:
    """Neither of the AUROC, nor of the difference of two that separate perfectly in another order."""
    same = auroc_interval(np.ones(30), np.ones(20))
    assert (same.low, same.high, same.method) == (0.0, 1.0, NO_DIFFERENCE)
    novel = np.arange(30) < 10
    one, other = np.where(novel, 9.0, 0.0), np.where(novel, 9.0, np.arange(30) / 40)
    compared = compare_auroc(one, other, novel)
    bound = auroc_interval(one[novel], one[~novel])
    assert compared.difference == 0
    assert (compared.interval.high, compared.interval.low) == (1 - bound.low, bound.low - 1)
    assert compare_auroc(one, one * 2, novel).interval.high == 0


def test_a_few_images_all_alike_prove_nothing() -> None:
    novel = np.array([True, True, False, False])
    compared = compare_auroc(np.array([2.0, 2.0, 1.0, 1.0]), np.ones(4), novel)
    assert (compared.difference, compared.p_value) == (0.5, None)


@given(
    values=st.lists(st.integers(-20, 20), min_size=4, max_size=60),
    cut=st.integers(1, 3),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=100)
def test_ranking_depends_on_the_order_alone(values: list[int], cut: int, order: random.Random) -> None:
    """Neither a permutation of the images nor a rising function of the scores changes a figure; ties included."""
    scored, novel = np.array(values, float), np.arange(len(values)) < cut
    shuffled = order.sample(range(len(values)), len(values))
    original = ranking(scored, novel)
    for other in (ranking(scored[shuffled], novel[shuffled]), ranking(scored**3 / 100, novel)):
        for name in ("auroc", "average_precision", "fpr_at_95_tpr", "partial_auroc"):
            assert getattr(other, name) == pytest.approx(getattr(original, name))
        low_high = original.auroc_ci.low, original.auroc_ci.high
        assert (other.auroc_ci.low, other.auroc_ci.high) == pytest.approx(low_high)


@pytest.mark.parametrize("normal", range(1, 60, 7))
@pytest.mark.parametrize("novel", [1, 3, 20, 49])
def test_perfect_rankings_come_to_no_more_than_one(normal: int, novel: int) -> None:
    ranked = ranking(np.arange(normal + novel, dtype=float), np.arange(normal + novel) >= normal)
    assert 1 - 1e-12 < min(ranked.auroc, ranked.partial_auroc) <= max(ranked.auroc, ranked.partial_auroc) <= 1
    assert 1 - 1e-12 < ranked.average_precision <= 1
