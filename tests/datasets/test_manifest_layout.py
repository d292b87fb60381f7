"""Manifests as data sets: what their labels make of the files, as folders' names would."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ae.datasets.catalogue import normal_classes, normal_there, open_data, require_dataset, whole_name
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.datasets.layout_texts import TO_MEASURE
from anomaly_ae.errors import DataError, DataMissing, UsageError
from anomaly_ae.images.preprocessing import Preprocessing
from tests.datasets.conftest import PNG, summary
from tests.datasets.test_manifest import augmented, colour_map

SMALL = Preprocessing(1, 8, 8)
Write = Callable[..., PictureData]


def gray(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 20), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Open a manifest of these lines, beside files that are called as pictures."""

    def write(*lines: str, name: str = "set.csv", files: Sequence[str] = ()) -> PictureData:
        (tmp_path / name).write_text("\n".join(lines))
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(PNG)
        data = open_data(str(tmp_path / name))
        assert isinstance(data, PictureData)
        return data

    return write


ABCD = ("a.png", "b.png", "c.png", "d.png")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("path,label", "a.png,good", "b.png,good", "c.png,scratch"), "train +good 2; train scratch 1"),
        (("path,label", "a.png,part", "b.png,part"), "train +part 2"),
        (("path,label", "a.png,0", "b.png,0", "c.png,1"), "train 0 2; train 1 1"),
        (("path,label", "a.png,bad"), "train bad 1"),
        (("path,label", "a.png,Good", "b.png,unlabelled"), "train +Good 1; left out 1"),
        (
            ("path,label,mask,split", "a.png,ok,,train", "b.png,ok,,test", "c.png,NG,d.png,test"),
            "train +ok 1; test NG 1; test +ok 1; masks 1",
        ),
        (
            ("path,label,split", "a.png,ok,Training", "b.png,good,val", "c.png,NG,val", "d.png,NG,test"),
            "train +ok 2; test NG 1; left out 1",
        ),
        (("path,label,split", "a.png,ok,test", "b.png,bad,test"), "train bad 1; train +ok 1"),
        (("path,label,mask", "a.png,bad,b.png", "a.png,bad,c.png"), "train bad 1; masks 2"),
        (("path,label,mask", "a.png,bad,c.png", "b.png,bad,c.png"), "train bad 2; masks 2"),
        (("path,label,mask", "a.png,ok,", "b.png,unknown,c.png"), "train +ok 1; left out 2"),
    ],
)
def test_labels_say_what_names_of_folders_do(write: Write, lines: tuple[str, ...], expected: str) -> None:
    assert summary(write(*lines, files=ABCD).layout) == expected


def test_what_is_said_of_a_manifest(write: Write) -> None:
    data = write(
        "path;label;mask;split;camera",
        "a.png;good;;train;1",
        "b.png;good;;test;1",
        "c.png;dent;m/c.png;test;2",
        "d.png;unknown;;test;2",
        files=(*ABCD, "m/c.png"),
    )
    assert data.describe(normal_classes("", data)).splitlines() == [
        f"{data.name}: a manifest of 4 lines; splits train and test",
        "  train  good  1  normal: to learn from, to set the threshold",
        "  test   good  1  normal: to measure with",
        "  test   dent  1  anomalous: to measure with; 1 with masks",
        "  not read: what it calls camera",
        "  left out: 1 unlabelled picture",
    ]


def test_what_is_normal_is_asked_where_no_label_says_it(write: Write) -> None:
    data = write("path,label", "a.png,0", "b.png,0", "c.png,1", files=ABCD)
    with pytest.raises(
        UsageError,
        match=r'the classes 0, 1 says normal; say what .* normal="CLASS", .* or label the normal ones good',
    ) as caught:
        normal_classes("", data)
    assert caught.value.__notes__ == ["0  2\n1  1"]
    assert normal_classes("0", data) == (0,)
    assert normal_there(("0",), ("0", "1"), data) == ("0",)  # of a detector whose classes are called so
    alone = write("path,label", "a.png,bad", files=ABCD)
    with pytest.raises(UsageError, match="label the normal pictures good, and the others bad"):
        normal_classes("", alone)


def test_names_of_files_that_say_otherwise_are_asked_about_where_labels_say_nothing(write: Write) -> None:
    files = [f"normal-{i}.png" for i in range(4)] + ["anomaly-1.png"]
    with pytest.raises(UsageError, match=r"4 file names say normal, as normal-0.*, and 1 does not, as anomaly-1"):
        normal_classes("", write("path,label", *(f"{file},cookie" for file in files), files=files))
    said = write("path,label", *(f"{file},good" for file in files), files=files)
    assert normal_classes("", said) == (0,)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ("path,label", "a.png,good", "b.png,bad", "./a.png,bad"),
            "line 4 calls a.png bad, and line 2 good; take one of the lines out",
        ),
        (
            ("path,label,split", "a.png,good,train", "a.png,good,test"),
            "line 3 puts a.png into test, and line 2 into train; take one",
        ),
        (
            ("path,label,split", "a.png,good,train", "b.png,bad,later"),
            "line 3 has the split 'later'; there are train, val",
        ),
        (
            ("path,label,split", "a.png,good,train", "b.png,bad,"),
            "line 3 has no split, and other lines have one; there",
        ),
        (
            ("path,label,mask", "a.png,good,", "b.png,bad,a.png"),
            "line 3 names a.png as a mask, and line 2 as a picture",
        ),
        (("path,label", "a.png,unknown"), "none of its pictures has a label that says what it is"),
        (("path,label", "a.png,good", "x/b.png,bad"), "1 of 2 files is missing, line 3: x/b.png; paths begin in the"),
        (
            ("path,label", *(f"{i}.png,good" for i in range(6))),
            "6 of 6 files are missing, line 2: 0.png, line 3: 1.png, line 4: 2.png, …; paths begin in the folder",
        ),
        (("path,label", "a.png"), "line 2 has 1 value for 2 columns"),
    ],
)
def test_what_contradicts_itself_is_said_with_the_manifest_and_the_line(
    write: Write, lines: tuple[str, ...], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        write(*lines, files=ABCD)
    name, _, text = str(caught.value).partition(".csv: ")
    assert name.endswith("/set")
    assert text.startswith(said)


def test_a_few_missing_files_are_left_out_and_said(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"{i}.png" for i in range(30)]
    rows = [f"{file},good," for file in files] + ["30.png,bad,m/30.png"]
    data = write("path,label,mask", *rows, files=[*files[1:], "30.png"])
    assert (
        "manifest: 2 of 32 files are missing, line 2: 0.png, line 32: m/30.png; left out" in capsys.readouterr().err
    )
    assert summary(data.layout) == "train bad 1; train +good 29; masks 1; left out 1"
    assert "  left out: 1 missing picture" in data.describe([1]).splitlines()


def test_lines_that_say_the_same_count_once(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    data = write("path,label", "a.png,good", "a.png,Good", "./a.png,good", "b.png,bad", files=ABCD)
    assert summary(data.layout) == "train bad 1; train +good 1"
    assert "manifest: 2 lines name pictures that earlier ones name, with the same label;" in capsys.readouterr().err


def test_files_are_taken_where_they_lie_and_seen_as_those_of_a_folder(tmp_path: Path, write: Write) -> None:
    for i in range(3):
        save(tmp_path / f"folder/good/{i}.png", gray(i))
        save(tmp_path / f"folder/bad/{i}.png", gray(10 + i))
    memory = fsspec.filesystem("memory")
    memory.pipe("/elsewhere/2.png", (tmp_path / "folder/good/2.png").read_bytes())
    paths = ["folder/good/0.png", str(tmp_path / "folder/good/1.png"), "memory://elsewhere/2.png"]
    lines = [augmented(path) for path in paths] + [augmented(f"folder/bad/{i}.png", "anomaly") for i in range(3)]
    (tmp_path / "folder/good/2.png").rename(tmp_path / "2 of the folder.png")
    named = write(*lines, name="set.jsonl").load(SMALL)
    (tmp_path / "2 of the folder.png").rename(tmp_path / "folder/good/2.png")
    images = named.files["train"]
    assert images.names == (
        *(f"folder/bad/{i}.png".encode() for i in range(3)),
        *map(str.encode, ("folder/good/0.png", "folder/good/1.png", "memory://elsewhere/2.png")),
    )
    folder = open_data(str(tmp_path / "folder")).load(SMALL).files["train"]
    assert torch.equal(images.images, folder.images)
    assert [named.classes[label] for label in images.labels] == ["anomaly"] * 3 + ["normal"] * 3


def test_a_manifest_at_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("shots/good 1.png", "shots/sub/2.png", "other/3.png"):
        with memory.open(f"/{name}", "wb") as file:
            Image.fromarray(gray(len(name))).save(file, "PNG")
    refs = ["good 1.png", "sub/2.png", "memory://other/3.png", "memory://shots/sub/gone.png"]
    lines = [augmented(ref) for ref in refs[:3]]
    memory.pipe("/shots/set.manifest", "\n".join(lines).encode())
    data = open_data("memory://shots/set.manifest")
    assert data.load(SMALL).files["train"].names == (b"good 1.png", b"memory://other/3.png", b"sub/2.png")
    memory.pipe("/shots/set.manifest", "\n".join([*lines, augmented(refs[3])]).encode())
    with pytest.raises(
        DataMissing, match=r"memory://shots/set.manifest: 1 of 4 files is missing, line 4: sub/gone.png"
    ):
        open_data("memory://shots/set.manifest")


def test_addresses_without_a_driver_may_lie_beside_the_manifest(write: Write) -> None:
    with pytest.raises(DataMissing, match=r"gs://bucket needs a driver .*; or put copies of the files beside"):
        write(augmented("gs://bucket/1.png"), name="set.manifest")


def mask(colours: dict[str, tuple[int, int, int]], background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """A square of each colour on a background, in the order of the names."""
    pixels = np.full((20, 20, 3), background, np.uint8)
    for i, colour in enumerate(colours.values()):
        pixels[2:6, 5 * i + 1 : 5 * i + 4] = colour
    return pixels


def test_masks_are_read_by_the_colours_that_lines_name(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    green, blue = (0x23, 0xA4, 0x36), (0, 0, 255)
    save(tmp_path / "m/0.png", mask({"scratch": green, "dent": blue}))  # on white, as the service has it
    save(tmp_path / "m/1.png", mask({"scratch": green}, (0, 0, 0)))
    save(tmp_path / "m/2.png", mask({"scratch": green, "else": (9, 9, 9)}))
    save(tmp_path / "m/3.png", mask({}))
    save(tmp_path / "m/4.png", mask({"any": (1, 2, 3)}, (0, 0, 0)))
    maps = [
        colour_map(BACKGROUND="#ffffff", scratch="#23A436", dent="#0000ff"),
        *[colour_map(scratch="#23a436")] * 3,
    ]
    lines = []
    for i in range(5):
        save(tmp_path / f"{i}.png", gray(i))
        about = {"anomaly_mask_ref_metadata": maps[i]} if i < 4 else {}
        lines.append(augmented(f"{i}.png", "anomaly", anomaly_mask_ref=f"m/{i}.png", **about))
    data = write(*lines, name="set.manifest")
    found = data.masks([f"{i}.png".encode() for i in range(5)], Preprocessing(1, 20, 20))
    assert found is not None
    masks, usable = found
    nothing = torch.zeros(20, 20, dtype=torch.bool)
    square = nothing.clone()
    square[2:6, 1:4] = True
    assert usable.tolist() == [True, True, False, True, True]
    assert torch.equal(masks, torch.stack([square | square.roll(5, dims=1), square, nothing, nothing, square]))
    said = capsys.readouterr().err
    assert re.search("masks: 1 cannot be used, .* the first m/2.png: has pixels of #090909, which is said to", said)
    assert "masks: 1 marks nothing as defective" in said


def test_a_manifest_is_found_where_data_sets_lie_and_its_name_says_nothing(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write("path,label", "a.png,good", name="defects.csv", files=ABCD)
    monkeypatch.chdir("/")
    require_dataset("defects.csv", str(tmp_path))
    assert whole_name("defects.csv", str(tmp_path)) == data.name
    assert not data.says_bad
    assert "1  normal: to measure with" in data.describe([0], TO_MEASURE)
    with pytest.raises(DataMissing, match=r"there is no manifest \./gone\.csv"):
        require_dataset("./gone.csv")
    (tmp_path / "labels.txt").write_text("")
    with pytest.raises(
        UsageError, match=r"is a file; .* a manifest \(\.jsonl, .*; if it says .* make it a manifest, as a"
    ):
        require_dataset(str(tmp_path / "labels.txt"))


def test_a_manifest_may_be_named_by_a_link_or_as_a_file_address(tmp_path: Path, write: Write) -> None:
    data = write("path,label", "a.png,good", files=ABCD)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/link.csv").symlink_to(tmp_path / "set.csv")
    for name in (str(tmp_path / "elsewhere/link.csv"), f"file://{tmp_path}/set.csv"):
        assert open_data(name).name == data.name


def test_a_line_without_a_split_is_no_matter_where_none_has_one(write: Write) -> None:
    lines = [
        json.dumps({"path": "a.png", "label": "good"}),
        json.dumps({"path": "b.png", "label": "bad", "split": ""}),
    ]
    assert summary(write(*lines, name="set.jsonl", files=ABCD).layout) == "train bad 1; train +good 1"


def test_where_a_folder_has_a_table_of_labels_it_is_named_as_what_may_be_read(tmp_path: Path, write: Write) -> None:
    files = [f"IMG_{i:04}.png" for i in range(6)]
    write("path,label", *(f"{file},{'bad' if file in files[:2] else 'good'}" for file in files), files=files)
    data = open_data(str(tmp_path))
    with pytest.raises(UsageError, match=r"such files are not read; .*; or, .* name the manifest, data") as caught:
        normal_classes("", data)
    named = str(caught.value).rpartition("dataset=")[2].strip('"')
    assert normal_classes("", open_data(named)) == (1,)
