import pytest
import torch
from sklearn.metrics import roc_auc_score

from anomaly_ae.calibration.drift import measure_drift


def normals(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_effect_is_the_share_of_pairs_in_order() -> None:
    batch, calibration = normals(300, 0, 0.5), normals(200, 1)
    drift = measure_drift(batch, calibration)
    assert drift is not None
    labels = [1] * 300 + [0] * 200
    assert drift.effect == pytest.approx(roc_auc_score(labels, torch.cat([batch, calibration]).numpy()))
    assert drift.interval.low < drift.effect < drift.interval.high


@pytest.mark.parametrize("count", [50, 500, 50_000])
def test_normal_batches_raise_no_alarm_however_large(count: int) -> None:
    """Also a little off, by a tenth of a standard deviation, which a test of mere equality would alarm on."""
    calibration = normals(1_000, 0)
    moved = [measure_drift(normals(count, seed, 0.1), calibration) for seed in range(1, 41)]
    assert not any(drift is None or drift.moved for drift in moved)


@pytest.mark.parametrize("shift", [1.5, -1.5])
def test_a_batch_that_moved_as_a_whole_is_seen_either_way(shift: float) -> None:
    drift = measure_drift(normals(60, 1, shift), normals(400, 0))
    assert drift is not None
    assert drift.moved


def test_a_fifth_of_anomalies_is_no_drift() -> None:
    batch = torch.cat([normals(800, 1), normals(200, 2, 8.0)])
    drift = measure_drift(batch, normals(1_000, 0))
    assert drift is not None
    assert not drift.moved


def test_few_images_say_nothing() -> None:
    assert measure_drift(normals(19, 0), normals(100, 1)) is None
