"""Folders as people have them: what is taken for what, or what is asked."""

import itertools
import os
import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomaly_ae.datasets.catalogue import normal_classes
from anomaly_ae.datasets.folder_layout import FolderLayout, find_layout
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.datasets.normal_classes import parse_normal
from anomaly_ae.errors import DataError, UsageError
from anomaly_ae.images.folder_words import sense

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
Tree = dict[
    str, int
]  # how many pictures there are in each folder, called 0.png, 1.png …, or as it says after a colon


def files(tree: Tree) -> list[bytes]:
    """The paths of a tree; `bad:{}_mask.png` are masks of what lies in bad."""
    found = []
    for place, count in tree.items():
        folder, _, name = place.partition(":")
        found += [f"{folder}/{(name or '{}.png').format(i)}".lstrip("/").encode() for i in range(count)]
    return found


def summary(layout: FolderLayout) -> str:
    """What was found, normal classes with a plus: `train +good 6; test bad 2; masks 2; left out 1`."""
    normal = {layout.classes[i] for i in parse_normal(layout.normal, layout.classes)} if layout.normal else set()
    parts = [
        f"{file} {'+' * (name in normal)}{name} {count}"
        for file, (_, labels) in layout.files.items()
        for name, count in sorted(Counter(layout.classes[label] for label in labels).items())
    ]
    parts += [f"masks {masks}"] if (masks := sum(map(len, layout.masks.values()))) else []
    parts += [f"left out {count}"] if (count := sum(map(len, layout.left_out.values()))) else []
    return "; ".join(parts)


AS_FOUND: dict[str, tuple[Tree, str]] = {
    "one folder": ({"": 3}, "train +normal 3"),
    "an unpacked archive": ({"archive/mine/good": 6, "archive/mine/bad": 2}, "train bad 2; train +good 6"),
    "images above the classes": ({"images/normal": 6, "images/abnormal": 2}, "train abnormal 2; train +normal 6"),
    "images below the roles": (
        {"train/images/good": 6, "test/images/good": 2, "test/images/bad": 3},
        "train +good 6; test bad 3; test +good 2",
    ),
    "images above the roles": ({"imgs/Train/OK": 6, "imgs/Test/NG": 3}, "train +OK 6; test NG 3"),
    "roles below the classes": (
        {"good/train": 6, "good/test": 2, "bad/test": 3},
        "train +good 6; test bad 3; test +good 2",
    ),
    "role and class in one name": (
        {"train_good": 6, "test_good": 2, "test_defect": 3},
        "train +good 6; test defect 3; test +good 2",
    ),
    "a day of good ones": ({"d1/good": 6, "d2/bad": 3}, "train bad 3; train +good 6"),
    "many patients": (
        {f"p{i}/{name}": 2 for i in range(21) for name in ("normal", "abnormal")},
        "train abnormal 42; train +normal 42",
    ),
    "days below the classes": ({"good/d1": 6, "good/d2": 2, "bad/d2/am": 3}, "train bad 3; train +good 8"),
    "MVTec AD": (
        {"train/good": 6, "test/good": 2, "test/crack": 3, "ground_truth/crack:{}_mask.png": 3},
        "train +good 6; test crack 3; test +good 2; masks 3",
    ),
    "MVTec AD 2": (
        {
            "can/train/good:{}_regular.png": 6,
            "can/validation/good:{}_regular.png": 2,
            "can/test_public/good:{}_regular.png": 2,
            "can/test_public/bad:{}_regular.png": 3,
            "can/test_public/ground_truth/bad:{}_regular_mask.png": 3,
            "can/test_private:{}_regular.png": 4,
            "can/test_private_mixed:{}_mixed.png": 4,
        },
        "train +good 8; test bad 3; test +good 2; masks 3; left out 8",
    ),
    "MVTec LOCO": (
        {
            "train/good": 6,
            "validation/good": 2,
            "test/good": 2,
            "test/logical_anomalies": 2,
            "ground_truth/logical_anomalies/0": 3,
            "ground_truth/logical_anomalies/1": 1,
        },
        "train +good 8; test +good 2; test logical_anomalies 2; masks 4",
    ),
    "VisA": (
        {"pcb1/Data/Images/Normal": 6, "pcb1/Data/Images/Anomaly": 2, "pcb1/Data/Masks/Anomaly": 2},
        "train Anomaly 2; train +Normal 6; masks 2",
    ),
    "BTAD": (
        {"01/train/ok:{}.bmp": 6, "01/test/ok:{}.bmp": 2, "01/test/ko:{}.bmp": 3, "01/ground_truth/ko": 3},
        "train +ok 6; test ko 3; test +ok 2; masks 3",
    ),
    "train and val": ({"train/good": 6, "val/good": 2, "val/bad": 3}, "train +good 6; test bad 3; test +good 2"),
    "train, valid and test": (
        {"train/good": 6, "valid/good": 2, "valid/bad": 3, "test/good": 1, "test/bad": 1},
        "train +good 8; test bad 1; test +good 1; left out 3",
    ),
    "training and testing": (
        {"Training/OK": 6, "Testing/OK": 2, "Testing/n.i.O.": 3},
        "train +OK 6; test +OK 2; test n.i.O. 3",
    ),
    "other capitals in the test": (
        {"train/Good": 6, "train/Crack": 1, "test/good": 2, "test/CRACK": 3},
        "train Crack 1; train +Good 6; test Crack 3; test +Good 2",
    ),
    "another word for normal in the test": (
        {"train/parts": 6, "test/good": 2, "test/cut": 3},
        "train +parts 6; test cut 3; test +parts 2",
    ),
    "masks beside": (
        {"good": 6, "bad": 2, "bad:{}_mask.png": 2, "bad:{}_mask_1.png": 1},
        "train bad 2; train +good 6; masks 3",
    ),
    "masks before": ({"good": 6, "bad": 2, "bad:gt_{}.png": 2}, "train bad 2; train +good 6; masks 2"),
    "masks of nothing": (
        {"good": 6, "bad": 2, "bad:{}_GT.png": 3},
        "train bad 2; train +good 6; masks 2; left out 1",
    ),
    "a folder of masks for both": (
        {"good:g{}.png": 6, "bad:b{}.png": 2, "gt:b{}.png": 2},
        "train bad 2; train +good 6; masks 2",
    ),
    "masks in each role": (
        {"train/img/good": 6, "test/img/bad": 2, "test/mask/bad": 2, "train/label/good": 6},
        "train +good 6; test bad 2; masks 8",
    ),
    "junk": (
        {
            "good": 6,
            "bad": 2,
            "good/@eaDir": 3,
            "__MACOSX/good:._{}.png": 6,
            ".ipynb_checkpoints": 1,
            "bad/Thumbnails": 2,
        },
        "train bad 2; train +good 6; left out 12",
    ),
    "masks with another ending": (
        {"OK:{}.jpg": 6, "NG/cut:{}.jpg": 2, "NG/cut:{}.png": 2},
        "train NG 2; train +OK 6; masks 2",
    ),
    "words of other languages": (
        {"良品": 6, "défectueux": 2, "不良": 1},
        "train défectueux 2; train 不良 1; train +良品 6",
    ),
    "what the names of files say": ({":good_{}.png": 3, ":bad_{}.png": 2}, "train anomalous 2; train normal 3"),
    "unlabelled pictures": ({"good": 6, "bad": 2, "unlabeled": 3}, "train bad 2; train +good 6; left out 3"),
    "a test without classes": ({"train": 6, "test": 3}, "train +normal 6; left out 3"),
    "a test alone": ({"test/good": 6, "test/bad": 3}, "train bad 3; train +good 6"),
    "faces with masks": ({"with_mask": 3, "without_mask": 3}, "train with_mask 3; train without_mask 3"),
    "anomalies alone": ({"anomaly": 3}, "train anomaly 3"),
    "anomalies to train on": ({"train/defects": 3, "test/good": 1}, "train defects 3; test good 1"),
    "an answer in each name": ({"yes": 3, "no": 6}, "train +no 6; train yes 3"),
    "the lack of something bad": ({"no_tumor": 6, "glioma": 2}, "train glioma 2; train +no_tumor 6"),
    "without something bad": ({"without_cracks": 6, "with": 2}, "train with 2; train +without_cracks 6"),
    "the lack of a part": ({"no_cap": 2, "cap": 6}, "train cap 6; train no_cap 2"),
    "German parts": ({"Gutteile": 6, "Schlechtteile": 2}, "train +Gutteile 6; train Schlechtteile 2"),
    "patients with the same classes": ({f"88{i}/{c}": 3 for i in range(3) for c in "01"}, "train 0 9; train 1 9"),
    "kinds with the same days": ({f"{k}/{c}": 3 for k in "abc" for c in "01"}, "train a 6; train b 6; train c 6"),
    "two days with the same kinds": ({f"d{i}/{c}": 3 for i in "12" for c in "ab"}, "train d1 6; train d2 6"),
    "pictures drawn over": (
        {"good": 6, "bad": 2, "bad:{}_mask.png": 2, "bad:{}_overlay.png": 2, "heatmaps": 4},
        "train bad 2; train +good 6; masks 2; left out 6",
    ),
    "an overlay of nothing": ({"good": 6, "bad": 2, "bad:x_overlay{}.png": 2}, "train bad 4; train +good 6"),
    "masks in two folders": (
        {"good:g{}.png": 6, "bad:b{}.png": 2, "gt:b{}.png": 2, "masks:b{}.png": 2},
        "train bad 2; train +good 6; masks 4",
    ),
    "labels alone": ({"labels": 3}, "train labels 3"),
    "no known word": ({"cat": 3, "dog": 3}, "train cat 3; train dog 3"),
    "two that sound normal": ({"good": 3, "ok": 3, "bad": 1}, "train bad 1; train good 3; train ok 3"),
    "backslashes": (
        {"set\\train\\good\\a": 6, "set\\test\\bad\\b": 3, "set\\ground_truth\\bad\\b": 3},
        "train +good 6; test bad 3; masks 3",
    ),
}

ASKED: dict[str, tuple[Tree, str]] = {
    "a test without classes alone": ({"test": 6}, "6 pictures that no folder calls normal or anomalous"),
    "a test with some masks alone": (
        {"test": 6, "ground_truth": 2},
        "6 pictures that no folder calls normal or anomalous",
    ),
    "masks alone": ({"ground_truth/bad": 6}, "6 masks, by the names of their folders"),
    "nothing that is not hidden": ({".hidden": 6}, "6 hidden pictures"),
    "pictures beside folders": ({"good": 3, "bad": 3, "": 1}, "1 picture lies beside the folders bad, good"),
    "a bad one within a good one": (
        {"good/bad": 3, "good/1": 3, "ok/2": 3},
        "good/bad say different things",
    ),
    "a test beside classes": ({"good": 3, "bad": 3, "test": 3}, "what the pictures in test are, beside bad, good"),
    "labels as a class": (
        {"label": 3, "cap": 3, "good": 3},
        "whether label is a folder of masks or a class as cap, good",
    ),
    "a set within a set": (
        {"x/train/NORMAL": 3, "x/test/NORMAL": 3, "x/x/train/NORMAL": 3, "x/x/test/NORMAL": 3},
        "the folders x/NORMAL say different things of their pictures, and x lies where others are classes",
    ),
    "other pictures beside classes": ({"good": 3, "images": 3}, "what the pictures in images are"),
}


@pytest.mark.parametrize(("tree", "expected"), AS_FOUND.values(), ids=AS_FOUND)
def test_what_is_what(tree: Tree, expected: str) -> None:
    assert summary(find_layout(files(tree))) == expected


@pytest.mark.parametrize(("tree", "expected"), ASKED.values(), ids=ASKED)
def test_what_cannot_be_known_is_asked(tree: Tree, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        find_layout(files(tree))


def make(root: Path, tree: Tree) -> Path:
    for name in files(tree):
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    return root


@pytest.mark.parametrize(
    ("tree", "empty", "said"),
    [
        ({"bad": 3}, "good", "all there is to train on is called bad, .*, and good holds no picture; say"),
        ({"anomaly": 3}, "", "all there is to train on is called anomaly, which is no name for what is normal"),
        ({"other": 3}, "OK", "all there is to train on lies in other, .*, and OK holds no picture"),
        (
            {":good_{}.png": 3, ":bad_{}.png": 2},
            "",
            "3 file names say normal, as good_0.png, and 2 do not, as bad_0.png",
        ),
        ({"labels": 3}, "", "all there is to train on lies in labels, which may be something else"),
        ({"a": 3, "b": 3}, "", "no name of the classes a, b says normal"),
        ({"good": 3, "ok": 3}, "", "the classes good, ok both sound normal"),
        ({"test/good": 3, "test/bad": 3}, "train", "train holds no picture"),
    ],
)
def test_what_is_normal_is_never_guessed(tmp_path: Path, tree: Tree, empty: str, said: str) -> None:
    (make(tmp_path, tree) / empty).mkdir(exist_ok=True)
    data = PictureData.open(str(tmp_path))
    with pytest.raises(UsageError, match=f"normal is needed: .*{said}") as caught:
        normal_classes("", data)
    (tree_shown,) = caught.value.__notes__  # the folders, with how many pictures there are in each
    assert all(line.split()[-1].isdigit() for line in tree_shown.splitlines())
    assert normal_classes("all", data) == tuple(range(len(data.classes)))
    assert normal_classes(data.classes[0], data) == (0,)  # but may be said


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({":normal ({}).png": 9, ":Tumor ({}).png": 3}, "9 file names say normal, as .*, and 3 do not, as Tumor"),
        ({":normal ({}).png": 9, ":x{}.png": 1}, "9 file names say normal, as .*, and 1 does not, as x0.png"),
        ({"cookies:OK_{}.png": 9, "cookies:NG_{}.png": 3}, "9 file names say normal, .* 3 do not, as NG_0.png"),
        ({"train:IMG_{}.png": 9, "train:crack_{}.png": 3}, "3 file names say anomalous, as crack_0.png"),
    ],
)
def test_where_names_of_files_say_what_is_normal_they_can_be_gone_by(tmp_path: Path, tree: Tree, said: str) -> None:
    data = PictureData.open(str(make(tmp_path, tree)))
    with pytest.raises(UsageError, match=f'{said}.*; say what is normal, as in normal="normal", or normal="all" '):
        normal_classes("", data)
    fewer = min(tree.values())
    table = data.describe(normal_classes("normal", data)).splitlines()
    assert [line.split()[:3] for line in table[1:]] == [
        ["normal", "9", "normal:"],
        ["anomalous", f"{fewer}", "anomalous:"],
    ]
    assert normal_classes("all", data) == (0, 1)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({":0_{}.png": 9, ":1_{}.png": 3}, "; names of files are of the kinds 0_# (9), 1_# (3)"),
        (
            {":frame_{}.png": 9, ":frame_{}_Kratzer.png": 3},
            "; names of files are of the kinds frame_# (9), frame_#_Kratzer (3)",
        ),
        ({":{}_0.png": 9, ":{}_1.png": 3}, "; names of files are of the kinds #_0 (9), #_1 (3)"),
        ({":IMG_{}.png": 9}, ""),
        ({":IMG_{}.png": 9, ":x.png": 1}, ""),
    ],
)
def test_names_of_files_of_a_few_kinds_are_said(tree: Tree, said: str) -> None:
    layout = find_layout(files(tree))
    assert layout.normal
    assert layout.about == f"all pictures in one folder{said}"


@pytest.mark.parametrize(
    ("tree", "advised"),
    [
        (
            {"MT_Blowhole": 3, "MT_Free": 3},
            'with normal="CLASS", or normal="all" .*; or call the folder of the normal',
        ),
        ({"defect": 3, "rest": 9}, 'as in normal="rest", or'),
        ({"OK": 9, "gut": 9, "NOK": 3}, 'as in normal="OK,gut", or normal="all" if everything is\n'),
        (
            {"Linie 1/OK": 9, "Linie 1/NOK": 3, "Linie 2/gut": 9, "Linie 2/schlecht": 3},
            'together with normal="OK,gut"\n',
        ),
        ({"bad": 3}, 'say normal="all" if all of them are normal; or move'),
        ({"bad": 3, "defect": 3}, 'with normal="CLASS"'),
    ],
)
def test_no_class_that_is_called_bad_is_an_example_of_what_is_normal(
    tmp_path: Path, tree: Tree, advised: str
) -> None:
    data = PictureData.open(str(make(tmp_path, tree)))
    with pytest.raises(UsageError) as caught:
        normal_classes("", data)
    assert re.search(advised, f"{caught.value}\n")


def test_remarks_of_a_mac_are_counted(tmp_path: Path) -> None:
    make(tmp_path, {"good": 6, "bad": 2})
    (tmp_path / "__MACOSX").mkdir()
    for name in ("__MACOSX/._0.png", "good/._1.png", "__MACOSX/._x.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7remarks")
    (tmp_path / "__MACOSX/2.png").write_bytes(PNG)
    data = PictureData.open(str(tmp_path))
    assert "  left out: 3 remarks of a Mac" in data.describe(normal_classes("", data)).splitlines()


def test_a_single_odd_name_is_said_and_no_more() -> None:
    layout = find_layout([*files({"": 60}), b"broken.png"])
    assert layout.normal
    assert layout.about.endswith("1 file name says anomalous, as broken.png")


def test_the_tree_that_is_shown_is_small(tmp_path: Path) -> None:
    make(tmp_path, {f"{'a' * 100} {i}/{j}": 1 for i in range(40) for j in range(9)})
    with pytest.raises(UsageError) as caught:
        normal_classes("", PictureData.open(str(tmp_path)))
    lines = caught.value.__notes__[0].splitlines()
    assert lines[0].split() == ["all", "pictures", "360"]
    assert len(lines) < 20
    assert max(map(len, lines)) < 80


def test_the_table_says_what_is_used_for_what_and_what_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, {"train/good": 3, "test/good": 1, "test/bad": 2, "ground_truth/bad": 3, "train/good/@eaDir": 4})
    (tmp_path / "train/good/1.heic").write_bytes(b"")
    (tmp_path / "gone").symlink_to("nowhere")
    data = PictureData.open(str(tmp_path))
    assert data.describe(normal_classes("", data)).splitlines() == [
        f"{tmp_path}: folders train and test",
        "  train  good  3  normal: to learn from, to set the threshold",
        "  test   good  1  normal: to measure with",
        "  test   bad   2  anomalous: to measure with; 2 with masks",
        "  left out: 1 HEIC file, which cannot be read; save as PNG or JPEG",
        "  left out: 1 mask without a picture",
        "  left out: 4 thumbnails",
        "  the link gone leads nowhere",
    ]
    (plain := tmp_path / "plain").mkdir()
    described = PictureData.open(str(make(plain, {"": 3}))).describe([0]).splitlines()
    assert described == [
        f"{plain}: all pictures in one folder",
        "  normal  3  normal: to learn from, to set the threshold, and to measure with",
    ]


VISA = {f"{name}/Data/Images/{word}": 2 for name in ("candle", "pcb 1") for word in ("Normal", "Anomaly")}


@pytest.mark.parametrize(
    ("tree", "expected", "sizes", "alone", "hint"),
    [
        (VISA, "train Anomaly 4; train Normal 4", {"candle": 4, "pcb 1": 4}, "candle", "candle"),
        (
            {"candle/Data/Images/Normal": 3, "pcb/Data/Images/Normal": 3, "pcb/Data/Images/Anomaly": 1},
            *("train Anomaly 1; train Normal 6", {"candle": 3, "pcb": 4}, "candle", "candle"),
        ),
        (
            {"tile/train/good": 3, "tile/test/cut": 1, "can/train/good": 3, "can/ground_truth/x": 1},
            *("train good 6; test cut 1; left out 1", {"can": 3, "tile": 4}, "can", "can"),
        ),
        (
            {"a b/tile/train": 3, "a b/tile/test/bad": 1, "a b/a b/train": 3, "a b/a b/test/bad": 1},
            *("train normal 6; test bad 2", {"a b": 4, "tile": 4}, "a b/a b", "/a b/a b"),
        ),
        (
            {"d1/good": 6, "d2/good": 2, "d2/bad": 3, "d3/bad": 1},
            *("train bad 4; train good 8", {"d1": 6, "d2": 5, "d3": 1}, "d1", "d1"),
        ),
        (
            {"train/a/good": 3, "train/b/good": 3, "test/a/bad": 1, "test/b/bad": 1},
            *("train good 6; test bad 2", {"a": 4, "b": 4}, "", ""),
        ),
    ],
)
def test_data_sets_side_by_side_are_asked_about_and_named_when_taken_together(
    tmp_path: Path, tree: Tree, expected: str, sizes: dict[str, int], alone: str, hint: str
) -> None:
    data = PictureData.open(str(make(tmp_path, tree)))
    assert summary(data.layout) == expected
    assert {name: len(chosen) for name, chosen in data.layout.sets.items()} == sizes
    assert data.layout.alone == alone
    one = f'name one of them, as in dataset=".*{hint}"; or ' if hint else ""
    with pytest.raises(UsageError, match=f"hold a data set each; {one}take them together with normal="):
        normal_classes("", data)
    if alone:
        assert not PictureData.open(str(tmp_path / alone)).layout.sets


def test_data_sets_that_are_taken_together_are_counted(tmp_path: Path) -> None:
    data = PictureData.open(str(make(tmp_path, VISA | {"pcb 1/Data/Images/Anomaly": 5})))
    assert data.describe(normal_classes("Normal", data)).splitlines()[3:] == [
        "  taken together:",
        "    candle  2 normal  2 anomalous",
        "    pcb 1   2 normal  5 anomalous",
        f'  one of them alone: dataset="{tmp_path}/candle"',
    ]


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


PARTS = st.sampled_from(
    [
        *("train", "Test", "val", "test_private", "training", "good", "OK", "bad", "NG 1", "not_good", "no-defects"),
        *(
            "anomaly",
            "images",
            "Data",
            "masks",
            "ground_truth",
            "label",
            "mask",
            "labels",
            "cat",
            "dog",
            "1",
            "2024-05",
        ),
        *(
            ".hidden",
            "@eaDir",
            "__MACOSX",
            "e\u0301",
            "\u00e9",
            "good\\train",
            "a\\",
            "\\",
            " ",
            "bad_masks",
            "train_good",
        ),
    ]
).map(str.encode) | st.sampled_from([b"\xff\xfe", b"caf\xe9"])
NAMES = st.sampled_from(
    [
        b"0.png",
        b"1.png",
        b"0_mask.png",
        b"1_GT.bmp",
        b"gt_0.png",
        b".x.png",
        b"x",
        b"\\.png",
        b"_mask.png",
        b"0.jpg",
        b"bad_1.png",
    ]
)
TREES = st.lists(
    st.builds(lambda folders, name: b"/".join([*folders, name]), st.lists(PARTS, max_size=5), NAMES),
    min_size=1,
    max_size=12,
    unique=True,
)


SETS = st.builds(  # folders that belong together, in any order
    lambda wrapper, layers, order, kept: [
        b"/".join([*wrapper, *(folders[i] for i in order), name])
        for *folders, name in itertools.product(*layers)
        if kept.random() < 0.8
    ],
    st.lists(PARTS, max_size=1),
    st.tuples(
        st.sampled_from([[b"train", b"test"], [b"Training", b"val", b"Testing"], [b"images", b"masks"], [b""]]),
        st.lists(PARTS, min_size=1, max_size=3, unique=True),
        st.sampled_from([[b"images"], [b"d1", b"d2"], [b"Data", b"label"], [b"0"]]),
        st.lists(NAMES, min_size=1, max_size=3, unique=True),
    ),
    st.permutations(range(3)),
    st.randoms(use_true_random=False),
).filter(bool)


@settings(max_examples=200, deadline=None)
@given(
    TREES | SETS.map(lambda paths: list(dict.fromkeys(paths))),
    st.lists(st.lists(PARTS, min_size=1, max_size=3).map(b"/".join), max_size=3),
    st.randoms(),
)
def test_any_tree_is_understood_or_asked_about(paths: list[bytes], empty: list[bytes], chance: random.Random) -> None:
    shuffled = chance.sample(paths, len(paths))
    try:
        layout = find_layout(paths, empty)
    except DataError:
        with pytest.raises(DataError):
            find_layout(shuffled, empty)
        return
    used = [i for positions, _ in layout.files.values() for i in positions]
    out = itertools.chain(*layout.left_out.values())
    assert sorted([*used, *itertools.chain(*layout.masks.values()), *out]) == list(range(len(paths)))
    assert set(layout.masks) <= set(used)
    assert layout.normal or layout.doubt
    if layout.normal:
        chosen = {layout.classes[i] for i in parse_normal(layout.normal, layout.classes)}
        assert min(map(sense, chosen)) >= 0
    assert by_path(find_layout(shuffled, empty), shuffled) == by_path(layout, paths)


def by_path(layout: FolderLayout, paths: list[bytes]) -> Iterable[object]:
    """A layout by the names of its files, whatever their order."""
    pictures = {
        paths[i]: (file, layout.classes[label])
        for file, (positions, labels) in layout.files.items()
        for i, label in zip(positions, labels, strict=True)
    }
    masks = {paths[i]: {paths[mask] for mask in masks} for i, masks in layout.masks.items()}
    out = {paths[i]: reason for reason, positions in layout.left_out.items() for i in positions}
    return layout.normal, layout.classes, pictures, masks, out
