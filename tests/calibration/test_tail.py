import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import genpareto

from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.tail import Tail
from anomaly_ae.config.run_config import TAIL
from anomaly_ae.errors import CalibrationError


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
