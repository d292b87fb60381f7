"""How images are divided by the seed."""

import re

import pytest
import torch

from anomaly_ae.calibration.rates import images_needed, require_enough
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.datasets.copies import Copies
from anomaly_ae.datasets.splits import SPLIT_PARTS, Split
from anomaly_ae.datasets.splitting import split_dataset, split_rows
from anomaly_ae.errors import CalibrationError, DataError
from anomaly_ae.images.image_set import Dataset, ImageSet
from tests.datasets.test_splits import dataset


def folders(sizes: list[int], official: bool = False) -> Dataset:
    """A class of so many images each, all different."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    images = ImageSet(torch.randint(0, 256, (len(labels), 1, 4, 4), dtype=torch.uint8), labels)
    return Dataset(
        "made", tuple(map(str, range(len(sizes)))), {"train": images} | ({"test": images} if official else {})
    )


def test_the_sets_are_disjoint_and_hold_normals_only_but_for_the_test() -> None:
    digits = load_dataset("digits")
    split = split_dataset(digits, (0, 1, 2), seed=0)
    parts = [set(getattr(split, part).indices.tolist()) for part in SPLIT_PARTS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797
    labels = digits.files["train"].labels
    for part in ("fit", "validation", "calibration"):
        assert set(labels[getattr(split, part).indices].tolist()) == {0, 1, 2}
    assert set(labels[split.test.indices].tolist()) == set(range(10))


def test_shares_hold_in_each_class() -> None:
    split = split_dataset(dataset(400), (1, 3), seed=0)
    assert [len(getattr(split, part).indices) for part in SPLIT_PARTS] == [100, 20, 40, 240]
    labels = dataset(400).files["train"].labels
    assert labels[split.calibration.indices].bincount().tolist() == [0, 20, 0, 20]


def test_with_an_official_test_split_it_is_the_test_whole() -> None:
    split = split_dataset(dataset(400, test=40), (0, 1), seed=0)
    assert [len(getattr(split, part).indices) for part in SPLIT_PARTS] == [160, 20, 20, 40]
    assert (split.test.file, split.fit.file) == ("test", "train")


def test_the_seed_decides() -> None:
    digits = dataset(400)
    first, again, other = (split_dataset(digits, (0,), seed) for seed in (0, 0, 1))
    assert first.summary() == again.summary()
    assert first.fit.digest != other.fit.digest


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="too few"):
        split_dataset(dataset(8), (0,), seed=0)


@pytest.mark.parametrize("count", [10, 11, 12, 20, 30, 50])
def test_the_smallest_rate_that_a_refusal_tells_can_be_asked_for(count: int) -> None:
    def split_for(rate: float) -> Split:
        split = split_dataset(dataset(4 * count), (0,), seed=0, needed=images_needed(rate))
        require_enough(len(split.calibration.indices), rate, most=split.most_calibration)
        return split

    with pytest.raises(CalibrationError) as refused:
        split_for(0.001)
    told = re.search(r"the smallest rate possible is ([\d.]+);", str(refused.value))
    assert told
    split = split_for(float(told[1]))
    assert all(len(getattr(split, part).indices) for part in SPLIT_PARTS)
    with pytest.raises(CalibrationError):
        split_for(0.97 * float(told[1]))


def test_contamination_smuggles_novel_images_into_the_fit_set_alone() -> None:
    dataset = load_dataset("digits")
    clean, split = split_dataset(dataset, (0, 1, 2), 0), split_dataset(dataset, (0, 1, 2), 0, 0.1)
    labels = dataset.files["train"].labels
    novel = labels[split.fit.indices] > 2
    assert float(novel.float().mean()) == pytest.approx(0.1, abs=0.002)
    assert not torch.isin(split.fit.indices, split.test.indices).any()
    assert torch.equal(split.fit.indices[~novel], clean.fit.indices)
    assert torch.equal(split.calibration.indices, clean.calibration.indices)
    assert len(split.test.indices) == len(clean.test.indices) - int(novel.sum())


def test_contamination_needs_enough_novel_images() -> None:
    dataset = load_dataset("digits")
    with pytest.raises(DataError, match="contamination needs"):
        split_dataset(dataset, tuple(range(9)), 0, 0.45)


@pytest.mark.parametrize("images", [40, 50, 57, 58, 100])
@pytest.mark.parametrize("official", [True, False])
def test_small_sets_give_the_calibration_what_it_needs(images: int, official: bool) -> None:
    labels = torch.arange(images) % 2
    made = ImageSet(torch.randint(0, 256, (images, 1, 4, 4), dtype=torch.uint8), labels)
    dataset = Dataset("made", ("a", "b"), {"train": made} | ({"test": made} if official else {}))
    split = split_dataset(dataset, (0, 1), seed=0, needed=19)
    assert len(split.calibration.indices) >= 19
    assert len(split.fit.indices) >= 0.15 * images


@pytest.mark.parametrize(
    ("count", "needed", "sizes"),
    [
        (1000, 39, (800, 100, 100)),
        (100, 39, (51, 10, 39)),
        (60, 39, (24, 6, 30)),
        (4, 39, (1, 1, 2)),
        (3, 19, (1, 1, 1)),
    ],
)
def test_rows_are_divided_without_a_test_part(count: int, needed: int, sizes: tuple[int, ...]) -> None:
    parts = split_rows(count, 0, needed)
    assert tuple(map(len, parts)) == sizes
    assert torch.cat(parts).sort().values.tolist() == list(range(count))
    assert all(torch.equal(one, two) for one, two in zip(parts, split_rows(count, 0, needed), strict=True))
    assert count < 10 or not torch.equal(parts[0], split_rows(count, 1, needed)[0])


@pytest.mark.parametrize("official", [True, False])
@pytest.mark.parametrize("sizes", [[1] * 200, [4] * 200, [12] * 50, [300, *[2] * 40], [3, 19] * 15])
def test_many_small_folders_are_parts_that_are_not_torn_apart(sizes: list[int], official: bool) -> None:
    data = folders(sizes, official)
    split = split_dataset(data, range(len(sizes)), seed=0, needed=19)
    parts = [split.fit, split.validation, split.calibration, *([] if official else [split.test])]
    indices = torch.cat([part.indices for part in parts])
    assert indices.sort().values.tolist() == list(range(sum(sizes)))
    assert len(split.calibration.indices) >= 19
    assert len(split.fit.indices) >= 0.35 * sum(sizes)
    homes = [set(data.files["train"].labels[part.indices].tolist()) for part in parts]
    small = {i for i, size in enumerate(sizes) if size < 20}
    assert all(len([1 for home in homes if i in home]) == 1 for i in small)
    assert split.groups == len(small)
    assert f"each of {len(small)} small folders" in split.about(data, range(len(sizes)))


def test_a_few_small_classes_are_cut_together() -> None:
    split = split_dataset(folders([100, 3, 2, 4, 1]), range(5), seed=0)
    assert [len(getattr(split, part).indices) for part in SPLIT_PARTS] == [55, 11, 22, 22]
    assert split.groups == 0


def test_of_forty_images_twelve_are_learned_from_and_it_is_said() -> None:
    data = folders([40, 30])
    split = split_dataset(data, (0,), seed=0, needed=19)
    assert [len(getattr(split, part).indices) for part in SPLIT_PARTS] == [12, 4, 20, 4 + 30]
    assert split.about(data, (0,)) == (
        "40 normal images: 12 to learn from, 4 to stop by, 20 for the threshold, 4 to measure with, beside 30 others"
    )


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
@pytest.mark.parametrize("official", [True, False])
def test_so_many_images_as_are_said_to_be_enough_are(classes: int, official: bool) -> None:
    with pytest.raises(DataError, match="too few for fit") as raised:
        split_dataset(folders([1, *[0] * (classes - 1)], official), range(classes), seed=0, needed=19)
    (enough,) = map(int, re.findall(r"with (\d+) they are enough", str(raised.value)))
    assert enough == 38 + classes
    sizes = [len(part) for part in torch.arange(enough).chunk(classes)]
    for count in sizes, [10] * (classes - 1) + [enough - 10 * (classes - 1)]:
        split = split_dataset(folders(count, official), range(classes), seed=0, needed=19)
        assert len(split.calibration.indices) >= 19
    assert classes > 1 or len(split_dataset(folders([38], official), [0], seed=0, needed=19).calibration.indices) < 19


def test_copies_are_in_no_part() -> None:
    data = folders([100, 20])
    copies = Copies({"train": dict.fromkeys((3, 7, 110), "a copy")})
    split = split_dataset(data, (0,), seed=0, copies=copies)
    used = torch.cat([getattr(split, part).indices for part in SPLIT_PARTS]).tolist()
    assert sorted(used) == [i for i in range(120) if i not in (3, 7, 110)]
