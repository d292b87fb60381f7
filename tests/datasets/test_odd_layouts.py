"""Folders as people have them: what is taken for what, or what is asked."""

import pytest

from anomaly_ae.datasets.folder_layout import find_layout
from anomaly_ae.errors import DataError
from tests.datasets.conftest import Tree, files, summary

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
