"""How long after a file is closed its row is on the disk, and what memory a process that watches takes.

    anomaly-ae train --normal 0,1,2 --scorer relative+latent-knn --save-to DETECTOR
    python pipelines/benchmarks/watch_latency.py DETECTOR [SECONDS=60] [BACKLOG=0]

A real `anomaly-ae watch` is started on a folder with BACKLOG pictures in it; when these have their rows, pictures
come at 10 a second, at times that are not even, and each is waited for in `rows.jsonl`, which is looked into every
millisecond. Printed are p50, p95 and the longest time from `close` to the row, and the resident memory on the way.
"""

import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from anomaly_ae.datasets.builtin import load_dataset

RATE = 10.0  # files a second


def memory(process: "subprocess.Popen[str]") -> float:
    """Resident, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kilobytes) / 1_024


def count_rows(output: Path) -> int:
    """Rows of shards and of JSON lines, at a moment when none is between the two."""
    shards = sum(pq.read_metadata(path).num_rows for path in (output / "shards").glob("*.parquet"))
    lines = [path.read_bytes().count(b"\n") for path in output.glob("rows*.jsonl")]
    return shards + sum(lines) if len(lines) < 2 else 0


class Rows:
    """Follows the rows as they are appended."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.file = path.open("rb")
        self.file.seek(0, os.SEEK_END)

    def wait(self, name: str, seconds: float) -> float | None:
        """When the row of a file was first seen, by `time.perf_counter`; None where it does not come."""
        end, text = time.perf_counter() + seconds, b""
        while time.perf_counter() < end:
            text += self.file.read()
            if f'"{name}"'.encode() in text:
                return time.perf_counter()
            time.sleep(0.001)
        return None


def work_off(output: Path, process: "subprocess.Popen[str]", backlog: int) -> None:
    """Wait until all that was there has a row."""
    for line in process.stderr or ():
        if line.startswith("watching "):
            break
    print(f"started: {memory(process):.0f} MB")
    began = time.perf_counter()
    while count_rows(output) < backlog:
        time.sleep(0.5)
    if backlog:
        print(
            f"{backlog:,} files that were there: {time.perf_counter() - began:.1f} s, then {memory(process):.0f} MB"
        )


def stream(folder: Path, output: Path, pictures: list[bytes], seconds: float) -> list[float]:
    """Seconds from the close of each file to its row."""
    generator, rows, times = random.Random(0), Rows(output / "rows.jsonl"), list[float]()
    end, i = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        name, due = f"new{i:06}.png", time.perf_counter() + generator.uniform(0.5, 1.5) / RATE
        (folder / name).write_bytes(pictures[i % len(pictures)])
        closed = time.perf_counter()
        seen = rows.wait(name, 5.0)
        times.append(5.0 if seen is None else seen - closed)
        time.sleep(max(0.0, due - time.perf_counter()))
        i += 1
    return sorted(times)


def main(detector: str, seconds: str = "60", backlog: str = "0") -> None:
    """Print what came out."""
    with tempfile.TemporaryDirectory() as place:
        folder, output, pictures = Path(place) / "in", Path(place) / "out", list[bytes]()
        folder.mkdir()
        for image in load_dataset("digits").files["train"].images[:200, 0].numpy():
            Image.fromarray(image).save(Path(place) / "one.png")
            pictures.append((Path(place) / "one.png").read_bytes())
        for i in range(int(backlog)):
            (folder / f"{i:06}.png").write_bytes(pictures[i % len(pictures)])
        command = [sys.executable, "-m", "anomaly_ae.cli", "watch", str(folder), "--output", str(output)]
        process = subprocess.Popen([*command, "--model", detector], stderr=subprocess.PIPE, text=True)
        try:
            work_off(output, process, int(backlog))
            times = stream(folder, output, pictures, float(seconds))
            p50, p95 = (1_000 * times[round(share * (len(times) - 1))] for share in (0.5, 0.95))
            print(f"{len(times):,} files at {RATE:g} a second: p50 {p50:.0f} ms, p95 {p95:.0f} ms, ", end="")
            print(f"longest {1_000 * times[-1]:.0f} ms; then {memory(process):.0f} MB")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
