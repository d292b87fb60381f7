"""Manifests as services, tools and people write them: what is read in them, and what is wrong with a line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomaly_ae.datasets.manifest import MOST_LINE_BYTES, Entry, is_manifest, read_manifest
from anomaly_ae.errors import DataError, DataMissing
from anomaly_ae.images.masks import MaskColours


def augmented(file: str, name: str | None = "normal", value: object = 1, **more: Any) -> str:
    """A line of the augmented manifest of Lookout for Vision; in the names of attributes _ is for -."""
    row: dict[str, Any] = {"source-ref": file, "anomaly-label": value}
    if name:
        row["anomaly-label-metadata"] = {
            "class-name": name,
            "confidence": 1,
            "human-annotated": "yes",
            "type": "groundtruth/image-classification",
        }
    return json.dumps(row | {key.replace("_", "-"): each for key, each in more.items()})


def colour_map(**colours: str) -> dict[str, Any]:
    named = ({"class-name": name, "hex-color": colour, "confidence": 0.0} for name, colour in colours.items())
    return {"internal-color-map": dict(zip("0123", named, strict=False)), "type": "groundtruth/semantic-segmentation"}


def classified(name: str, kind: str = "groundtruth/image-classification") -> dict[str, str]:
    return {"class-name": name, "type": kind}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[list[Entry], list[str]]]:
    def read(content: str | bytes, ending: str) -> tuple[list[Entry], list[str]]:
        path = tmp_path / f"set{ending}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_manifest(str(path))

    return read


Read = Callable[..., tuple[list[Entry], list[str]]]


def test_lines_of_lookout_for_vision(read: Read) -> None:
    mask = {
        "anomaly_mask_ref": "s3://b/masks/2.png",
        "anomaly_mask_ref_metadata": colour_map(BACKGROUND="#ffffff", scratch="#2CA02C", dent="#1f77b4"),
    }
    lines = [augmented("s3://b/1.jpg"), "", augmented("s3://b/2.jpg", "anomaly", 0, **mask)]
    entries, unread = read("\n".join(lines), ".manifest")
    colours = MaskColours((0x1F77B4, 0x2CA02C), (0xFFFFFF,))
    assert entries == [
        Entry(1, "s3://b/1.jpg", "normal"),  # though its number is 1, as in what the service's own guide shows
        Entry(3, "s3://b/2.jpg", "anomaly", "s3://b/masks/2.png", colours=colours),
    ]
    assert unread == []


def test_attributes_may_be_called_otherwise(read: Read) -> None:
    row = {
        "source-ref": "1.jpg",
        "job-7": 0,
        "job-7-metadata": classified("dent"),
        "split": "test",
        "outline-ref": "m.png",
        "outline-ref-metadata": colour_map(dent="#000001"),
        "verify": "1",
        "verify-metadata": classified("bad", "groundtruth/label-verification"),
    }
    entries, unread = read(json.dumps(row), ".jsonl")
    assert entries == [Entry(1, "1.jpg", "dent", "m.png", "test", MaskColours((1,)))]
    assert unread == ["verify"]  # and it is said
    part = {"part": 3, "part-metadata": classified("lid")}
    assert read(augmented("1.jpg", **part), ".jsonl") == ([Entry(1, "1.jpg", "normal")], ["part"])
    with pytest.raises(
        DataError, match=r"line 1 has the attributes job-7, part, and which .* cannot be told; leave one"
    ):
        read(json.dumps(row | part), ".jsonl")
    masks = {"other-ref": "n.png", "other-ref-metadata": colour_map(dent="#000001")}
    with pytest.raises(DataError, match=r"line 1 has the attributes other-ref, outline-ref, and which .* the mask"):
        read(json.dumps(row | masks), ".jsonl")


def test_a_number_alone_is_the_label_for_it_may_mean_either(read: Read) -> None:
    entries, _ = read(augmented("1.jpg", None, 1), ".jsonl")
    assert entries == [Entry(1, "1.jpg", "1")]


@pytest.mark.parametrize("mark", [",", ";"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables(read: Read, mark: str, bom: bytes, end: str) -> None:
    rows = [
        ["path", "label", "mask", "split"],
        ["a.png", "good", "", "train"],
        [],
        [f'"größe 1{mark}2.png"', " bad ", "m/1.png", "test"],
        ["", "", "", ""],
        ["c.png", "good", "", "test"],
    ]
    text = end.join(mark.join(row) for row in rows)
    entries, unread = read(bom + text.encode(), ".csv")
    assert entries == [
        Entry(2, "a.png", "good", split="train"),
        Entry(4, f"größe 1{mark}2.png", "bad", "m/1.png", "test"),
        Entry(6, "c.png", "good", split="test"),
    ]
    assert unread == []


def test_tables_of_anomalib_and_visa(read: Read) -> None:
    table = "image_path,label_index,mask_path,split\na.png,0,,train\nb.png,1,m.png,test"
    assert read(table, ".csv")[0] == [
        Entry(2, "a.png", "normal", split="train"),
        Entry(3, "b.png", "abnormal", "m.png", "test"),
    ]
    entries, unread = read("object,split,label,image,mask\ncandle,train,normal,c/1.JPG,\n", ".csv")
    assert (entries, unread) == ([Entry(2, "c/1.JPG", "normal", split="train")], ["object"])


def test_objects_with_the_names_of_columns(read: Read) -> None:
    text = '{"path": "a.png", "label": "good", "mask": null}\n{"image_path": "b.png", "label": 1, "size": 3}'
    assert read(text, ".jsonl") == ([Entry(1, "a.png", "good"), Entry(2, "b.png", "1")], ["size"])


@pytest.mark.parametrize(
    ("ending", "content", "said"),
    [
        (".jsonl", "", "it names no picture"),
        (".csv", "\n\n", "it names no picture"),
        (".csv", "path,label\n", "it names no picture"),
        (".jsonl", augmented("a") + '\n{"source-ref": ', "line 2 is no JSON object: Expecting value at character 16"),
        (".jsonl", "[1, 2]", 'line 1 is no JSON object; each line is one, as in {"source-ref": "a.png", …}'),
        (".jsonl", "[" * 10**5, "line 1 is no JSON object that can be read (RecursionError)"),
        (".jsonl", '{"source-ref": ' + "9" * 5000 + "}", "line 1 is no JSON object that can be read (ValueError)"),
        (".manifest", json.dumps({"source-ref": "a.png"}, indent=1), "line 1 is no JSON object: Expecting property"),
        (".jsonl", '{"file": "a.png"}', "line 1 names file; in a manifest it names path (or source-ref"),
        (
            ".jsonl",
            '{"path": "a.png", "image": "b.png", "label": "good"}',
            "line 1 names one thing twice: path, image",
        ),
        (".jsonl", augmented("a") + "\n" + augmented("b", None, {}), "1 line has no label: line 2; label"),
        (".jsonl", '{"source-ref": "a"}\n{"source-ref": "b"}', "2 lines have no label, the first line 1; label"),
        (".jsonl", '{"source-ref": 7, "anomaly-label": 1}', "line 1 names no file by source-ref"),
        (".jsonl", augmented("a\0b"), r"line 1 names 'a\x00b', and no file can be called so"),
        (".jsonl", '{"source-ref": "\\ud800", "anomaly-label": 1}', r"line 1 names '\ud800', and no file can"),
        (
            ".jsonl",
            augmented("a", anomaly_mask_ref="m", anomaly_mask_ref_metadata=colour_map(dent="green")),
            "line 1 has the hex-color 'green' for 'dent' in its internal-color-map, and not one as #23a436",
        ),
        (".csv", "a.png,good\nb.png,bad", "line 1 names a.png, good; in a manifest it names path (or source-ref, in"),
        (".csv", "path,mask\na.png,b.png", "line 1 names path, mask; in a manifest it names path (or source-ref"),
        (".csv", "path,label,Path\na,b,c", "line 1 names one thing twice: path, Path"),
        (".csv", "path,label\na.png,good\nb,c.png,bad", "line 3 has 3 values for 2 columns"),
        (".csv", "path,label\na.png", "line 2 has 1 value for 2 columns"),
        (".csv", "path,label\na.png,good\n,bad", "line 3 names no file by path"),
        (".csv", "path,label\na.png,good\nb.png,\nc.png, ", "2 lines have no label, the first line 3; label"),
        (
            ".csv",
            'path,label\na.png,good\n"b.png,bad\nc.png,bad',
            "line 3 is no row of a table: unexpected end of data",
        ),
        (".csv", 'path,label\n"a"b.png,good', "line 2 is no row of a table: ',' expected after '\"'"),
        (".csv", "image_path,label_index\na.png,2", "line 2 has the label_index 2, which may be 0, normal, or 1"),
        (".csv", b"path,label\na\0.png,good", "line 2 holds a NUL, as text in UTF-16 does; save the file as UTF-8"),
        (".csv", "path,label\na.png,good".encode("utf-16"), "line 1 holds a NUL, as text in UTF-16 does"),
        (".csv", "path,label\ngröße.png,good".encode("latin-1"), "line 2 is no text in UTF-8; save the file so"),
        (".csv", f"path,label\n{'a' * MOST_LINE_BYTES},good", "line 2 has more than 1,048,576 bytes"),
        (".csv", f"path,label\n{'a' * 200_000},good", "line 2 is no row of a table: field larger than field limit"),
        (".jsonl", " " * 2**21, "line 1 has more than 1,048,576 bytes; a line names one picture"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_what_is_wrong_is_said_with_the_number_of_the_line(
    read: Read, ending: str, content: str | bytes, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(content, ending)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_what_is_called_as_a_manifest(tmp_path: Path) -> None:
    assert all(map(is_manifest, ("a.csv", "A.JSONL", "s3://b/train.manifest", "file:///x/y.ndjson")))
    assert not any(map(is_manifest, ("a", "list.txt", "a.csv/images", "digits")))
    (tmp_path / "folder.csv").mkdir()
    assert not is_manifest(str(tmp_path / "folder.csv"))


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="it cannot be opened: No such file"):
        read_manifest(str(tmp_path / "gone.csv"))
    with pytest.raises(DataMissing, match="it cannot be fetched: it is gone"):
        read_manifest("memory://gone/gone.csv")


SINGLE = st.sampled_from([None, True, 1, 1.5, "", "good", "a.png", "#ffffff", "\0", "\ud800", [], [1], {}])
ABOUT = SINGLE | st.fixed_dictionaries(
    {},
    optional={
        "class-name": SINGLE,
        "type": SINGLE,
        "internal-color-map": SINGLE
        | st.fixed_dictionaries(
            {"0": SINGLE | st.fixed_dictionaries({}, optional={"class-name": SINGLE, "hex-color": SINGLE})}
        ),
    },
)
ROWS = st.fixed_dictionaries(
    {"source-ref": SINGLE | st.just("a.png")},
    optional=dict.fromkeys(("path", "label", "split", "x", "x-ref", "anomaly-label", "anomaly-mask-ref"), SINGLE)
    | {f"{name}-metadata": ABOUT for name in ("x", "x-ref", "anomaly-label", "anomaly-mask-ref")},
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_whatever_a_line_holds_it_is_read_or_said_what_is_wrong(read: Read, row: dict[str, Any]) -> None:
    try:
        ((entry,), _) = read(json.dumps(row), ".jsonl")
    except DataError:
        return
    assert entry.file in ("a.png", "good", "#ffffff")
    assert isinstance(entry.label, str)
    assert entry.label
    assert isinstance(entry.mask, str)
