"""How many normal images are enough, and what is said where they are not."""

import re

import pytest
import torch

from anomaly_ae.autoencoders.folds import fold_count
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
        division(count, official, guarantee=guarantee)
    (told,) = re.findall(r"with (\d+) they are enough|use (\d+) or more normal images", str(refused.value))
    enough = int(told[0] or told[1])
    assert enough == (39 if guarantee == "marginal" else 22 if official else 29)
    for more in range(12):
        assert division(enough + more, official, guarantee=guarantee).split.trainable >= 19


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("official", [True, False])
@pytest.mark.parametrize("folds", [None, 5, 10])
def test_so_many_are_enough_in_folds_and_hardly_fewer(classes: int, official: bool, folds: int | None) -> None:
    config = RunConfig(guarantee="cross", folds=folds)

    def scored(count: int) -> int:
        sizes = [len(part) for part in torch.arange(count).chunk(classes)]
        images = split_dataset(folders(sizes, official), range(classes), seed=0).trainable
        each = folds or fold_count(images)
        return images // each * each

    for needed in (9, 19, 33):
        enough = enough_in_folds(config, needed, official) + classes - 1
        assert all(scored(count) >= needed for count in range(enough, enough + 20))
        assert classes > 1 or scored(enough - 1) < needed


def test_a_small_rate_is_reckoned_without_counting_up_to_it() -> None:
    assert enough_in_folds(RunConfig(), 10**9 - 1, has_test=True) > 10**9


def test_groups_have_no_folds_and_need_more() -> None:
    with pytest.raises(DataError, match=r"with (4\d|[5-9]\d) they are enough"):
        split_dataset(folders([1] * 3, official=False), range(3), seed=0, needed=19)
    split = split_dataset(folders([2] * 25, official=False), range(25), seed=0, needed=19, in_folds=29)
    assert split.groups == 25
    assert split.enough > 40


def test_it_is_said_what_is_proven_and_that_some_are_in_no_fold(capsys: pytest.CaptureFixture[str]) -> None:
    division(29, official=True, guarantee="cross")
    division(29, official=True, guarantee="marginal", target_fpr=0.1)
    cross, marginal = capsys.readouterr().err.splitlines()
    assert "26 to learn from, 25 of them in 5 folds, each left out once for the threshold, 3 to stop by" in cross
    assert "rates from 0.03847 on can be asked for (for 0.05, at most 0.167 is proven)" in cross
    assert marginal.endswith("rates from 0.1 on can be asked for")
