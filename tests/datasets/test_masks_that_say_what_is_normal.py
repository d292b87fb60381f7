"""Folders with masks, of which the empty ones say what is normal."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ae.datasets.catalogue import normal_classes
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.errors import UsageError
from tests.datasets.conftest import summary


def paint(path: Path, value: int, at: tuple[int, int] | None = None) -> None:
    """A picture of 40×50, all of one value but for one pixel."""
    pixels = np.full((40, 50), value, np.uint8)
    if at:
        pixels[at] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ("kos{}/Part0.jpg", "kos{}/Part0_label.bmp"),  # Kolektor SDD: a folder for each part
        ("train/{}.png", "train/{}_GT.png"),  # SDD2
        ("images/{}.png", "masks/{}.png"),
    ],
)
def test_pictures_are_normal_where_their_masks_are_empty(tmp_path: Path, picture: str, mask: str) -> None:
    for i in range(6):
        paint(tmp_path / picture.format(i), 100)
        paint(tmp_path / mask.format(i), 0, at=(7, 7) if i >= 4 else None)  # a single pixel is enough
    data = PictureData.open(str(tmp_path))
    assert summary(data.layout) == "train defective 2; train +normal 4; masks 6"
    assert "normal are those that no mask marks anything in" in data.describe([1])
    (tmp_path / mask.format(0)).write_bytes(b"no picture")
    assert (
        summary(PictureData.open(str(tmp_path)).layout) == "train defective 2; train +normal 3; masks 6; left out 1"
    )


def test_pictures_without_a_mask_are_said_and_beside_empty_masks_asked_about(tmp_path: Path) -> None:
    for i in range(6):
        paint(tmp_path / f"images/{i}.png", 100)
    for i in range(2):
        paint(tmp_path / f"masks/{i}.png", 0, at=(7, i + 7))
    told = PictureData.open(str(tmp_path))
    assert summary(told.layout) == "train defective 2; train +normal 4; masks 2"
    assert told.layout.about.endswith("normal are those that no mask marks anything in; 4 pictures have no mask")
    paint(tmp_path / "masks/2.png", 0)
    asked = PictureData.open(str(tmp_path))
    with pytest.raises(
        UsageError, match=r'3 pictures have no mask, and 1 has an empty one; .* as in normal="normal",'
    ):
        normal_classes("", asked)
    assert "normal     4" in asked.describe(normal_classes("normal", asked))
    for folder, count in {"images/good": range(2, 6), "images/bad": range(2)}.items():  # as it says
        (tmp_path / folder).mkdir()
        for i in count:
            (tmp_path / f"images/{i}.png").rename(tmp_path / f"{folder}/{i}.png")
    moved = summary(PictureData.open(str(tmp_path)).layout)
    assert moved == "train bad 2; train +good 4; masks 3"


def test_a_training_without_masks_is_normal_beside_a_test_with_empty_ones(tmp_path: Path) -> None:
    for i in range(4):
        paint(tmp_path / f"train/images/{i}.png", 100)
        paint(tmp_path / f"test/images/t{i}.png", 100)
        paint(tmp_path / f"test/masks/t{i}.png", 0, at=(7, 7) if i else None)
    assert summary(PictureData.open(str(tmp_path)).layout) == (
        "train +normal 4; test defective 3; test +normal 1; masks 4"
    )


def test_dagm(tmp_path: Path) -> None:
    """A folder Label has masks of the pictures with a defect, and a list that is no picture."""
    for name in ("Class1", "Class2"):
        for role in ("Train", "Test"):
            for i in range(1, 5):
                paint(tmp_path / f"{name}/{role}/{i:04}.PNG", 100)
            paint(tmp_path / f"{name}/{role}/Label/0003_label.PNG", 0, at=(7, 7))
            (tmp_path / f"{name}/{role}/Label/Labels.txt").write_text("1\n3\t1\t0003.PNG\t1\t0003_label.PNG\n")
    one = PictureData.open(str(tmp_path / "Class1"))
    assert summary(one.layout) == "train defective 1; train +normal 3; test defective 1; test +normal 3; masks 2"
    train = PictureData.open(str(tmp_path / "Class1/Train"))
    assert summary(train.layout) == "train defective 1; train +normal 3; masks 1"
    both = PictureData.open(str(tmp_path))
    with pytest.raises(
        UsageError, match=r'the folders Class1, Class2 hold a data set each; .*/Class1"; or .*normal="normal"\n'
    ):
        normal_classes("", both)
    assert both.describe(normal_classes("normal", both)).splitlines()[-4:] == [
        "  taken together:",
        "    Class1  6 normal  2 anomalous",
        "    Class2  6 normal  2 anomalous",
        f'  one of them alone: dataset="{tmp_path}/Class1"',
    ]


def test_where_every_mask_marks_something_nothing_is_normal(tmp_path: Path) -> None:
    for i in range(3):
        paint(tmp_path / f"images/{i}.png", 100)
        paint(tmp_path / f"masks/{i}.png", 0, at=(3, i))
    with pytest.raises(UsageError, match="each of the pictures has a mask that marks something"):
        normal_classes("", PictureData.open(str(tmp_path)))
