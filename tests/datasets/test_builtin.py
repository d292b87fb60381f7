import gzip
import hashlib
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly_ae.datasets.builtin import find_idx, load_dataset, read_idx
from anomaly_ae.datasets.catalogue import open_data
from anomaly_ae.errors import DataDamaged, DataMissing, StorageError, UnknownName
from anomaly_ae.images.roi import RegionOfInterest


def write_mnist(root: Path, *, packed: bool = False, name: str = "MNIST") -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 20)):
        images, labels = np.arange(count * 784).reshape(count, 28, 28) % 256, np.arange(count) % 10
        for part, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx_bytes(values)
            path = raw / f"{prefix}-{part}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)


def test_digits_are_bundled() -> None:
    digits = load_dataset("digits")
    images = digits.files["train"].images
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert "test" not in digits.files


@pytest.mark.parametrize("packed", [False, True])
def test_files_are_used_as_they_lie_and_nothing_is_written(tmp_path: Path, packed: bool) -> None:
    write_mnist(tmp_path, packed=packed)
    before = sorted(tmp_path.rglob("*"))
    dataset = load_dataset("mnist", str(tmp_path))
    assert dataset.files["train"].images.shape == (40, 1, 28, 28)
    assert dataset.files["test"].labels.tolist() == [i % 10 for i in range(20)]
    assert int(dataset.files["train"].images[0, 0, 0, 5]) == 5
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_can_be_named_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, name="KMNIST")
    monkeypatch.setenv("ANOMALY_AE_DATA_DIR", str(tmp_path))
    assert load_dataset("kmnist").classes[1] == "ki"


def test_with_a_region_of_interest_it_is_loaded_once(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = open_data("mnist", str(tmp_path))
    looking = data.learning([0], RegionOfInterest(((0, 0, 1, 0.5),)))
    assert looking.shape == (1, 14, 28)
    shutil.rmtree(tmp_path / "MNIST")
    assert data.shape == (1, 28, 28)


@pytest.mark.usefixtures("offline")
def test_absent_and_offline_names_the_folder_and_what_else_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataMissing) as caught:
        load_dataset("fashion-mnist", str(tmp_path / "data" / "sets"))
    for part in (str(tmp_path / "data"), "could not be downloaded", "data_dir", 'dataset="digits"'):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(40, 11)))
    with pytest.raises(DataDamaged, match="beyond 10 classes"):
        load_dataset("mnist", str(tmp_path))
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(39)))
    with pytest.raises(DataDamaged, match="40 images for 39 labels"):
        load_dataset("mnist", str(tmp_path))


def test_cifar10_is_read_in_colour_and_only_with_the_right_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.arange(2 * 3072).reshape(2, 3072).astype(np.uint8)
    sums = {}
    for name, content in {
        "data_batch_1": {"data": pixels, "labels": [3, 9]},
        "test_batch": {"data": pixels, "labels": [0, 1]},
        "batches.meta": {"label_names": list("abcdefghij")},
    }.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    with pytest.raises(DataDamaged, match="incomplete or damaged"):
        load_dataset("cifar10", str(tmp_path))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    train = load_dataset("cifar10", str(tmp_path)).files["train"]
    assert train.images.shape == (2, 3, 32, 32)
    assert train.labels.tolist() == [3, 9]
    # CIFAR's rows hold all of red, then green, then blue
    np.testing.assert_array_equal(train.images[1].numpy().ravel(), pixels[1])


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'fashion-mnist'"):
        load_dataset("fashion_mnist")


def idx_bytes(values: np.ndarray) -> bytes:
    return (
        struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    )


VALUES = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_values_come_back_packed_or_not(tmp_path: Path, packed: bool) -> None:
    content = idx_bytes(VALUES)
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert find_idx(tmp_path, "a") == path
    np.testing.assert_array_equal(read_idx(path, 3).numpy(), VALUES)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("keep", [0, 10, 30])
def test_a_file_cut_short_is_said_to_be(tmp_path: Path, packed: bool, keep: int) -> None:
    content = idx_bytes(VALUES)
    content = (gzip.compress(content) if packed else content)[:keep]
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match="get it again"):
        read_idx(path, 3)


def test_values_beyond_what_the_header_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(idx_bytes(VALUES) + b"x")
    with pytest.raises(DataDamaged, match="holds more"):
        read_idx(tmp_path / "a", 3)


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_a_header_that_claims_terabytes_is_refused_before_any_is_allocated(tmp_path: Path, name: str) -> None:
    content = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 2**10, 2**10) + bytes(100)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(DataDamaged, match="rules out"):
        read_idx(tmp_path / name, 3)


def test_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataDamaged, match="no IDX file"):
        read_idx(tmp_path / "a", 3)
    (tmp_path / "b.gz").write_bytes(b"not gzip")
    with pytest.raises(DataDamaged, match="damaged"):
        read_idx(tmp_path / "b.gz", 3)


def test_a_folder_where_a_file_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="must be a readable file"):
        read_idx(tmp_path, 3)
