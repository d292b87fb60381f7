"""Which images set the threshold together, where some were marked as normal."""

import pytest
import torch

from anomaly_ae.config.run_config import TAIL, RunConfig
from anomaly_ae.datasets.splits import SPLIT_PARTS, Split
from anomaly_ae.datasets.splitting import split_dataset
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import calibration_images, make_detector, marked_part, threshold_groups
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.preprocessing import Preprocessing


def images(count: int, value: int) -> ImageSet:
    return ImageSet(torch.full((count, 1, 1, 1), value, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))


def noise() -> tuple[dict[str, ImageSet], Split]:
    """400 images by part of their split."""
    drawn = torch.randint(0, 256, (400, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Dataset("x", ("good",), {"train": ImageSet(drawn, torch.zeros(400, dtype=torch.int64))})
    split = split_dataset(data, [0], seed=0, needed=100)
    return {name: getattr(split, name).take(data) for name in SPLIT_PARTS}, split


@pytest.mark.parametrize(
    ("rounds", "groups"),
    [
        ((), ["100 of 0"]),
        ((50,), ["100 of 0", "50 of 1"]),
        ((18,), ["100 of 0 18 of 1"]),  # 19 are needed for one alarm in twenty
        ((19, 30), ["100 of 0", "19 of 1", "30 of 2"]),
        ((18, 30), ["100 of 0 18 of 1", "30 of 2"]),
        ((10, 30, 9), ["100 of 0", "30 of 2", "10 of 1 9 of 3"]),
        ((0, 30), ["100 of 0", "30 of 2"]),
        ((0,), ["100 of 0"]),
    ],
)
def test_each_round_that_holds_the_rate_is_a_group_and_others_are_pooled(
    rounds: tuple[int, ...], groups: list[str]
) -> None:
    marked = {marked_part(number): images(count, number) for number, count in enumerate(rounds, start=1)}
    found = threshold_groups({"fit": images(9, 9), "calibration": images(100, 0), **marked}, RunConfig())
    kinds = [torch.unique_consecutive(group.images.flatten(), return_counts=True) for group in found]
    assert [" ".join(f"{n} of {kind}" for kind, n in zip(*each, strict=True)) for each in kinds] == groups


def test_what_is_enough_but_has_no_tail_is_pooled_for_that_reason_and_not_as_too_few(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = RunConfig(dataset="x", guarantee=TAIL, scorer="mse", device="cpu")
    experiment = Experiment.build(config, Preprocessing(1, 8, 8), ("good",), ("good",))
    parts, split = noise()
    equal = parts["test"].take(torch.zeros(60, dtype=torch.int64))
    made = make_detector(experiment, experiment.network.eval(), parts | {marked_part(1): equal}, split)
    said = capsys.readouterr().err
    assert "no threshold by groups, for too many of the 60 calibration scores are equal for a tail" in said
    assert "too few" not in said
    assert len(made.calibration.scores) == len(parts["calibration"]) + 60
    assert [len(each) for each in calibration_images(parts | {marked_part(1): equal}, made)] == [160]


def test_regions_go_by_the_heat_maps_of_images_that_were_not_marked() -> None:
    config = RunConfig(dataset="x", scorer="mse", device="cpu")
    experiment = Experiment.build(config, Preprocessing(1, 8, 8), ("good",), ("good",))
    parts, split = noise()
    few = parts["test"].take(torch.arange(5))  # too few for a group of their own
    network = experiment.network.eval()
    without, joined = (
        make_detector(experiment, network, parts | marked, split) for marked in ({}, {marked_part(1): few})
    )
    assert len(joined.calibration.scores) == len(without.calibration.scores) + 5
    assert without.heat_peaks is not None
    assert joined.heat_peaks is not None
    torch.testing.assert_close(joined.heat_peaks, without.heat_peaks)
    assert joined.heat_level == pytest.approx(without.heat_level)
