import pytest
import torch

from anomaly_ae.datasets.splits import Split
from anomaly_ae.datasets.splitting import split_dataset
from anomaly_ae.errors import DataChanged
from anomaly_ae.images.image_set import Dataset, ImageSet


def dataset(count: int, test: int = 0) -> Dataset:
    def images(n: int) -> ImageSet:
        return ImageSet(torch.arange(n * 64).remainder(251).reshape(n, 1, 8, 8).to(torch.uint8), torch.arange(n) % 4)

    files = {"train": images(count)} | ({"test": images(test)} if test else {})
    return Dataset("made", ("a", "b", "c", "d"), files)


def test_other_data_are_refused() -> None:
    split = split_dataset(dataset(400), (0,), seed=0)
    changed = dataset(400)
    changed.files["train"].images[int(split.test.indices[0])] += 1
    split.fit.take(changed)
    with pytest.raises(DataChanged, match="not those the detector was trained on"):
        split.test.take(changed)
    with pytest.raises(DataChanged, match="fewer images"):
        split.test.take(dataset(100))


def test_labels_belong_to_the_digest() -> None:
    data = dataset(8)
    images, classes = data.files["train"], data.classes
    assert images.digest(classes) != ImageSet(images.images, images.labels.flip(0)).digest(classes)


def test_a_class_more_changes_no_digest() -> None:
    before = dataset(8)
    images = before.files["train"]
    after = Dataset("made", ("aa", *before.classes), {"train": ImageSet(images.images, images.labels + 1)})
    assert after.digest() == before.digest()
    taken = after.files["train"].relabelled(after.classes, before.classes)
    assert torch.equal(taken.labels, images.labels)


def test_a_split_survives_its_record() -> None:
    split = split_dataset(dataset(400), (0, 2), seed=5)
    assert Split.from_record(split.record(), split.tensors()).summary() == split.summary()
