"""Files that come into a folder: told by the system's events, and by listing it now and then, so that none is lost;
and when each of them is complete.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import watchfiles

from anomaly_ae.errors import DataMissing, one_line
from anomaly_ae.images.folder_words import junk, split_path
from anomaly_ae.images.listing import NOT_KNOWN, Listing
from anomaly_ae.images.sources import Folder
from anomaly_ae.runtime.messages import logger

File = tuple[bytes, int, int]  # path within the folder, bytes, time of the last change in ns

SETTLED = 0.03  # seconds without a change after which a file is tried
GIVEN_UP = 3.0  # seconds without a change after which one that cannot be read is given up
RELISTED, POLLED = 60.0, 2.0  # seconds between listings, beside events and without them
LEAST_PAUSE, LISTING_SHARE = 1.0, 20  # seconds between any two, or so many times what a listing takes
STEP, DEBOUNCE, TIMEOUT = 10, 40, 200  # milliseconds that events are gathered for


class Arrivals:
    """Files of a folder that may have no row yet; from `start` on, new ones too.

    known: the files that have one
    poll:  seconds between listings, without events; None listens to those
    """

    def __init__(self, folder: Folder, known: Container[File], poll: float | None = None) -> None:
        self.folder, self._known, self._poll, self._pause = folder, known, poll, poll or RELISTED
        self._told, self._listed = deque[bytes](), iter(list[File]())
        self._folders: Collection[bytes] = {b""}
        self._news, self._again, self._ready, self._stop = (threading.Event() for _ in range(4))
        self._threads = list[threading.Thread]()

    def start(self) -> Listing:
        """Hear of all that comes from now on; what is there."""
        if self._poll is None:
            self._run(self._listen)
            self._ready.wait()
        listing = self.look()
        self._run(self._keep_listing)
        return listing

    def _run(self, target: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=target, daemon=True))
        self._threads[-1].start()

    def look(self) -> Listing:
        """List the folder; files without a row come with the next `take`, the oldest first."""
        try:
            listing = self.folder.pictures()
        except DataMissing as error:  # of a folder that is empty, or cannot be opened; `unread` is what is said
            listing = Listing.of((), unread=[one_line(error)])
        self._folders = _folders_above(listing.paths).union(listing.empty, {b""})
        new = [i for i in np.argsort(listing.times, kind="stable").tolist() if _at(listing, i) not in self._known]
        self._listed = (_at(listing, i) for i in new if listing.sizes[i] != NOT_KNOWN)
        self._news.set()
        return listing

    def take(self, most: int) -> list[File]:
        """The next files, so many at the most, if any; those first that have just come; some may come twice."""
        told = (self._told.popleft() for _ in range(len(self._told)))
        files = ((path, *about) for path in told if (about := self.folder.about(path)))
        return list(islice((file for file in chain(files, self._listed) if file not in self._known), max(0, most)))

    def wait(self, seconds: float) -> None:
        """Wait for news, so long at the most."""
        if self._news.wait(seconds):
            self._news.clear()

    def close(self) -> None:
        self._stop.set()
        self._again.set()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        """Pass on the system's events; whenever they begin, what came before them is found by listing."""
        try:
            while not self._stop.wait(STEP / 1_000):
                with suppress(FileNotFoundError):  # the folder is gone, and may come again
                    self._listen_once()
        except OSError as error:
            self._pause = POLLED
            logger.warning(f"no events can be had, so the folder is listed every {POLLED:g} s: {one_line(error)}")
        finally:
            self._ready.set()

    def _listen_once(self) -> None:
        """Until the end, or until the folder is another one, or a name is no UTF-8, which a listing then finds."""
        folder, again = Path(self.folder.name), self._ready.is_set()
        began = folder.stat().st_ino
        with suppress(RuntimeError):
            for changes in watchfiles.watch(
                self.folder.name,
                watch_filter=None,
                debounce=DEBOUNCE,
                step=STEP,
                rust_timeout=TIMEOUT,
                yield_on_timeout=True,  # so that it says when it is ready
                stop_event=self._stop,
                ignore_permission_denied=True,
            ):
                if again:
                    self._again.set()
                    again = False
                self._ready.set()
                self._tell(path for _, path in changes)
                gone = (watchfiles.Change.deleted, self.folder.name) in changes  # a new one may have its inode
                if gone or folder.stat().st_ino != began:
                    break

    def _tell(self, paths: Iterable[str]) -> None:
        for path in paths:
            inside = os.fsencode(os.path.relpath(path, self.folder.name))
            if junk(split_path(inside)):
                continue
            if inside.rpartition(b"/")[0] in self._folders and not Path(path).is_dir():
                self._told.append(inside)
            else:  # a folder that is new, or that has another name here
                self._again.set()
            self._news.set()

    def _keep_listing(self) -> None:
        least = LEAST_PAUSE
        while not self._stop.wait(self._poll or least):
            if self._poll is None:
                self._again.wait(max(0.0, self._pause - least))
                self._again.clear()
            began = time.monotonic()
            self.look()
            least = max(LEAST_PAUSE, LISTING_SHARE * (time.monotonic() - began))


def _at(listing: Listing, i: int) -> File:
    return listing.paths[i], int(listing.sizes[i]), int(listing.times[i])


def _folders_above(paths: Collection[bytes]) -> set[bytes]:
    folders = {path.rpartition(b"/")[0] for path in paths}
    return folders | {folder[:end] for folder in folders for end, byte in enumerate(folder) if byte == ord("/")}


@dataclass
class _State:
    """Of a file as it was last seen: when it may be tried, since when it is so, and whether it could not be read."""

    size: int
    time: int
    since: float
    due: float
    failed: bool = False


class Waiting:
    """Files that have come and have no row yet. Times are seconds by `time.monotonic`."""

    def __init__(self, folder: Folder) -> None:
        self.folder, self._states, self.gone = folder, dict[bytes, _State](), 0

    def __len__(self) -> int:
        return len(self._states)

    def add(self, file: File, now: float) -> None:
        """Begin to wait for a file, or again where it has changed."""
        path, size, changed = file
        state = self._states.get(path)
        if state is None or (state.size, state.time) != (size, changed):
            self._states[path] = _State(size, changed, now, now + SETTLED)

    def due(self, now: float, most: int) -> list[File]:
        """Files that have stayed as they are for long enough, so many at the most."""
        paths = [path for path, state in self._states.items() if state.due <= now][:most]
        files = [(path, self._states[path].size, self._states[path].time) for path in paths]
        return [file for file in files if self.is_same(file, now)]

    def is_same(self, file: File, now: float) -> bool:
        """Whether a file is as it was seen; if it has changed it is waited for anew, if it is gone no more."""
        about = self.folder.about(file[0])
        if about is None:
            del self._states[file[0]]
            self.gone += 1
        elif about != file[1:]:
            self.add((file[0], *about), now)
        return about == file[1:]

    def fail(self, path: bytes, now: float) -> bool:
        """Say that a file could not be read; whether that was so before, and it has not changed for long."""
        state = self._states[path]
        before, state.failed, state.due = state.failed, True, now + GIVEN_UP
        return before

    def finish(self, path: bytes) -> float:
        """Say that a file has its row; since when it was there as it is."""
        return self._states.pop(path).since

    def untried(self) -> int:
        """How many have not been tried yet."""
        return sum(not state.failed for state in self._states.values())

    def next_due(self) -> float:
        """When the next one may be tried."""
        return min((state.due for state in self._states.values()), default=float("inf"))
