"""The process that decodes image files: `python -m anomaly_ae.images.decode_worker`, started by `Decoders`.

A file that crashes, hangs or overfills its decoder ends this process and nothing else. It is asked over the socket
that is its standard input: first it is told what they are to become; then files come in one by one, and when all are
decoded a record for each goes back.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import struct
import warnings
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomaly_ae.images.decode import Target, decode, missing, read_file, reason
from anomaly_ae.images.intensity import KINDS, Intensity
from anomaly_ae.images.masks import MaskColours
from anomaly_ae.images.roi import RegionOfInterest

Records = npt.NDArray[Any]

MOST_ERROR_BYTES = 240  # of an error's text
MOST_MEMORY = 2**32  # bytes of address space
SECONDS = 60.0  # for one file
LEAST_URGENT = 19
HEADER = struct.Struct("<?I")  # whether contents or paths follow, and how many
LENGTH = struct.Struct("<Q")


def record_type(target: Target) -> np.dtype[Any]:
    """What is said of a file: pixels and the rest of a `Picture`; or an error, and whether the file was at fault."""
    return np.dtype(
        [
            ("width", "<i4"),
            ("height", "<i4"),
            ("kind", "u1"),  # position in KINDS
            ("clipped", "<f4"),
            ("further", "?"),
            ("missing", "?"),
            ("error", f"S{MOST_ERROR_BYTES}"),
            ("sample", "<f8", (target.sample,)),
            ("pixels", "u1", target.shape),
        ]
    )


def send_target(channel: socket.socket, target: Target) -> None:
    """Say what the files that follow are to become; no argument of the process, for those have a largest length."""
    content = json.dumps(dataclasses.asdict(target)).encode()
    channel.sendall(LENGTH.pack(len(content)) + content)


def read_target(incoming: BinaryIO) -> Target:
    """What `send_target` sent."""
    fields = json.loads(_read_one(incoming))
    intensity = fields["intensity"] and Intensity(**fields["intensity"])
    roi = fields["roi"] and RegionOfInterest(tuple(map(tuple, fields["roi"]["boxes"])))
    colours = fields["colours"] and MaskColours(**fields["colours"])
    typed = {"shape": tuple(fields["shape"]), "intensity": intensity, "roi": roi, "colours": colours}
    return Target(**fields | typed)


def _read_one(incoming: BinaryIO) -> bytes:
    return incoming.read(*LENGTH.unpack(incoming.read(LENGTH.size)))


def send_files(channel: socket.socket, files: list[bytes], contents: bool) -> None:
    """Send files, by path or by content, one after the other, for together they may be large."""
    channel.sendall(HEADER.pack(contents, len(files)))
    for file in files:
        channel.sendall(LENGTH.pack(len(file)) + file)


def decode_files(files: Iterable[bytes], count: int, contents: bool, target: Target) -> Records:
    """A record for each of so many files, given by path or by content."""
    records = np.zeros(count, record_type(target))
    for file, record in zip(files, records, strict=True):
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # which ends the process, also in a decoder's own code
        fill_record(record, file, contents, target)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return records


def fill_record(record: Any, file: bytes, contents: bool, target: Target) -> None:
    """Put what becomes of a file, given by path or by content, into its record; never raises for a bad file."""
    try:
        picture = decode(file if contents else read_file(file), target)
    except MemoryError:
        set_error(record, "takes too much memory to decode")
    except Exception as error:  # noqa: BLE001  whatever it is, it costs this file's row alone
        set_error(record, reason(error))
        record["missing"] = missing(error)
    else:
        record["pixels"], record["width"], record["height"] = picture.pixels, picture.width, picture.height
        record["kind"], record["clipped"] = KINDS.index(picture.kind), picture.clipped
        record["further"] = picture.further
        if picture.sample is not None:
            record["sample"] = picture.sample


def set_error(record: Any, text: str) -> None:
    """Put an error's text into a record, cut where it is too long."""
    record["error"] = text.encode()[:MOST_ERROR_BYTES].decode(errors="ignore").encode()


def answer() -> None:
    """Answer until the other side closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    os.nice(LEAST_URGENT)  # the network's threads wait for each other, and must not wait for this
    warnings.simplefilter("ignore")  # nobody reads them here, and none may become an error
    Image.MAX_IMAGE_PIXELS = None  # `convert` has a limit of its own
    with contextlib.suppress(ImportError, ValueError, OSError):  # where the system knows no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with socket.socket(fileno=0) as channel, channel.makefile("rb") as incoming:
        target = read_target(incoming)
        while header := incoming.read(HEADER.size):
            contents, count = HEADER.unpack(header)
            files = (_read_one(incoming) for _ in range(count))
            records = decode_files(files, count, contents, target)
            channel.sendall(records.view(np.uint8).data)


if __name__ == "__main__":
    answer()
