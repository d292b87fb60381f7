"""Normal images that look odd by their scores."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from anomaly_ae.calibration.conformal import CONDITIONAL, Calibration
from anomaly_ae.calibration.odd import odd_count, odd_normals

COOKIES = (0.095, 0.105, 0.111, 0.134, 0.145, 0.148, 0.163, 0.173, 0.236)  # and one odd one, 1.027
LAWS = {
    "normal": lambda rng, shape: rng.normal(5, 1, shape),
    "exponential": lambda rng, shape: rng.exponential(1, shape),
    "log-normal": lambda rng, shape: rng.lognormal(0, 1, shape),
    "standardised": lambda rng, shape: rng.normal(0, 1, shape),  # as sums of logarithms are, below 0 as well
}


def calibration(*scores: float, target_fpr: float = 0.1, **more: object) -> Calibration:
    """Of files called by their scores, in no order."""
    shuffled = torch.tensor(scores)[torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))]
    names = tuple(f"{score:.3f}.png".encode() for score in shuffled.tolist())
    return Calibration(shuffled, target_fpr, names=names, **more)


@pytest.mark.parametrize("n", [10, 30, 100, 1000])
@pytest.mark.parametrize("law", LAWS)
def test_usual_scores_are_hardly_ever_called_odd(law: str, n: int) -> None:
    sets = np.sort(LAWS[law](np.random.default_rng(n), (1000, n)))
    assert sum(odd_count(scores) > 0 for scores in sets) <= 15  # 5 of a log-normal law are to be expected


def test_one_odd_image_is_named_with_the_threshold_without_it() -> None:
    odd = odd_normals(calibration(*COOKIES, 1.027))
    assert odd is not None
    assert (odd.names, odd.images, odd.smallest_rate_without) == (["1.027.png"], 10, 0.1)
    assert (odd.threshold, odd.threshold_without) == pytest.approx((1.027, 0.236))
    assert odd.scores == pytest.approx([1.027])
    assert odd.about == (
        "1.027.png (score 1.027) looks odd among 10 normal images; without it, the threshold would be 0.236 instead "
        "of 1.027: look at it, and if it is not normal, train or calibrate without it"
    )
    assert json.loads(json.dumps(dataclasses.asdict(odd)))["names"] == ["1.027.png"]


def test_a_threshold_that_stays_is_said_to() -> None:
    odd = odd_normals(calibration(*COOKIES, 1.027, target_fpr=0.19))  # the second of ten, and the first of nine
    assert odd is not None
    assert odd.threshold_without == odd.threshold
    assert "without it, the threshold would stay 0.236: look at it" in odd.about


def test_two_alike_do_not_hide_each_other_and_the_highest_comes_first() -> None:
    odd = odd_normals(calibration(*COOKIES, 1.3, 1.35, target_fpr=0.2))
    assert odd is not None
    assert odd.names == ["1.350.png", "1.300.png"]
    assert (odd.threshold, odd.threshold_without) == pytest.approx((1.3, 0.173))  # k is 2, then 2 of 9


def test_it_is_said_where_too_few_are_left_for_the_rate() -> None:
    odd = odd_normals(calibration(*COOKIES, 1.027, target_fpr=0.095))
    assert odd is not None
    assert odd.threshold_without is None
    assert "without it, 9 would be too few for this rate, and enough from 0.1 on: look at it" in odd.about
    conditional = odd_normals(calibration(*COOKIES, 1.027, target_fpr=0.3, guarantee=CONDITIONAL))
    assert conditional is not None
    assert conditional.smallest_rate_without == pytest.approx(1 - 0.05 ** (1 / 9), abs=1e-4)


def test_many_odd_ones_without_names_are_counted() -> None:
    usual = np.random.default_rng(0).lognormal(0, 0.2, 95).tolist()
    odd = odd_normals(Calibration(torch.tensor([*usual, 30.0, 31.0, 32.0, 33.0, 34.0]), 0.05))
    assert odd is not None
    assert odd.names is None
    assert odd.about.startswith(
        "5 images (score 34, 33, 32 and 2 more) look odd among 100 normal images; without them"
    )


def test_a_group_of_high_scores_is_not_odd_and_what_is_odd_within_a_group_is() -> None:
    shifted = [10 + score for score in COOKIES] + [10.11, 10.12, 10.13]
    groups = torch.tensor([0] * 60 + [1] * 12)
    usual = np.random.default_rng(0).lognormal(-2, 0.2, 59).tolist()
    names = tuple(f"{i}.png".encode() for i in range(72))
    plain = Calibration(torch.tensor([*usual, 0.15, *shifted]), 0.1, names=names, groups=groups)
    assert odd_normals(plain) is None
    pooled = odd_normals(plain.at(scores=plain.scores))
    assert pooled is None or len(pooled.scores) != 1
    odd = odd_normals(Calibration(torch.tensor([*usual, 3.0, *shifted]), 0.1, names=names, groups=groups))
    assert odd is not None
    assert (odd.names, odd.scores, odd.images) == (["59.png"], [3.0], 72)
    assert odd.threshold == odd.threshold_without == plain.threshold  # the other group's
    both = odd_normals(Calibration(torch.tensor([*usual, 3.0, *shifted[:-1], 15]), 0.08, names=names, groups=groups))
    assert both is not None
    assert (both.names, both.threshold_without, both.fewest_without) == (["71.png", "59.png"], None, 11)
    assert (
        "without them, the 11 of the smallest group would be too few for this rate, and enough from 0.08334 on"
        in both.about
    )


def test_scores_that_are_alike_few_or_do_not_set_the_threshold_are_not_odd() -> None:
    assert odd_count(np.ones(50)) == 0
    assert odd_count(np.append(np.ones(50), 1 + 1e-7)) == 0  # another machine gives it the other way round
    assert odd_count(np.append(np.ones(50), 1.1)) == 1
    assert odd_count(np.array([1, 1.01, 1.02, 50])) == 0
    assert odd_count(np.append(np.zeros(50), 3.0)) == 1  # of no logarithm
    assert odd_normals(calibration(*COOKIES, 1.027).at_threshold(0.2)) is None
