import pytest
import torch
from sklearn.metrics import roc_auc_score

from anomaly_ae.calibration.drift import RollingDrift, measure_drift
from anomaly_ae.reporting.text.phrases import moved


def normals(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_effect_is_the_share_of_pairs_in_order() -> None:
    batch, calibration = normals(300, 0, 0.5), normals(200, 1)
    drift = measure_drift(batch, [calibration])
    assert drift is not None
    labels = [1] * 300 + [0] * 200
    assert drift.effect == pytest.approx(roc_auc_score(labels, torch.cat([batch, calibration]).numpy()))
    assert drift.interval.low < drift.effect < drift.interval.high


@pytest.mark.parametrize("count", [50, 500, 50_000])
def test_normal_batches_raise_no_alarm_however_large(count: int) -> None:
    """Also a little off, by a tenth of a standard deviation, which a test of mere equality would alarm on."""
    calibration = normals(1_000, 0)
    drifts = [measure_drift(normals(count, seed, 0.1), [calibration]) for seed in range(1, 41)]
    assert not any(drift is None or drift.moved for drift in drifts)


@pytest.mark.parametrize("shift", [1.5, -1.5])
def test_a_batch_that_moved_as_a_whole_is_seen_either_way(shift: float) -> None:
    drift = measure_drift(normals(60, 1, shift), [normals(400, 0)])
    assert drift is not None
    assert drift.moved


def test_a_fifth_of_anomalies_is_no_drift() -> None:
    batch = torch.cat([normals(800, 1), normals(200, 2, 8.0)])
    drift = measure_drift(batch, [normals(1_000, 0)])
    assert drift is not None
    assert not drift.moved


def test_what_is_like_one_group_has_not_moved_however_unlike_the_others_it_is() -> None:
    groups = [normals(800, 0), normals(100, 1, 3.0), normals(19, 2, 9.0)]
    drift = measure_drift(normals(300, 3, 3.0), groups)
    assert drift is not None
    assert not drift.moved
    assert drift.effect == pytest.approx(0.5, abs=0.1)
    above = measure_drift(normals(300, 3, 6.0), groups)  # nearest to the second, and the third is too small
    assert above is not None
    assert above.moved
    assert above.effect == measure_drift(normals(300, 3, 6.0), groups[1:2]).effect


def test_what_lies_between_two_groups_has_not_moved_and_ends_a_drift() -> None:
    groups, middle = [normals(800, 0), normals(800, 1, 4.0)], normals(300, 4, 2.0)
    between = measure_drift(middle, groups)
    assert between is not None
    assert (between.moved, abs(between.side)) == (False, 1)
    assert "moved" not in moved(between)
    assert "not so of each group" in moved(between)
    rolling = RollingDrift(groups)
    begun = rolling.add(normals(300, 5, 8.0))
    assert begun is not None
    assert begun.moved
    assert "not" not in moved(begun)
    assert rolling.add(middle) is not None
    assert not rolling.moved


def test_few_images_say_nothing() -> None:
    assert measure_drift(normals(19, 0), [normals(100, 1)]) is None


def test_rolling_drift_begins_once_and_ends_once() -> None:
    rolling, turns = RollingDrift([normals(400, 0)]), list[tuple[int, bool]]()
    scores = torch.cat([normals(600, 1), normals(600, 2, 2.0), normals(600, 3)])
    for i, part in enumerate(scores.split(10)):
        if drift := rolling.add(part):
            turns.append((10 * i, drift.moved))
    assert [is_moved for _, is_moved in turns] == [True, False]
    assert 600 < turns[0][0] < 900
    assert 1_200 < turns[1][0] < 1_500


def test_rolling_drift_at_the_border_does_not_come_and_go() -> None:
    rolling = RollingDrift([normals(400, 0)])
    turns = sum(rolling.add(part) is not None for part in normals(6_000, 1, 1.0).split(7))
    assert turns <= 1


def test_a_few_scores_are_no_rolling_drift() -> None:
    assert RollingDrift([normals(400, 0)]).add(normals(90, 1, 9.0)) is None
