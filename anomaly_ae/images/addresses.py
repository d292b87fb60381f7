"""Image files at an address that fsspec knows, such as s3://bucket/pictures."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from anomaly_ae.errors import DataError, DataMissing, install_extra, one_line
from anomaly_ae.escaping import counted
from anomaly_ae.images.decode import LARGEST_FILE, TOO_LARGE
from anomaly_ae.images.file_kinds import HEAD, has_ending, starts_as_image
from anomaly_ae.images.listing import NOT_KNOWN, Contents, Integers, Listing, Source

DRIVERS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # by how an address begins: the extra with its driver
TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")  # what file systems call it


@dataclass(frozen=True)
class Address(Source):
    """All files below an address that fsspec knows, or the one there."""

    def list(self) -> Listing:
        system, root = self._opened
        with _remote_errors(self.name):
            infos = system.find(root, withdirs=True, detail=True)
        folders = {self._within(path) for path, info in infos.items() if info.get("type") == "directory"}
        known = {path: _size_and_time(info) for path, info in infos.items() if info.get("type") != "directory"}
        unsure = [path for path in known if not has_ending(os.fsencode(path))]
        with _remote_errors(self.name):
            heads = system.cat_ranges(unsure, 0, HEAD, on_error="return") if unsure else []
        none = {path for path, head in zip(unsure, heads, strict=True) if not starts_as_image(head)}
        images = [(self._within(path), *about) for path, about in known.items() if path not in none]
        failed = sum(isinstance(head, Exception) for head in heads)
        unread = [f"{counted(failed, 'file')} without an image's ending could not be looked into"] if failed else []
        return self._require(Listing.of(images, [*map(self._within, none)], unread, folders=folders))

    def locate(self, path: bytes) -> bytes:
        return os.fsencode(self._before) + path

    def head(self, path: bytes, count: int) -> bytes:
        (content,) = self._opened[0].cat_ranges([os.fsdecode(self.locate(path))], 0, count, on_error="return")
        return b"" if isinstance(content, Exception) else bytes(content)

    def fetch(self, paths: Sequence[bytes], sizes: Integers) -> Contents | None:
        system, whole = self._opened[0], [os.fsdecode(self.locate(path)) for path in paths]
        wanted = [path for path, size in zip(whole, sizes, strict=True) if size <= LARGEST_FILE]
        try:  # names are taken as they are, not as patterns
            read = system.cat_ranges(wanted, None, None, on_error="return") if wanted else []
        except Exception as error:  # noqa: BLE001  drivers raise whatever they like
            read = [error for _ in wanted]
        contents = dict[str, bytes | Exception]()
        for path, content in zip(wanted, read, strict=True):
            gone = isinstance(content, FileNotFoundError)
            why = "cannot be fetched: it is gone" if gone else f"cannot be fetched ({type(content).__name__})"
            contents[path] = DataMissing(why) if isinstance(content, Exception) else bytes(content)
        return [contents.get(path, DataError(TOO_LARGE)) for path in whole]

    def about(self, paths: Iterable[bytes]) -> dict[bytes, tuple[int, int]]:
        """Sizes and times, as `list` would have them, of those of some files in the folder that are there."""
        system, folder = self._opened
        with contextlib.suppress(Exception):  # one request instead of one for each file, where it can be listed
            system.ls(folder)
        found = {}
        for path in paths:
            with _remote_errors(self.name), contextlib.suppress(FileNotFoundError):
                found[path] = _size_and_time(system.info(os.fsdecode(self.locate(path))))
        return found

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, and the address as that calls it."""
        import fsspec

        with _remote_errors(self.name):
            system, path = fsspec.core.url_to_fs(self.name)
        return system, str(path).rstrip("/")

    def _within(self, path: str) -> bytes:
        """The path within the source of one in the file system."""
        return os.fsencode(path[len(self._before) :])

    @cached_property
    def _before(self) -> str:
        """What stands before the paths in the file system."""
        system, path = self._opened
        with _remote_errors(self.name):
            folder = path.rpartition("/")[0] if system.isfile(path) else path
        return f"{folder}/" if folder else ""


def _size_and_time(info: dict[str, Any]) -> tuple[int, int]:
    """What a file system tells of a file, as `stat_file` has it."""
    return int(info.get("size") or NOT_KNOWN), _time(info)


def _time(info: dict[str, Any]) -> int:
    """The time of the last change that a file system tells of, in ns."""
    when = next((info[key] for key in TIMES if info.get(key)), None)
    if isinstance(when, str):
        with contextlib.suppress(ValueError):  # written in some other way
            when = datetime.fromisoformat(when)
    if isinstance(when, datetime):
        when = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return round(when * 1e9) if isinstance(when, int | float) else NOT_KNOWN


@contextlib.contextmanager
def _remote_errors(name: str) -> Iterator[None]:
    """Turn what a driver raises into a `DataError` that says where."""
    try:
        yield
    except ImportError as error:
        scheme = name.partition("://")[0].rpartition("::")[2]  # of addresses behind others, as in simplecache::s3://
        remedy = install_extra(DRIVERS[scheme]) if scheme in DRIVERS else one_line(error)
        raise DataMissing(f"{name} needs a driver that is not installed; {remedy}") from error
    except Exception as error:
        raise DataError(f"{name} cannot be read: {one_line(error)}") from error
