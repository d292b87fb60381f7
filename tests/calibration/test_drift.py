import pytest
import torch
from sklearn.metrics import roc_auc_score

from anomaly_ae.calibration.drift import RollingDrift, measure_drift


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


def test_rolling_drift_begins_once_and_ends_once() -> None:
    rolling, turns = RollingDrift(normals(400, 0)), list[tuple[int, bool]]()
    scores = torch.cat([normals(600, 1), normals(600, 2, 2.0), normals(600, 3)])
    for i, part in enumerate(scores.split(10)):
        if drift := rolling.add(part):
            turns.append((10 * i, drift.moved))
    assert [moved for _, moved in turns] == [True, False]
    assert 600 < turns[0][0] < 900
    assert 1_200 < turns[1][0] < 1_500


def test_rolling_drift_at_the_border_does_not_come_and_go() -> None:
    rolling = RollingDrift(normals(400, 0))
    turns = sum(rolling.add(part) is not None for part in normals(6_000, 1, 1.0).split(7))
    assert turns <= 1


def test_a_few_scores_are_no_rolling_drift() -> None:
    assert RollingDrift(normals(400, 0)).add(normals(90, 1, 9.0)) is None
