"""How many normal images are enough, and what is said where they are not."""

import re

import pytest
import torch

from anomaly_ae.autoencoders.folds import fold_count
from anomaly_ae.calibration.rates import default_rate, require_enough
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.splitting import split_dataset
from anomaly_ae.errors import CalibrationError, DataError
from anomaly_ae.images.image_set import Dataset
from anomaly_ae.workflows.division import Division, View, enough_in_folds
from tests.datasets.test_splitting import folders


class Held:
    """Data that are in memory already."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.classes, self.shape, self.name = dataset, dataset.classes, (1, 4, 4), "made"

    def load(self, preprocessing: object) -> Dataset:
        return self.dataset


def division(count: int, official: bool, **settings: object) -> Division:
    config = RunConfig(autoencoder="feature-conv", **settings)
    data = Held(folders([count], official))
    return Division.draw(config, data, View(None, ("0",), ("0",)))


@pytest.mark.parametrize("official", [True, False])
@pytest.mark.parametrize("guarantee", [None, "cross", "marginal"])
@pytest.mark.parametrize("count", [1, 3, 4, 7, 15, 20])
def test_with_so_many_images_as_are_asked_for_it_works(count: int, guarantee: str | None, official: bool) -> None:
    with pytest.raises((DataError, CalibrationError)) as refused:
        division(count, official, guarantee=guarantee, target_fpr=0.05)
    (told,) = re.findall(r"with (\d+) they are enough|use (\d+) or more normal images", str(refused.value))
    enough = int(told[0] or told[1])
    assert enough == (39 if guarantee == "marginal" else 22 if official else 29)
    for more in range(12):
        made = division(enough + more, official, guarantee=guarantee, target_fpr=0.05)
        images = len(made.split.calibration.indices)
        assert (made.split.trainable // made.folds * made.folds if made.folds else images) >= 19


@pytest.mark.parametrize(
    ("count", "official", "guarantee", "rate"),
    [
        (22, True, None, 0.05),
        (21, True, None, 0.05264),
        (10, True, None, 0.1),
        (29, False, None, 0.05),
        (10, False, None, 0.125),
        (38, True, "marginal", 0.05264),
        (18, False, "marginal", 0.1112),
    ],
)
def test_where_no_rate_is_asked_few_images_get_the_smallest_that_they_can_hold(
    capsys: pytest.CaptureFixture[str], count: int, official: bool, guarantee: str | None, rate: float
) -> None:
    made = division(count, official, guarantee=guarantee)
    assert made.rate == rate
    assert (f"rate of 0.05, the usual one: {rate:g} is taken, the smallest" in capsys.readouterr().err) == (
        rate > 0.05
    )
    calibrating = (
        made.split.trainable // made.folds * made.folds if made.folds else len(made.split.calibration.indices)
    )
    require_enough(calibrating, rate)
    if rate > 0.05:
        with pytest.raises(CalibrationError, match="needs at least 19 calibration images"):
            division(count, official, guarantee=guarantee, target_fpr=0.05)


@pytest.mark.parametrize(
    ("count", "official", "guarantee"), [(7, True, None), (9, False, None), (13, True, "marginal")]
)
def test_no_rate_that_nobody_would_want_is_taken(count: int, official: bool, guarantee: str | None) -> None:
    with pytest.raises(
        CalibrationError, match=r"0\.125 needs at least 7 .* the smallest rate possible is 0\.1"
    ) as refused:
        division(count, official, guarantee=guarantee)
    (enough,) = re.findall(r"use (\d+) or more normal images", str(refused.value))
    for more in range(6):
        assert division(int(enough) + more, official, guarantee=guarantee).rate <= 0.125


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("official", [True, False])
@pytest.mark.parametrize("guarantee", [None, "marginal"])
def test_the_rate_that_is_taken_is_the_smallest(classes: int, official: bool, guarantee: str | None) -> None:
    for count in range(24, 48):
        data = Held(folders([len(part) for part in torch.arange(count).chunk(classes)], official))
        names = tuple(str(i) for i in range(classes))
        made = Division.draw(
            RunConfig(autoencoder="feature-conv", guarantee=guarantee), data, View(None, names, names)
        )
        images = len(made.split.calibration.indices)
        assert made.rate == default_rate(made.split.trainable // made.folds * made.folds if made.folds else images)


@pytest.mark.parametrize("official", [True, False])
@pytest.mark.parametrize("count", [100, 290, 320, 500, 700])
def test_of_many_images_folds_are_made_where_too_few_can_be_set_aside(count: int, official: bool) -> None:
    enough = 222 if official else 286
    if count < enough:
        with pytest.raises(CalibrationError, match=f"use {enough} or more normal images"):
            division(count, official, target_fpr=0.005)
    else:
        made = division(count, official, target_fpr=0.005)
        assert (made.folds is None) == (len(made.split.calibration.indices) >= 199)
        assert made.folds is None or made.split.trainable // made.folds * made.folds >= 199


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("official", [True, False])
@pytest.mark.parametrize("folds", [None, 5, 10])
def test_so_many_are_enough_in_folds_and_hardly_fewer(classes: int, official: bool, folds: int | None) -> None:
    config = RunConfig(guarantee="cross", folds=folds)

    def scored(count: int, few: int = 0) -> int:
        sizes = [few, count - few] if few else [len(part) for part in torch.arange(count).chunk(classes)]
        images = split_dataset(folders(sizes, official), range(len(sizes)), seed=0).trainable
        each = folds or fold_count(images)
        return images // each * each

    for needed in (9, 19, 33):
        enough = enough_in_folds(config, needed, official) + 3 * (classes - 1)
        assert all(scored(count) >= needed for count in range(enough, enough + 20))
        assert classes > 1 or scored(enough - 1) < needed
        assert classes != 2 or all(scored(enough, few) >= needed for few in range(1, enough))


@pytest.mark.parametrize("guarantee", ["marginal", "tail", "conditional"])
@pytest.mark.parametrize(("count", "helps"), [(25, True), (10, False)])
def test_where_another_guarantee_holds_the_rate_it_is_said(guarantee: str, count: int, helps: bool) -> None:
    with pytest.raises(CalibrationError) as refused:
        division(count, True, guarantee=guarantee, target_fpr=0.05)
    assert (f"leave guarantee={guarantee} out" in str(refused.value).replace('"', "")) == helps
    assert ("ask for a higher rate" in str(refused.value)) == (guarantee != "tail")
    assert "take another guarantee" not in str(refused.value)
    if helps:
        assert division(count, True, target_fpr=0.05).folds


def test_a_small_rate_is_reckoned_without_counting_up_to_it() -> None:
    assert enough_in_folds(RunConfig(), 10**9 - 1, has_test=True) > 10**9


def test_groups_have_no_folds_and_need_more() -> None:
    split = split_dataset(folders([2] * 25, official=False), range(25), seed=0, needed=19, enough_in_folds=29)
    assert split.groups == 25
    assert split.enough == 2 * (19 + 25 / 2)


def test_it_is_said_what_is_proven_and_that_some_are_in_no_fold(capsys: pytest.CaptureFixture[str]) -> None:
    division(29, official=True, guarantee="cross")
    division(29, official=True, guarantee="marginal", target_fpr=0.1)
    cross, marginal = capsys.readouterr().err.splitlines()
    assert "26 to learn from, 25 of them in 5 folds, each left out once for the threshold, 3 to stop by" in cross
    assert "rates from 0.03847 on can be asked for (for 0.05, at most 0.167 is proven)" in cross
    assert marginal.endswith("rates from 0.1 on can be asked for")
