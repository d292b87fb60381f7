"""Decoding in processes of their own, so that a file that crashes or hangs its decoder costs its own row alone."""

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
from anomaly_ae.data.decoder import SECONDS, Records, pack, record_type, set_error
from anomaly_ae.data.decoding import STRETCH, Shape, missing, reason
from anomaly_ae.data.sources import Integers, Source
from anomaly_ae.errors import Interrupted

COMMAND = [sys.executable, "-P", "-m", "anomaly_ae.data.decoder"]  # -P: what lies in the working folder is not run
PART = 64  # files that a decoder is asked for at once: few, so that all have work to the end
AHEAD = 8  # such parts that wait for each decoder, so that it never does
PACKAGES = str(Path(anomaly_ae.__file__).parent.parent)

Chunk = tuple[Sequence[bytes], Integers]  # paths and sizes of some files


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Decoders:
    """As many processes as `workers`, all cores by default, that decode a source's files to `shape` (C, H, W).

    To be closed, or used in a `with`.
    """

    def __init__(self, source: Source, shape: Shape, workers: int | None = None, fit: str = STRETCH) -> None:
        self.source, self.shape, self.fit, self.workers = source, shape, fit, workers or usable_cores()
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
        records = self._ask([b"" if isinstance(found, Exception) else found for found in fetched], contents=True)
        for record, found in zip(records, fetched, strict=True):
            if isinstance(found, Exception):
                set_error(record, reason(found))
                record["missing"] = missing(found)
        return records

    def close(self) -> None:
        """End the processes, whatever they are at."""
        with self._lock:
            self._closed = True
        for decoder in self._started:
            decoder.end()
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, files: list[bytes], contents: bool) -> Records:
        decoder = self._decoder()
        records = decoder.ask(pack(files, contents), np.zeros(len(files), record_type(self.shape)))
        if records is not None:
            return records
        self._own.decoder = None
        if len(files) > 1:  # one of them has ended it: which one shows when each is asked for alone
            return np.concatenate([self._ask([file], contents) for file in files])
        records = np.zeros(1, record_type(self.shape))
        set_error(records[0], decoder.how_it_ended())
        return records

    def _decoder(self) -> "_Decoder":
        """The process that belongs to this thread."""
        if getattr(self._own, "decoder", None) is None:
            with self._lock:
                if self._closed:
                    raise Interrupted("decoding was ended")
                self._own.decoder = _Decoder(self.shape, self.fit)
                self._started.append(self._own.decoder)
        decoder: _Decoder = self._own.decoder
        return decoder


def _parts(chunk: Chunk) -> Iterator[Chunk]:
    paths, sizes = chunk
    for start in range(0, len(paths), PART):
        yield paths[start : start + PART], sizes[start : start + PART]


def _joined(parts: list[Future[Records]]) -> Records:
    return np.concatenate([part.result() for part in parts])


class _Decoder:
    """One process, and the socket by which it is asked."""

    def __init__(self, shape: Shape, fit: str) -> None:
        self.socket, theirs = socket.socketpair()
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        path = os.pathsep.join(filter(None, (PACKAGES, os.environ.get("PYTHONPATH"))))
        with theirs:
            self.process = subprocess.Popen(
                [*COMMAND, *map(str, shape), fit],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | single | {"PYTHONPATH": path},
            )

    def ask(self, request: bytes, records: Records) -> Records | None:
        """Fill records with what it answers; None when it has ended."""
        view, received = records.view(np.uint8).data, 0
        try:
            self.socket.sendall(request)
            while received < len(view):
                count = self.socket.recv_into(view[received:], 0, socket.MSG_WAITALL)
                if not count:
                    return None
                received += count
        except OSError:
            return None
        return records

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


def read_pictures(source: Source, paths: Sequence[bytes], shape: Shape, fit: str = STRETCH) -> Iterator[Records]:
    """Records of some files, a few at a time, in order."""
    with Decoders(source, shape) as decoders:
        step = 32
        parts = (paths[start : start + step] for start in range(0, len(paths), step))
        yield from decoders.map((part, np.full(len(part), -1)) for part in parts)
