"""Folders as people have them: where it is asked what is normal, and what is said of what was found."""

import re
from pathlib import Path

import pytest

from anomaly_ae.datasets.catalogue import normal_classes
from anomaly_ae.datasets.folder_layout import find_layout
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.errors import UsageError
from tests.datasets.conftest import PNG, Tree, files, make, summary


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
