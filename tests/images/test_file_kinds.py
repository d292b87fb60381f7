import os
from pathlib import Path

import pytest

from anomaly_ae.errors import DataMissing
from anomaly_ae.images.sources import open_source
from tests.images.test_sources import fill


def test_an_image_is_known_by_its_ending_or_its_first_bytes(tmp_path: Path) -> None:
    fill(tmp_path, "called.txt", "plain")
    fill(tmp_path, "text.png", "notes.txt", "BMW", content=b"BM: these are cars")
    fill(tmp_path, "bitmap", content=b"BM" + bytes(20))
    fill(tmp_path, "web", content=b"RIFF1234WEBPVP8 ")
    fill(tmp_path, "._b.png", content=b"\0\5\x16\7remarks of a Mac")
    listing = open_source(tmp_path).list()
    assert listing.paths == [b"bitmap", b"called.txt", b"plain", b"text.png", b"web"]
    assert listing.skipped == 3


def test_files_that_people_take_for_pictures_are_counted_by_kind(tmp_path: Path) -> None:
    others = ("1.HEIC", "2.heif", "a.cr2", "b.DNG", "scan.dcm", "x.npy", "._1.heic", "notes.txt")
    listing = open_source(fill(fill(tmp_path, "a.png"), *others, content=b"something")).list()
    said = {what.partition(" files")[0]: count for what, count in listing.left_out.items()}
    assert said == {"HEIC": 2, "camera raw": 2, "DICOM": 1, "NumPy": 1}
    assert listing.skipped == len(others)
    with pytest.raises(DataMissing, match="left out: 2 HEIC files, which cannot be read; save as PNG or JPEG"):
        open_source(fill(tmp_path / "phone", "1.HEIC", "2.HEIC", content=b"something")).list()


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(fill(tmp_path, "a.png") / "pipe.png")
    listing = open_source(tmp_path).list()
    assert (listing.paths, listing.skipped) == ([b"a.png"], 1)
