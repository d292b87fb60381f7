import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.rates import images_needed
from anomaly_ae.config.run_config import CONDITIONAL, MARGINAL
from anomaly_ae.errors import CalibrationError


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
@settings(max_examples=300)
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
