"""Where image files come from: a folder, a text file of paths, or an address such as s3://bucket/pictures."""

import codecs
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from anomaly_ae.errors import DataMissing
from anomaly_ae.escaping import shown
from anomaly_ae.images.addresses import Address
from anomaly_ae.images.file_kinds import has_ending, is_image
from anomaly_ae.images.folder_words import junk, split_path
from anomaly_ae.images.listing import NOT_KNOWN, Listing, Source, stat_file
from anomaly_ae.storage.atomic import expand

FILE_SCHEME = "file://"


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


@dataclass(frozen=True)
class Folder(Source):
    """All files below a folder and those that links in it lead to, each folder once."""

    def list(self) -> Listing:
        walk = _FolderWalk(os.fsencode(self.name))
        files = list(walk.images())
        return self._require(Listing.of(files, walk.skipped, walk.unread, walk.repeated, walk.folders))

    def locate(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self.name), path)

    def about(self, path: bytes) -> tuple[int, int] | None:
        """Size and time of a file as `pictures` would list them; None where it is gone, or is none of them."""
        whole = self.locate(path)
        if junk(split_path(path)) or not os.path.isfile(whole) or not is_image(whole):
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
        if not is_image(paths[0]):
            content = Path(self.name).read_bytes().removeprefix(codecs.BOM_UTF8)
            lines = content.split(b"\0" if b"\0" in content else b"\n")
            paths = [line.rstrip(b"\r") for line in lines if line.strip()]
        files = {path: stat_file(path) for path in paths}
        if set(files.values()) <= {(NOT_KNOWN, NOT_KNOWN)}:
            raise DataMissing(f"{self.name} is no image, and as a list of paths it names no file that is there")
        images = {path: about for path, about in files.items() if about == (NOT_KNOWN, NOT_KNOWN) or is_image(path)}
        return self._require(
            Listing.of([(path, *about) for path, about in images.items()], [*files.keys() - images.keys()])
        )

    def locate(self, path: bytes) -> bytes:
        return path

    def inside(self, path: bytes) -> bytes:
        return os.path.basename(path)  # where it lies is no part of the list

    def pictures(self) -> Listing:
        return self.list()  # somebody put each of them there


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
                elif has_ending(entry.name) if is_dead else entry.is_file() and is_image(entry.path):
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
