"""Decoding in processes of their own, so that a file that crashes or hangs its decoder costs its own row alone."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

import anomaly_ae
from anomaly_ae.errors import Interrupted, UsageError
from anomaly_ae.images.decode import Target, missing, reason
from anomaly_ae.images.decode_worker import SECONDS, Records, record_type, send_files, send_target, set_error
from anomaly_ae.images.listing import Integers, Source
from anomaly_ae.runtime.machine import usable_cores

# -P: what lies in the working folder is not run
DECODE_COMMAND = [sys.executable, "-P", "-m", "anomaly_ae.images.decode_worker"]
FILES_ASKED = 64  # files that a decoder is asked for at once: few, so that all have work to the end
BYTES_ASKED = 2**24  # or of so many bytes, which lie in memory where they have been fetched
AHEAD = 8  # such parts that wait for each decoder, so that it never does
PACKAGES = str(Path(anomaly_ae.__file__).parent.parent)

Chunk = tuple[Sequence[bytes], Integers]  # paths and sizes of some files


class Decoders:
    """As many processes as `workers`, all cores by default, that decode a source's files to a target.

    To be closed, or used in a `with`. Raises `UsageError` for fewer than one.
    """

    def __init__(self, source: Source, target: Target, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"decoding takes one process or more, and {workers} were asked for")
        self.source, self.target, self.workers = source, target, workers or usable_cores()
        self._threads = ThreadPoolExecutor(self.workers, "decoder")
        self._own = threading.local()
        self._started, self._lock, self._closed = list[_Decoder](), threading.Lock(), False

    def map(self, chunks: Iterable[Chunk]) -> Iterator[Records]:
        """The records of each chunk of files, in order; the next ones are made while the caller works on one."""
        waiting = deque[list[Future[Records]]]()
        for chunk in chunks:
            waiting.append([self._threads.submit(self.decode, *part) for part in _parts(chunk)])
            if sum(map(len, waiting)) > AHEAD * self.workers and len(waiting) > 1:
                yield _joined(waiting.popleft())
        while waiting:
            yield _joined(waiting.popleft())

    def decode(self, paths: Sequence[bytes], sizes: Integers) -> Records:
        """A record for each file: see `record_type`."""
        fetched = self.source.fetch(paths, sizes)
        if fetched is None:
            return self._ask([self.source.locate(path) for path in paths], contents=False)
        records = self._ask([b"" if isinstance(each, Exception) else each for each in fetched], contents=True)
        for record, content in zip(records, fetched, strict=True):
            if isinstance(content, Exception):
                set_error(record, reason(content))
                record["missing"] = missing(content)
        return records

    def close(self) -> None:
        """End the processes, whatever they are at."""
        with self._lock:
            self._closed = True
        for decoder in tuple(self._started):
            decoder.end()
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, files: list[bytes], contents: bool) -> Records:
        records = np.zeros(len(files), record_type(self.target))
        if not self._decoder().ask(files, contents, records):
            self._discard()  # one of them has ended it: which one shows when each is asked for alone
            for i, file in enumerate(files):
                records[i : i + 1] = np.zeros(1, records.dtype)
                if not self._decoder().ask([file], contents, records[i : i + 1]):
                    set_error(records[i], self._discard())
                    records[i]["missing"] = True  # it may have been the machine, short of memory or time
        return records

    def _discard(self) -> str:
        """Do away with this thread's process, which has ended; in words how."""
        decoder = self._decoder()
        how = decoder.how_it_ended()
        decoder.end()
        self._started.remove(decoder)
        self._own.decoder = None
        return how

    def _decoder(self) -> "_Decoder":
        """The process that belongs to this thread."""
        if getattr(self._own, "decoder", None) is None:
            with self._lock:
                if self._closed:
                    raise Interrupted("decoding was ended")
                self._own.decoder = _Decoder(self.target)
                self._started.append(self._own.decoder)
        decoder: _Decoder = self._own.decoder
        return decoder


def _parts(chunk: Chunk) -> Iterator[Chunk]:
    """The files of a chunk in parts of at most `FILES_ASKED` files and `BYTES_ASKED` bytes, or one file."""
    paths, sizes = chunk
    start, held = 0, 0
    for i, size in enumerate(np.where(sizes < 0, BYTES_ASKED, sizes).tolist()):
        if i > start and (i - start == FILES_ASKED or held + size > BYTES_ASKED):
            yield paths[start:i], sizes[start:i]
            start, held = i, 0
        held += size
    yield paths[start:], sizes[start:]


def _joined(parts: list[Future[Records]]) -> Records:
    return np.concatenate([part.result() for part in parts])


class _Decoder:
    """One process, and the socket by which it is asked."""

    def __init__(self, target: Target) -> None:
        self.socket, childs_end = socket.socketpair()
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        path = os.pathsep.join(filter(None, (PACKAGES, os.environ.get("PYTHONPATH"))))
        with childs_end:
            self.process = subprocess.Popen(
                DECODE_COMMAND,
                stdin=childs_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | single | {"PYTHONPATH": path},
            )
        with contextlib.suppress(OSError):  # that it has ended shows when it is asked
            send_target(self.socket, target)

    def ask(self, files: list[bytes], contents: bool, records: Records) -> bool:
        """Fill records with what it answers of files; whether it did, or has ended."""
        view, received = records.view(np.uint8).data, 0
        try:
            send_files(self.socket, files, contents)
            while received < len(view):
                count = self.socket.recv_into(view[received:], 0, socket.MSG_WAITALL)
                if not count:
                    return False
                received += count
        except OSError:
            return False
        return True

    def how_it_ended(self) -> str:
        """In words."""
        code = self.process.wait()
        if code == -signal.SIGALRM:
            return f"decoding it took longer than {SECONDS:g} s"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the decoder crashed on it ({how})"

    def end(self) -> None:
        """Kill it; it holds nothing that could be lost."""
        self.process.kill()
        self.process.wait()
        self.socket.close()
