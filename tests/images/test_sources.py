import os
from pathlib import Path

import pytest

from anomaly_ae.errors import DataMissing
from anomaly_ae.escaping import shown
from anomaly_ae.images.sources import Folder, PathList, open_source

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def fill(folder: Path, *names: str, content: bytes = PNG) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def names(place: Path | str) -> list[str]:
    return [shown(path) for path in open_source(place).list().paths]


def test_a_folder_is_listed_in_order_with_sizes_and_times(tmp_path: Path) -> None:
    fill(tmp_path, "b.png", "a/c.JPG", "a.b/d.tiff", ".hidden.png")
    os.utime(tmp_path / "b.png", ns=(5, 7))
    listing = open_source(tmp_path).list()
    assert listing.paths == [b".hidden.png", b"a.b/d.tiff", b"a/c.JPG", b"b.png"]
    assert listing.sizes.tolist() == [28] * 4
    assert listing.times[3] == 7


def test_links_are_followed_and_broken_ones_to_pictures_are_kept(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a.png")
    fill(tmp_path / "other", "b.png", "deeper/d.png")
    links = {"c.png": "a.png", "d.png": "nowhere", "e.png": "e.png", "more": "../other", "lost": "nowhere"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    assert names(folder) == ["a.png", "c.png", "d.png", "e.png", "more/b.png", "more/deeper/d.png"]
    assert open_source(folder).list().unread == ("the link lost leads nowhere",)


def test_each_folder_is_listed_once_whatever_leads_to_it(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "train/good/a.png")
    fill(tmp_path, "out/b.png", "out/deeper/c.png", "beside.png")
    links = {"again": "train", "up": ".", "train/above": "..", "parent": "..", "z": "../out/deeper", "a": "../out"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (tmp_path / "out/back").symlink_to("../in")
    listing = open_source(folder).list()
    assert listing.paths == [b"a/b.png", b"a/deeper/c.png", b"train/good/a.png"]
    assert listing.left_out == {"folders that links lead to once more": 6}


def test_hidden_files_and_thumbnails_are_no_pictures_unless_they_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "sub/b.png", ".c.png", ".cache/d.png", "sub/@eaDir/e.png", "__MACOSX/f.png")
    listing = open_source(tmp_path).pictures()
    assert listing.paths == [b"a.png", b"sub/b.png"]
    assert len(listing.sizes) == len(listing.times) == 2
    assert listing.left_out == {"hidden pictures": 2, "thumbnails": 1, "remarks of a Mac": 1}
    assert open_source(tmp_path / ".c.png").pictures().paths == [str(tmp_path / ".c.png").encode()]
    with pytest.raises(DataMissing, match="left out: 1 hidden picture;"):
        open_source(fill(tmp_path / "none", ".x.png")).pictures()


def test_folders_without_an_image_are_known(tmp_path: Path) -> None:
    (fill(tmp_path, "bad/2024/a.png") / "good/empty").mkdir(parents=True)
    assert open_source(tmp_path).list().empty == (b"good", b"good/empty")


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(PNG)
    assert open_source(tmp_path).list().paths == [b"caf\xe9.png"]
    assert names(tmp_path) == [r"caf\xe9.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_that_cannot_be_looked_into_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "shut/b.png")
    (tmp_path / "shut").chmod(0)
    assert "shut cannot be opened" in open_source(tmp_path).list().unread[0]
    (tmp_path / "shut").chmod(0o700)


def test_an_empty_folder_and_one_that_is_not_there_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="there is no image in"):
        open_source(fill(tmp_path, "notes.txt", content=b"")).list()
    with pytest.raises(DataMissing, match="name a folder of images"):
        open_source(tmp_path / "absent")


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_a_text_file_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str) -> None:
    monkeypatch.chdir(fill(tmp_path, "a.png", "b b.png", "notes.txt"))
    (tmp_path / "notes.txt").write_text("no image")
    paths = ["b b.png", "a.png", "a.png", "", "gone", "notes.txt", str(tmp_path / "a.png")]
    (tmp_path / "list.txt").write_bytes(separator.join(paths).encode("utf-8-sig"))
    source = open_source("list.txt")
    assert isinstance(source, PathList)
    listing = source.list()
    assert sorted(map(shown, listing.paths)) == sorted([str(tmp_path / "a.png"), "a.png", "b b.png", "gone"])
    assert listing.skipped == 1
    assert listing.sizes[listing.paths.index(b"gone")] == -1


def test_one_image_is_a_source_too(tmp_path: Path) -> None:
    assert names(fill(tmp_path, "a.png") / "a.png") == [str(tmp_path / "a.png")]


def test_a_local_address_is_a_folder(tmp_path: Path) -> None:
    assert isinstance(open_source(f"file://{tmp_path}"), Folder)


def test_a_text_that_names_no_file_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are\nnotes\n")
    with pytest.raises(DataMissing, match="names no file that is there"):
        open_source(tmp_path / "notes.txt").list()


def test_a_folder_locates_its_files(tmp_path: Path) -> None:
    assert Folder(str(tmp_path)).locate(b"caf\xe9.png") == os.fsencode(tmp_path) + b"/caf\xe9.png"
