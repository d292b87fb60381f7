"""Image files in a fixed order, and what a source of them is."""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from anomaly_ae.errors import DataMissing
from anomaly_ae.escaping import counted_as
from anomaly_ae.images.annotations import may_annotate
from anomaly_ae.images.file_kinds import file_head, kinds, unreadable
from anomaly_ae.images.folder_words import junk, split_path

Integers = npt.NDArray[np.int64]
Contents = list[bytes | Exception]  # of files, or why it cannot be had
NOT_KNOWN = -1


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
        folders: Iterable[bytes] = (),
    ) -> "Listing":
        """Of path, size and time of each file, in order of the paths.

        skipped: paths of files that are no images; repeated: folders that links lead to once more; folders: all
        that there are
        """
        paths, sizes, times = zip(*sorted(files), strict=True) if files else ((), (), ())
        left_out = dict(Counter(what for path in skipped if (what := unreadable(path))))
        if repeated:
            left_out["folders that links lead to once more"] = repeated
        full = {path[:end] for path in paths for end, byte in enumerate(path) if byte == ord("/")}
        return cls(
            list(paths),
            np.array(sizes, np.int64),
            np.array(times, np.int64),
            len(skipped),
            tuple(unread),
            left_out,
            tuple(sorted(set(folders) - full - {b""})),
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
        return file_head(self.locate(path), count)

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


def stat_file(path: bytes) -> tuple[int, int]:
    """Size and time of the last change; unknown for what is gone."""
    try:
        about = os.stat(path)
    except OSError:
        return NOT_KNOWN, NOT_KNOWN
    return about.st_size, about.st_mtime_ns
