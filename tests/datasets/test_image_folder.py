"""Folders of real files, of mixed sizes and modes, good and bad."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ae.datasets import decoded, image_folder
from anomaly_ae.datasets.catalogue import open_data, require_dataset, whole_name
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.errors import DataError, DataMissing, UnknownName, UsageError
from anomaly_ae.escaping import short_name
from anomaly_ae.images.decode import CROP, PAD, STRETCH
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.storage import memmap

SMALL = Preprocessing(1, 8, 12)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def gray(seed: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """MVTec's layout: ten good pictures of mixed sizes, a bad file, two defective ones, one with a mask."""
    for i in range(10):
        save(tmp_path / f"set/train/good/{i}.png", gray(i, 20 + i, 30))
    (tmp_path / "set/train/good/zz.png").write_bytes(b"no picture")
    for i in range(2):
        save(tmp_path / f"set/test/hole/{i}.png", gray(20 + i))
    mask = np.zeros((20, 30), np.uint8)
    mask[:10] = 255
    save(tmp_path / "set/ground_truth/hole/0_mask.png", mask)
    save(tmp_path / "set/test/good/0.png", gray(30))
    return tmp_path / "set"


def test_a_folder_is_read_as_the_detector_sees_it_and_bad_files_are_listed(folder: Path) -> None:
    data = open_data(str(folder))
    assert isinstance(data, PictureData)
    assert data.shape == (1, 24, 30)  # the median height of the training pictures
    dataset = data.load(SMALL)
    assert len(dataset.left_out) == 1
    assert dataset.left_out[0].startswith("train/good/zz.png: cannot be read as an image")
    train = dataset.files["train"]
    assert (len(train), train.images.shape, train.images.dtype) == (10, (10, 1, 8, 12), torch.uint8)
    assert [dataset.classes[label] for label in dataset.files["test"].labels] == ["good", "hole", "hole"]
    with Image.open(folder / "train/good/3.png") as image:
        assert torch.equal(train.images[3:4], SMALL.prepare(image))
    assert train.names is not None
    assert train.names[3] == b"train/good/3.png"


def test_only_the_pictures_asked_for_are_read(folder: Path) -> None:
    dataset = open_data(str(folder)).load(SMALL, frozenset([b"train/good/3.png"]))
    assert list(dataset.files) == ["train"]
    assert dataset.files["train"].names == (b"train/good/3.png",)


def test_too_many_bad_files_stop_the_run(folder: Path) -> None:
    (folder / "train/good/yy.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 15 pictures .* cannot be read; the first train/good/yy.png: .*empty"):
        open_data(str(folder)).load(SMALL)


def test_a_folder_of_nothing_but_bad_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"not one of 1 picture in .* a.png: .*empty"):
        _ = open_data(str(tmp_path)).shape


def test_pictures_are_looked_at_once_whoever_asks_again(folder: Path) -> None:
    data, roi = open_data(str(folder)), RegionOfInterest(((0, 0, 1, 0.5),))
    looking = data.learning([0], roi)
    assert looking.shape == data.learning([0], roi).shape
    assert looking is data.learning([0], roi)
    assert looking is not data.learning([0])


def test_masks_are_where_they_are_known(folder: Path) -> None:
    data = open_data(str(folder))
    found = data.masks([b"test/good/0.png", b"test/hole/0.png", b"test/hole/1.png"], SMALL)
    assert found is not None
    masks, known = found
    assert known.tolist() == [False, True, False]
    assert masks[1, :4].all()
    assert not masks[1, 5:].any()
    assert not masks[[0, 2]].any()
    assert data.masks([b"test/good/0.png"], SMALL) is None


@pytest.mark.parametrize("value", [1, 255])
def test_masks_of_any_value_are_read_and_thin_defects_are_kept(folder: Path, value: int) -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[100:104] = value
    save(folder / "ground_truth/hole/0_mask.png", mask)
    found = open_data(str(folder)).masks([b"test/hole/0.png"], Preprocessing(1, 40, 60))
    assert found is not None
    rows = found[0][0].any(dim=1).nonzero().flatten().tolist()
    assert rows
    assert set(rows) <= {19, 20, 21}


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (lambda: gray(1), 1),
        (lambda: np.dstack([gray(1)] * 3), 1),  # gray, though saved as colour
        (lambda: np.dstack([gray(1), gray(1), gray(2)]), 3),
    ],
    ids=["gray", "gray in three channels", "colour"],
)
def test_colour_is_found_by_looking(tmp_path: Path, make: Callable[[], np.ndarray], channels: int) -> None:
    save(tmp_path / "a.png", gray(0))
    save(tmp_path / "b.png", make())
    assert open_data(str(tmp_path)).shape == (channels, 20, 30)


def test_size_and_colour_of_the_pictures_are_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(of: Path) -> str:
        data = open_data(str(of))
        assert isinstance(data, PictureData)
        return data.size_words((8, 12), 64, PAD)[0]

    assert said(folder) == "pictures: 20×30 to 29×30, gray; seen at 8×12"
    for i in range(3):
        save(tmp_path / f"colour/good/{i}.png", np.stack([gray(i), gray(9), gray(10)], axis=-1))
    assert said(tmp_path / "colour") == "pictures: 20×30, in colour; seen at 8×12"
    save(tmp_path / "turned/good/0.png", np.zeros((40, 20), np.uint8))
    save(tmp_path / "turned/good/1.png", np.zeros((10, 30), np.uint8))
    assert said(tmp_path / "turned").startswith("pictures: 10×30 to 40×20, gray")  # no picture is 40×30
    for i, size in enumerate([(20, 30), (30, 20), (20, 30)]):
        save(tmp_path / f"both/good/{i}.png", np.zeros(size, np.uint8))
    assert said(tmp_path / "both").startswith("pictures: 20×30 to 30×20, gray")
    monkeypatch.setattr(image_folder, "LOOKED_AT", 2)
    assert said(tmp_path / "colour") == "pictures: 20×30, in colour (2 of 3 looked at); seen at 8×12"


@pytest.mark.parametrize("resize_mode", [STRETCH, PAD, CROP])
def test_too_many_for_the_memory_lie_in_a_file_and_are_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize_mode: str
) -> None:
    preprocessing = Preprocessing(1, 8, 12, resize_mode)
    held = open_data(str(folder)).load(preprocessing)
    monkeypatch.setenv("ANOMALY_AE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memmap, "memory_budget", lambda: 200)
    mapped = open_data(str(folder)).load(preprocessing)
    assert mapped.digest() == held.digest()
    assert mapped.left_out == held.left_out
    assert len(list((tmp_path / "cache").glob("*/pixels.npy"))) == 2  # train and test
    indices = torch.tensor([7, 1, 4])
    taken = mapped.files["train"].take(indices)
    assert torch.equal(taken.images, held.files["train"].images[indices])
    assert len(list((tmp_path / "cache").iterdir())) == 2  # what was taken lies in a file without a name


def test_what_was_decoded_is_not_decoded_again_until_a_file_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_AE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memmap, "memory_budget", lambda: 200)
    before = open_data(str(folder)).load(SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(decoded, "decode_files", None)  # decoding is not possible
        assert open_data(str(folder)).load(SMALL).digest() == before.digest()
    save(folder / "train/good/3.png", gray(99, 23, 31))
    after = open_data(str(folder)).load(SMALL)
    assert not torch.equal(after.files["train"].images[3], before.files["train"].images[3])


def test_a_damaged_cache_is_made_anew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_AE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memmap, "memory_budget", lambda: 200)
    before = open_data(str(folder)).load(SMALL)
    for about in (tmp_path / "cache").glob("*/about.json"):
        about.write_text(json.dumps({})[:1])
    assert open_data(str(folder)).load(SMALL).digest() == before.digest()


def test_names_and_places(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert whole_name("set") == str(folder)
    assert whole_name("set", str(tmp_path)) == str(folder)
    assert whole_name("digits") == "digits"
    assert short_name(str(folder)) == "set"
    monkeypatch.chdir("/")
    require_dataset("set", str(tmp_path))  # one among the data sets
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        require_dataset("digit")
    (tmp_path / "FashionMNIST/raw").mkdir(parents=True)  # where torchvision puts its files
    with pytest.raises(DataMissing, match=r"there is no image in .*; did you mean the data set fashion-mnist"):
        open_data("FashionMNIST", str(tmp_path))
    (tmp_path / "gro\u0308sse").mkdir()  # as macOS composes it
    assert whole_name("gr\u00f6sse", str(tmp_path)) == str(tmp_path / "gro\u0308sse")
    with pytest.raises(DataMissing, match=r"there is no folder \./set"):
        require_dataset("./set")
    with pytest.raises(UsageError, match="is a file"):
        require_dataset(str(folder / "train/good/0.png"))


def test_pictures_at_an_address_are_taken_too() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for i in range(4):
        with memory.open(f"/shots/good/{i}.png", "wb") as file:
            Image.fromarray(gray(i)).save(file, "PNG")
    data = open_data("memory://shots")
    assert data.classes == ("good",)
    assert len(data.load(SMALL).files["train"]) == 4
