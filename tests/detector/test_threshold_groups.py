"""Which images set the threshold together, where some were marked as normal."""

import pytest
import torch

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.fit import marked_part, threshold_groups
from anomaly_ae.images.image_set import ImageSet


def images(count: int, value: int) -> ImageSet:
    return ImageSet(torch.full((count, 1, 1, 1), value, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))


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
