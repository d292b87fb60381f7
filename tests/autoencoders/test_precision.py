import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anomaly_ae.autoencoders.precision import has_bfloat16, speedup


def step(seconds: float, loss: float, calls: list[float]) -> Callable[[], float]:
    def taken() -> float:
        ends = time.process_time() + seconds
        while time.process_time() < ends:
            pass
        calls.append(loss)
        return loss

    return taken


def test_the_speedup_is_that_of_steps_taken_in_turn() -> None:
    calls = list[float]()
    times = speedup(step(0.06, 1.0, calls), step(0.02, 1.009, calls))
    assert times == pytest.approx(3, rel=0.3)
    assert calls[::2] == [1.0] * (len(calls) // 2)
    assert len(calls) >= 8  # one of each to begin with, and three


def test_trials_end_soon_where_there_is_no_hope() -> None:
    calls = list[float]()
    assert speedup(step(0.002, 1.0, calls), step(0.002, 1.0, calls)) == pytest.approx(1, rel=0.2)
    assert len(calls) == 8


@pytest.mark.parametrize("loss", [1.02, 0.98, float("nan"), float("inf")])
def test_losses_that_part_are_worth_nothing_however_fast(loss: float) -> None:
    assert speedup(step(0.02, 1.0, []), step(0.001, loss, [])) == 0


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux says what its processor has")
def test_what_the_processor_has_is_known() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    assert has_bfloat16() == any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
