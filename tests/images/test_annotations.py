"""Pictures with files beside them that may say what is in them: they are not read, and that is said or asked."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from anomaly_ae.datasets.catalogue import normal_classes
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.errors import UsageError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def sheet(text: str) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", f"<sst><si><t>name</t></si><si><t>{text}</t></si></sst>")
    return file.getvalue()


def make(root: Path, pictures: str, others: Mapping[str, str | bytes], count: int = 12) -> PictureData:
    """Pictures, from the tenth on in the folder for bad ones where there is one; and other files."""
    for i in range(count):
        (path := root / pictures.format(i, sense="good" if i < 10 else "bad")).parent.mkdir(
            parents=True, exist_ok=True
        )
        path.write_bytes(PNG)
    for name, content in others.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return PictureData.open(str(root))


ASKED: dict[str, tuple[str, dict[str, str | bytes], str]] = {
    "YOLO": (
        "train/images/{}.jpg",
        {f"train/labels/{i}.txt": "0 0.5 0.5 0.1 0.1\n" for i in range(12)} | {"data.yaml": "names: [hole]"},
        "12 .txt files called as pictures, as train/labels/0.txt",
    ),
    "Pascal VOC": (
        "JPEGImages/p{}.jpg",
        {"Annotations/p3.xml": "<object/>"},
        "1 .xml file called as a picture, Annotations/p3.xml",
    ),
    "with the ending of the picture": ("img/a{}.png", {"ann/a7.png.json": "{}"}, "1 .json file called as a picture"),
    "with other capitals": ("A{}.PNG", {"a7.TXT": "1 1"}, "1 .txt file called as a picture, a7.TXT"),
    "COCO": (
        "train/{:04}.png",
        {"annotations/instances.json": '{"images": [{"file_name": "train/0003.png"}]}'},
        "1 file with names of pictures, annotations/instances.json",
    ),
    "a table": (
        "images/{:04}.png",
        {"train.csv": "image,label\n0003.png,1\n"},
        "1 file with names of pictures, train.csv",
    ),
    "a table without endings": (
        "x{:04}.png",
        {"train.tsv": "label\tid\n1\tx0003\n"},
        "with names of pictures, train.tsv",
    ),
    "a table of numbers": (
        "{}.png",
        {"train.csv": "id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(12))},
        "with names of pictures, train.csv",
    ),
    "a table of the bad ones with paths": (
        "images/part {}.png",
        {"bad.txt": "C:\\images\\part 3.png 1\nimages\\part 4.png\n"},
        "with names of pictures, bad.txt",
    ),
    "a spreadsheet": ("images/{:04}.png", {"labels.xlsx": sheet("0003.png")}, "with names of pictures, labels.xlsx"),
    "UTF-16": ("bild{}.png", {"x.txt": "bild3.png\t1".encode("utf-16")}, "with names of pictures, x.txt"),
}


@pytest.mark.parametrize(("pictures", "others", "said"), ASKED.values(), ids=ASKED)
def test_labels_that_are_not_read_are_asked_about(
    tmp_path: Path, pictures: str, others: dict[str, str | bytes], said: str
) -> None:
    data = make(tmp_path, pictures, others)
    with pytest.raises(UsageError, match=f"normal is needed: .* may be said in .*{said}") as caught:
        normal_classes("", data)
    assert 'say normal="all" if all of them are normal; or move' in str(caught.value)
    lines = data.describe(normal_classes("all", data)).splitlines()
    assert [said in line for line in lines if line.startswith("  not read: ")] == [True]


@pytest.mark.parametrize(("pictures", "others", "said"), ASKED.values(), ids=ASKED)
def test_where_folders_tell_they_are_only_said(
    tmp_path: Path, pictures: str, others: dict[str, str | bytes], said: str
) -> None:
    folder, _, name = pictures.rpartition("/")
    data = make(tmp_path, f"{folder}/{{sense}}/{name}".lstrip("/"), others)
    assert data.normal == "good"
    assert (
        sum(line.startswith("  not read: ") for line in data.describe([data.classes.index("good")]).splitlines()) == 1
    )


@pytest.mark.parametrize(
    "others",
    [
        {"readme.txt": "12 pictures of 3 parts, taken in 2024; part of a set"},
        {"data.yaml": "names: [hole]\nnc: 1"},
        {"results.csv": "epoch,loss\n0,1\n1,1\n2,1\n"},
        {".labels/0.txt": "1", "__MACOSX/._1.txt": "1"},
        {"broken.xlsx": b"PK\3\4", "other.csv": "name,label\nz9.png,1\n"},
    ],
)
def test_other_files_are_of_no_interest(tmp_path: Path, others: dict[str, str | bytes]) -> None:
    data = make(tmp_path, "part/{}.png", others)
    assert normal_classes("", data) == (0,)
    assert "not read" not in data.describe([0])


def test_labels_of_the_test_alone_say_nothing_of_the_training(tmp_path: Path) -> None:
    make(tmp_path, "test/{sense}/t{}.png", {"test.csv": "t3.png,1"})
    assert normal_classes("", make(tmp_path, "train/{}.png", {}))


def test_labels_below_an_address_are_asked_about(tmp_path: Path) -> None:
    make(tmp_path, "img/{:04}.png", {"labels.csv": "0003.png,1"})
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/labelled", recursive=True)
    with pytest.raises(UsageError, match=r"with names of pictures, .*labels\.csv"):
        normal_classes("", PictureData.open("memory://labelled"))
