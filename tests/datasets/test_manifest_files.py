"""Which files a manifest means, by whatever paths and addresses it names them."""

import unicodedata
from pathlib import Path

import fsspec
import pytest

from anomaly_ae.datasets.manifest_files import find_names
from anomaly_ae.errors import DataError, DataMissing


def lay(folder: Path, *paths: str) -> str:
    """Files at these paths, and the manifest's own in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")
    return str(folder / "set.jsonl")


def names(manifest: str, *references: str) -> list[str]:
    found = find_names({reference: line for line, reference in enumerate(references, start=1)}, manifest)
    return [found[reference].decode() for reference in references]


def test_paths_begin_in_the_folder_of_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = lay(tmp_path / "set", "a b.png", "ü 1.png", "c/d.png", "../e/f.png", "100%25.png")
    monkeypatch.chdir("/")
    composed = unicodedata.normalize("NFD", "ü 1.png")
    outside = str(tmp_path / "e/f.png")
    assert names(manifest, "./a b.png", "c//./d.png", r"c\d.png", composed, "../e/f.png", "gone.png") == [
        *("a b.png", "c/d.png", "c/d.png", "ü 1.png", "../e/f.png", "gone.png")
    ]
    inside = f"{tmp_path}/set/a b.png"  # which has the name that it would have by a relative path
    assert names(manifest, inside, f"file://{inside}", f"file://{tmp_path}/set/a%20b.png") == ["a b.png"] * 3
    assert names(manifest, outside, f"file://{outside}", "100%25.png") == [outside, outside, "100%25.png"]


KEYS = ("s3://bucket/run 1/images/1.png", "s3://bucket/run 1/images/2.png", "s3://bucket/run 1/masks/1.png")


@pytest.mark.parametrize(
    "paths",
    [
        ("images/1.png", "images/2.png", "masks/1.png"),
        ("run 1/images/1.png", "run 1/images/2.png", "run 1/masks/1.png"),
        ("bucket/run 1/images/1.png", "images/2.png", "masks/1.png"),
        (
            "../images/1.png",
            "../images/2.png",
            "../masks/1.png",
        ),  # the manifest in a folder beside, as an export has it
    ],
)
def test_copies_of_what_lies_at_addresses_are_found_beside_the_manifest_and_it_is_said(
    tmp_path: Path, paths: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = lay(tmp_path / "set", *paths, "images/3.png")
    assert names(manifest, *KEYS) == list(paths)
    said = f"manifest: 3 files at addresses are taken from beside it, {KEYS[0]} as {paths[0]}\n"
    assert capsys.readouterr().err == said


def test_none_beside_it_are_where_they_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = lay(tmp_path / "set", "other/1 (1).png")
    assert names(manifest, *KEYS) == list(KEYS)
    assert "3 files at addresses, as s3://bucket/run 1/images/1.png; fetched from there" in capsys.readouterr().err


def test_some_of_them_beside_it_are_asked_about(tmp_path: Path) -> None:
    manifest = lay(tmp_path / "set", "images/1.png", "images/2.png")
    with pytest.raises(
        DataMissing, match=r"of 3 files .* some are beside it, 2, and others are not, 1, the first on line 3: s3://b"
    ):
        names(manifest, *KEYS)


def test_what_may_be_several_files_is_asked_about(tmp_path: Path) -> None:
    manifest = lay(tmp_path / "set", "images/1.png", "images/2.png", "1.png")
    with pytest.raises(DataError, match=r"line 1 names s3://.*/1.png, which may be .*1.png or .*1.png; leave one"):
        names(manifest, *KEYS[:2])
    flat = lay(tmp_path / "flat", "1.png", "2.png")  # of a picture or of its mask
    with pytest.raises(
        DataError, match=r"line 3 names s3://.*/masks/1.png, and line 1 s3://.*/images/1.png; .* both would be 1.png"
    ):
        names(flat, *KEYS)


def test_a_link_to_a_copy_is_no_other_one(tmp_path: Path) -> None:
    manifest = lay(tmp_path / "set", "images/1.png")
    (tmp_path / "set/1.png").symlink_to("images/1.png")
    assert names(manifest, KEYS[0]) == ["images/1.png"]


def test_an_address_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    manifest = lay(tmp_path / "a/b/set", "../../secret.png")
    assert names(manifest, "s3://bucket/../../secret.png") == ["s3://bucket/../../secret.png"]


def test_paths_in_a_manifest_at_an_address_begin_there(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/there/set/a.png", b"")
    manifest = "memory://there/set/x.jsonl"
    local = str(tmp_path / "a.png")
    assert names(
        manifest, "./a.png", "memory://there/set/a.png", "../b.png", "s3://c/d.png", local, f"file://{local}"
    ) == [*("a.png", "a.png", "memory://there/b.png", "s3://c/d.png", local, local)]
