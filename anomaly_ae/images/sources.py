"""Where image files come from: a folder, a text file of paths, or an address such as s3://bucket/pictures."""

import codecs
import contextlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly_ae.errors import DataError, DataMissing, install_extra, one_line
from anomaly_ae.escaping import counted, counted_as
from anomaly_ae.images.annotations import may_annotate
from anomaly_ae.images.decode import LARGEST_FILE, TOO_LARGE, open_file
from anomaly_ae.images.folder_words import MAC_REMARKS, junk, split_path
from anomaly_ae.storage.atomic import expand

Integers = npt.NDArray[np.int64]

IMAGE_ENDINGS = tuple(
    b".png .jpg .jpeg .jpe .jfif .bmp .dib .gif .tif .tiff .webp .pbm .pgm .pnm .ppm .pfm".split()
)  # of image files, whatever they hold
UNREADABLE = {
    "HEIC": ".heic .heif .hif",
    "AVIF": ".avif .avifs",
    "JPEG XL": ".jxl",
    "JPEG 2000": ".jp2 .j2k .jpx .jpf",
    "camera raw": ".cr2 .cr3 .nef .dng .arw .raf .orf .rw2 .pef .srw .raw",
    "DICOM": ".dcm .dicom",
    "NIfTI": ".nii .nii.gz",
    "Photoshop": ".psd .psb",
    "SVG": ".svg .svgz",
    "OpenEXR": ".exr",
    "radiance": ".hdr",
    "TGA": ".tga",
    "NumPy": ".npy .npz",
    "PDF": ".pdf",
    "archive": ".zip .tar .tar.gz .tar.bz2 .tar.xz .tgz .7z .rar",
    "video": ".mp4 .m4v .avi .mov .mkv .webm .wmv .mpg .mpeg",
}  # what people take for pictures, by the endings of its files
HEAD = 16  # bytes by which a file without such an ending is told
STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
APPLE_DOUBLE = b"._"  # before a file's name: a Mac's remarks on it
Contents = list[bytes | Exception]  # of files, or why it cannot be had

NOT_KNOWN = -1
FILE_SCHEME = "file://"
DRIVERS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # by how an address begins: the extra with its driver
TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")  # what file systems call it


@dataclass(frozen=True, eq=False)
class Listing:
    """Image files in a fixed order.

    paths:    within the source, as bytes, for not every name is UTF-8
    sizes:    bytes, (N,); -1 where it cannot be known
    times:    of the last change, in ns since 1970, (N,); -1 where it cannot be known
    skipped:  files that are no images
    unread:   folders that could not be looked into, each with the reason
    left_out: how many files or folders are none of the paths though people may think so, by what they are
    empty:    folders below which there is no image
    annotations: files that may say what is in the pictures, by their endings
    """

    paths: list[bytes]
    sizes: Integers
    times: Integers
    skipped: int = 0
    unread: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    empty: tuple[bytes, ...] = ()
    annotations: tuple[bytes, ...] = ()

    @classmethod
    def of(
        cls,
        files: Collection[tuple[bytes, int, int]],
        skipped: Sequence[bytes] = (),
        unread: Iterable[str] = (),
        repeated: int = 0,
        empty: Iterable[bytes] = (),
    ) -> "Listing":
        """Of path, size and time of each file, in order of the paths.

        skipped: paths of files that are no images; repeated: folders that links lead to once more
        """
        paths, sizes, times = zip(*sorted(files), strict=True) if files else ((), (), ())
        left_out = dict(Counter(what for path in skipped if (what := _unreadable(path))))
        if repeated:
            left_out["folders that links lead to once more"] = repeated
        return cls(
            list(paths),
            np.array(sizes, np.int64),
            np.array(times, np.int64),
            len(skipped),
            tuple(unread),
            left_out,
            tuple(sorted(empty)),
            tuple(filter(may_annotate, skipped)),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Iterable[int]) -> "Listing":
        """Some of the files, in their order."""
        chosen = np.array(sorted(indices), np.int64)
        return Listing(*self.at(chosen), self.times[chosen])

    def at(self, indices: Integers) -> tuple[list[bytes], Integers]:
        """Paths and sizes of the files at some indices."""
        return [self.paths[i] for i in indices], self.sizes[indices]


@dataclass(frozen=True)
class Source(ABC):
    """Files by their paths within it. name: what it is, for people"""

    name: str

    @property
    def identity(self) -> str:
        """What tells it from other sources."""
        return self.name

    @abstractmethod
    def list(self) -> Listing:
        """All image files, which have a known ending or known first bytes. Raises `DataMissing` without any."""

    def pictures(self) -> Listing:
        """The same without hidden files and thumbnails, which are counted in `left_out`."""
        listing = self.list()
        reasons = {
            i: reason for i, path in enumerate(listing.paths) if (reason := junk(split_path(self.inside(path))))
        }
        if not reasons:
            return listing
        kept = listing.take(i for i in range(len(listing)) if i not in reasons)
        left_out = dict(Counter(listing.left_out) + Counter(reasons.values()))
        return self._require(
            replace(listing, paths=kept.paths, sizes=kept.sizes, times=kept.times, left_out=left_out)
        )

    @abstractmethod
    def locate(self, path: bytes) -> bytes:
        """The whole path or address of a file."""

    def inside(self, path: bytes) -> bytes:
        """The part of a path that says what the file is."""
        return path

    def head(self, path: bytes, count: int) -> bytes:
        """The first bytes of a file, so many; nothing where it cannot be read."""
        return _head(self.locate(path), count)

    def fetch(self, paths: Sequence[bytes], sizes: Integers) -> Contents | None:
        """What files of so many bytes hold, or why it cannot be had; None where a path is all that one needs."""
        return None

    def _require(self, listing: Listing) -> Listing:
        if not len(listing):
            besides = f" (files of other kinds: {listing.skipped:,})" if listing.skipped else ""
            others = "".join(f"; left out: {counted_as(count, what)}" for what, count in listing.left_out.items())
            unread = f"; {listing.unread[0]}" if listing.unread else ""
            raise DataMissing(f"there is no image in {self.name}{besides}{others}{unread}; taken are {kinds()}")
        return listing


@dataclass(frozen=True)
class Folder(Source):
    """All files below a folder and those that links in it lead to, each folder once."""

    def list(self) -> Listing:
        walk = _FolderWalk(os.fsencode(self.name))
        files = list(walk.images())
        empty = _empty(walk.folders, files)
        return self._require(Listing.of(files, walk.skipped, walk.unread, walk.repeated, empty))

    def locate(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self.name), path)

    def about(self, path: bytes) -> tuple[int, int] | None:
        """Size and time of a file as `pictures` would list them; None where it is gone, or is none of them."""
        whole = self.locate(path)
        if junk(split_path(path)) or not os.path.isfile(whole) or not _is_image(whole):
            return None
        about = stat_file(whole)
        return None if NOT_KNOWN in about else about


@dataclass(frozen=True)
class PathList(Source):
    """A text file with a path a line, or with NUL between the paths; or one image file."""

    @property
    def identity(self) -> str:
        return f"{self.name}, read in {Path.cwd()}"  # for its paths may be relative

    def list(self) -> Listing:
        paths = [os.fsencode(self.name)]
        if not _is_image(paths[0]):
            content = Path(self.name).read_bytes().removeprefix(codecs.BOM_UTF8)
            lines = content.split(b"\0" if b"\0" in content else b"\n")
            paths = [line.rstrip(b"\r") for line in lines if line.strip()]
        files = {path: stat_file(path) for path in paths}
        if set(files.values()) <= {(NOT_KNOWN, NOT_KNOWN)}:
            raise DataMissing(f"{self.name} is no image, and as a list of paths it names no file that is there")
        images = {path: about for path, about in files.items() if about == (NOT_KNOWN, NOT_KNOWN) or _is_image(path)}
        return self._require(
            Listing.of([(path, *about) for path, about in images.items()], [*files.keys() - images.keys()])
        )

    def locate(self, path: bytes) -> bytes:
        return path

    def inside(self, path: bytes) -> bytes:
        return os.path.basename(path)  # where it lies is no part of the list

    def pictures(self) -> Listing:
        return self.list()  # somebody put each of them there


@dataclass(frozen=True)
class Address(Source):
    """All files below an address that fsspec knows, or the one there."""

    def list(self) -> Listing:
        system, root = self._opened
        with _remote_errors(self.name):
            infos = system.find(root, withdirs=True, detail=True)
        folders = {
            os.fsencode(path[len(self._before) :]) for path, info in infos.items() if info.get("type") == "directory"
        }
        known = {path: _size_and_time(info) for path, info in infos.items() if info.get("type") != "directory"}
        unsure = [path for path in known if not has_ending(os.fsencode(path))]
        with _remote_errors(self.name):
            heads = system.cat_ranges(unsure, 0, HEAD, on_error="return") if unsure else []
        none = {path for path, head in zip(unsure, heads, strict=True) if not _starts_as_image(head)}
        images = [
            (os.fsencode(path[len(self._before) :]), *about) for path, about in known.items() if path not in none
        ]
        failed = sum(isinstance(head, Exception) for head in heads)
        unread = [f"{counted(failed, 'file')} without an image's ending could not be looked into"] if failed else []
        skipped = [os.fsencode(path[len(self._before) :]) for path in none]
        return self._require(Listing.of(images, skipped, unread, empty=_empty(folders, images)))

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

    @cached_property
    def _before(self) -> str:
        """What stands before the paths in the file system."""
        system, path = self._opened
        with _remote_errors(self.name):
            folder = path.rpartition("/")[0] if system.isfile(path) else path
        return f"{folder}/" if folder else ""


def open_source(place: str | Path) -> Source:
    """The source that a folder, a text file of paths, an image file or an address is.

    Raises `DataMissing` when there is no such thing.
    """
    if "://" in str(place) and not str(place).startswith(FILE_SCHEME):
        return Address(str(place))
    path = expand(str(place).removeprefix(FILE_SCHEME))
    if path.is_dir():
        return Folder(str(path.resolve()))
    if path.is_file():
        return PathList(str(path.resolve()))
    raise DataMissing(
        f"there is no {place}; name a folder of images, a text file of their paths, or an address (s3://…)"
    )


def kinds() -> str:
    """The endings of image files, for people."""
    return b", ".join(sorted(IMAGE_ENDINGS)).decode()


def shown(path: bytes) -> str:
    r"""A path as text, bytes that are no UTF-8 as \xNN."""
    return path.decode("utf-8", "backslashreplace")


def has_ending(path: bytes) -> bool:
    return path.lower().endswith(IMAGE_ENDINGS)


class _FolderWalk:
    """Goes through a folder once, without recursion, and keeps count.

    Folders that lie in it come first, then those that links lead to, so that what a folder is called does not depend
    on a link to it. A link to a folder around it leads nowhere new.
    """

    def __init__(self, root: bytes) -> None:
        self.root, self.skipped, self.unread = root, list[bytes](), list[str]()
        self.folders, self.repeated = list[bytes](), 0
        self._seen = {_identity(root[:end] or b"/") for end, byte in enumerate(root) if byte == ord("/")}

    def images(self) -> Iterator[tuple[bytes, int, int]]:
        waiting, links = [b""], list[bytes]()
        while waiting or links:
            links.sort(reverse=True)
            folder = waiting.pop() if waiting else links.pop()
            for entry in self._entries(folder):
                path, is_link = os.path.join(folder, entry.name), entry.is_symlink()
                is_dead = is_link and not os.path.exists(entry.path)  # it leads nowhere, or to itself
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif is_link and os.path.isdir(entry.path):
                    links.append(path)
                elif has_ending(entry.name) if is_dead else entry.is_file() and _is_image(entry.path):
                    yield path, *stat_file(entry.path)
                else:
                    self.skipped.append(path)
                    if is_dead and not entry.name.startswith(b"."):
                        self.unread.append(f"the link {shown(path)} leads nowhere")

    def _entries(self, folder: bytes) -> "list[os.DirEntry[bytes]]":
        """What is in a folder, in order; nothing where that was looked into before."""
        whole = os.path.join(self.root, folder)
        try:
            if (identity := _identity(whole)) in self._seen:
                self.repeated += 1
                return []
            self._seen.add(identity)
            with os.scandir(whole) as entries:
                self.folders.append(folder)
                return sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            self.unread.append(f"the folder {shown(folder) or shown(self.root)} cannot be opened: {error.strerror}")
            return []


def _identity(folder: bytes) -> tuple[int, int]:
    """What tells a folder from all others, by whatever path. Raises `OSError`."""
    about = os.stat(folder)
    return about.st_dev, about.st_ino


def _empty(folders: Iterable[bytes], files: Iterable[tuple[bytes, int, int]]) -> set[bytes]:
    """The folders below which there is none of some files: path, size and time."""
    full = {path[:end] for path, *_ in files for end, byte in enumerate(path) if byte == ord("/")}
    return set(folders) - full - {b""}


def _unreadable(path: bytes) -> str | None:
    """What files are that people take for pictures and that are none here, by their ending."""
    name = os.path.basename(path)
    if name.startswith(b"."):
        return MAC_REMARKS if name.startswith(APPLE_DOUBLE) and has_ending(name) else None
    ends = os.fsdecode(name).lower()
    kind = next((kind for kind, endings in UNREADABLE.items() if ends.endswith(tuple(endings.split()))), None)
    if kind == "archive":
        return "archive files, which are not looked into; unpack them"
    how = "save frames as" if kind == "video" else "save as"
    return f"{kind} files, which cannot be read; {how} PNG or JPEG" if kind else None


def _is_image(path: bytes) -> bool:
    """By its ending, or by its first bytes where that says nothing or misleads."""
    remark = os.path.basename(path).startswith(APPLE_DOUBLE)
    return has_ending(path) if has_ending(path) and not remark else _starts_as_image(_head(path, HEAD))


def _head(path: bytes, count: int) -> bytes:
    try:
        with open_file(path) as file:
            return file.read(count) or b""
    except OSError:
        return b""


def _starts_as_image(head: bytes | Exception) -> bool:
    if isinstance(head, Exception):
        return False
    bitmap = head.startswith(b"BM") and head[6:10] == bytes(4)
    return head.startswith(STARTS) or bitmap or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def stat_file(path: bytes) -> tuple[int, int]:
    """Size and time of the last change; unknown for what is gone."""
    try:
        about = os.stat(path)
    except OSError:
        return NOT_KNOWN, NOT_KNOWN
    return about.st_size, about.st_mtime_ns


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
