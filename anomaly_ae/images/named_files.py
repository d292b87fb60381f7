"""Files that are named one by one, wherever they lie."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from anomaly_ae.images.addresses import Address
from anomaly_ae.images.decode import read_file
from anomaly_ae.images.listing import NOT_KNOWN, Contents, Integers, Listing, Source, stat_file

GONE = NOT_KNOWN, NOT_KNOWN
Positions = list[int]  # among some files


@dataclass(frozen=True)
class NamedFiles(Source):
    """Files that a manifest names: by their paths from the folder it lies in, or by whole paths or addresses.

    name:  the manifest's own path or address
    files: those that it names, there or not
    """

    files: tuple[bytes, ...]
    _addresses: dict[str, Address] = field(default_factory=dict, repr=False, compare=False)

    def list(self) -> Listing:
        return self._require(Listing.of([(path, *self._about.get(path, GONE)) for path in self.files]))

    def pictures(self) -> Listing:
        return self.list()  # somebody named each of them

    def locate(self, path: bytes) -> bytes:
        return path if path.startswith(b"/") or b"://" in path else self._folder + path

    def fetch(self, paths: Sequence[bytes], sizes: Integers) -> Contents | None:
        by_address = self._by_address(paths)
        if by_address.keys() <= {None}:
            return None
        contents: Contents = [b""] * len(paths)
        for address, chosen in by_address.items():
            names = [_name(paths[i]) for i in chosen]
            fetched = address.fetch(names, sizes[chosen]) if address else None
            for i, content in zip(chosen, fetched or [_content(self.locate(paths[i])) for i in chosen], strict=True):
                contents[i] = content
        return contents

    @property
    def _folder(self) -> bytes:
        """What stands before the paths of what lies in the manifest's folder."""
        return os.fsencode(self.name[: self.name.rindex("/") + 1])

    @property
    def missing(self) -> frozenset[bytes]:
        """Those that are not there."""
        return frozenset(self.files) - self._about.keys()

    @cached_property
    def _about(self) -> dict[bytes, tuple[int, int]]:
        """Sizes and times of those that are there."""
        about = dict[bytes, tuple[int, int]]()
        for address, chosen in self._by_address(self.files).items():
            paths = [self.files[i] for i in chosen]
            if address:
                there = address.about(map(_name, paths))
                about |= {path: there[name] for path in paths if (name := _name(path)) in there}
            else:
                local = {path: stat_file(self.locate(path)) for path in paths}
                about |= {path: found for path, found in local.items() if found != GONE}
        return about

    def _by_address(self, paths: Sequence[bytes]) -> dict[Address | None, Positions]:
        """The positions of files by the folder at an address that they lie in; None for those in a file system."""
        found = defaultdict[Address | None, Positions](list)
        for i, path in enumerate(paths):
            folder = os.fsdecode(self.locate(path)).rpartition("/")[0]
            is_address = "://" in folder
            found[self._addresses.setdefault(folder, Address(folder)) if is_address else None].append(i)
        return found


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _content(path: bytes) -> bytes | Exception:
    """What a file holds, or why it cannot be had."""
    try:
        return read_file(path)
    except Exception as error:  # noqa: BLE001  it costs this file's row alone
        return error
