import fsspec
import numpy as np
import pytest

from anomaly_ae.errors import DataMissing
from anomaly_ae.images.addresses import Address
from anomaly_ae.images.sources import open_source
from tests.images.test_sources import PNG


def test_folders_without_an_image_at_an_address_are_known() -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/hollow/bad/2024/a.png", PNG)
    system.makedirs("/hollow/good/empty")
    listing = open_source("memory://hollow").list()
    assert listing.paths == [b"bad/2024/a.png"]
    assert listing.empty == (b"good", b"good/empty")


def test_an_address_is_listed_and_fetched() -> None:
    system = fsspec.filesystem("memory")
    for name, content in {"a.png": PNG, "sub/b": PNG, "notes.txt": b"text"}.items():
        system.pipe(f"/bucket/pictures/{name}", content)
    source = open_source("memory://bucket/pictures")
    assert isinstance(source, Address)
    listing = source.list()
    assert (listing.paths, listing.skipped) == ([b"a.png", b"sub/b"], 1)
    assert (listing.times > 0).all()
    system.rm("/bucket/pictures/sub/b")
    contents = source.fetch(listing.paths, listing.sizes)
    assert contents is not None
    assert contents[0] == PNG
    assert str(contents[1]) == "cannot be fetched: it is gone"
    huge = source.fetch(listing.paths[:1], np.array([2**40]))
    assert huge is not None
    assert "too many bytes" in str(huge[0])


def test_names_in_an_address_are_no_patterns_and_one_object_is_a_source_too() -> None:
    system = fsspec.filesystem("memory")
    for name in ("f*.png", "f1.png", "photo [1].png"):
        system.pipe(f"/patterns/{name}", PNG + name.encode())
    source = open_source("memory://patterns/")
    listing = source.list()
    assert source.fetch(listing.paths, listing.sizes) == [PNG + path for path in listing.paths]
    single = open_source("memory://patterns/f1.png")
    assert single.list().paths == [b"f1.png"]
    assert single.fetch([b"f1.png"], np.array([1])) == [PNG + b"f1.png"]


def test_an_address_without_images_or_without_a_driver_is_an_error() -> None:
    with pytest.raises(DataMissing, match="no image in memory://nothing"):
        open_source("memory://nothing").list()
    with pytest.raises(DataMissing, match="needs a driver"):
        open_source("gs://bucket").list()
