"""Files that are named one by one: on the disk, at addresses, or nowhere."""

from pathlib import Path

import fsspec
import numpy as np

from anomaly_ae.images.named_files import NamedFiles
from tests.images.test_sources import PNG


def test_files_are_listed_located_and_fetched_wherever_they_lie(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.png", "b [1].png", "sub/a.png"):
        memory.pipe(f"/named/{name}", PNG + name.encode())
    for name in ("a.png", "caf\u00e9.png"):
        (tmp_path / name).write_bytes(PNG + b"here")
    there = [b"memory://named/a.png", b"memory://named/b [1].png", b"memory://named/sub/a.png"]
    gone = [b"gone.png", b"memory://named/gone.png", b"memory://nowhere/gone.png"]
    whole = str(tmp_path / "a.png").encode()
    source = NamedFiles(f"{tmp_path}/x.csv", (*there, *gone, whole, "caf\u00e9.png".encode()))
    listing = source.list()
    assert listing.paths == sorted(source.files)
    assert source.missing == {*gone}
    sizes = dict(zip(listing.paths, listing.sizes.tolist(), strict=True))
    assert [sizes[path] for path in (there[0], whole, gone[0])] == [len(PNG) + 5, len(PNG) + 4, -1]
    times = dict(zip(listing.paths, listing.times.tolist(), strict=True))
    assert all((times[path] > 0) == (path not in gone) for path in listing.paths)
    contents = dict(zip(listing.paths, source.fetch(listing.paths, listing.sizes) or [], strict=True))
    assert [contents[path] for path in there] == [PNG + b"a.png", PNG + b"b [1].png", PNG + b"sub/a.png"]
    assert contents[whole] == contents["caf\u00e9.png".encode()] == PNG + b"here"
    assert isinstance(contents[gone[0]], FileNotFoundError)
    assert str(contents[gone[1]]) == "cannot be fetched: it is gone"


def test_where_all_lie_on_the_disk_their_paths_are_enough(tmp_path: Path) -> None:
    source = NamedFiles(f"{tmp_path}/x.csv", (b"sub/a.png", b"/elsewhere/b.png", b"../c.png"))
    assert source.fetch(source.files, np.zeros(3, np.int64)) is None
    folder = str(tmp_path).encode()
    assert list(map(source.locate, source.files)) == [
        *(folder + b"/sub/a.png", b"/elsewhere/b.png", folder + b"/../c.png")
    ]
    at_address = NamedFiles("memory://named/x.csv", (b"a.png",))
    assert at_address.locate(b"a.png") == b"memory://named/a.png"
