"""Decoding within this process, where a test is not about the processes that decode."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from anomaly_ae.images import decode_pool
from anomaly_ae.images.decode import Target
from anomaly_ae.images.decode_worker import Records, fill_record, read_target, send_target

PROCESS = decode_pool._Decoder


class Here:
    """In place of a process, which takes a third of a second to start."""

    def __init__(self, target: Target) -> None:
        sent = io.BytesIO()
        channel: Any = SimpleNamespace(sendall=sent.write)
        send_target(channel, target)
        sent.seek(0)
        self.target = read_target(sent)

    def ask(self, files: list[bytes], contents: bool, records: Records) -> bool:
        for file, record in zip(files, records, strict=True):
            fill_record(record, file, contents, self.target)
        return True

    def end(self) -> None:
        pass


@contextmanager
def decoded_here() -> Iterator[None]:
    """Within it, no processes are started to decode files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_pool, "_Decoder", Here)
        yield


@contextmanager
def decoded_in_processes() -> Iterator[None]:
    """Within it, files are decoded in processes, as outside of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_pool, "_Decoder", PROCESS)
        yield
