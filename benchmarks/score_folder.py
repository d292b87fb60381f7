"""How fast a folder is scored, beside its parts and beside a plain loop: all in one run, so that the ratios hold.

    python benchmarks/score_folder.py --detector DETECTOR_FOLDER [--images 20000] [--large 1500] [--repeats 3]

Two folders are made: small PNGs of the detector's size and JPEGs of 1024×1024. For each, in turn:

    decoding   a: all files to pixels, by as many processes as there are cores
    detector   b: the same pixels, in memory already, to scores
    bound      1 / (1/a + 1/b): both one after the other, each with all cores; on a GPU the slower of the two
    score      `score_job`: the folder to a Parquet file, with its ledger
    loop       a plain loop: open, convert, score one file at a time

Printed are the medians of the repeats, images/s, and the ratios.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from anomaly_ae import Detector
from anomaly_ae.autoencoders.inference import exact_float32
from anomaly_ae.images.sources import open_source
from anomaly_ae.runtime.progress import hide_displays
from anomaly_ae.scoring.job import Job, score_job
from anomaly_ae.scoring.rows import read_batches
from anomaly_ae.storage.pixel_values import as_float

LARGE = 1_024  # pixels of a side
LOOPED = 500  # files of the plain loop, which is slow


def make_small(folder: Path, detector: Detector, count: int) -> None:
    """PNGs of blurred noise at the detector's size."""
    channels, height, width = detector.preprocessing.shape
    noise = np.random.default_rng(0).integers(0, 256, (64, height // 4 + 1, width // 4 + 1, channels), np.uint8)
    for i in range(count):
        image = Image.fromarray(noise[i % 64].squeeze())
        image.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{i:06}.png")


def make_large(folder: Path, count: int) -> None:
    """Colour JPEGs of 1024×1024 with the detail of a photo: the same few under many names."""
    generator = np.random.default_rng(0)
    for i in range(count):
        if i < 8:
            rough = generator.integers(0, 256, (128, 128, 3), np.uint8)
            Image.fromarray(rough).resize((LARGE, LARGE), Image.Resampling.BICUBIC).save(folder / f"{i:06}.jpg")
        else:
            shutil.copyfile(folder / f"{i % 8:06}.jpg", folder / f"{i:06}.jpg")


def decoding(detector: Detector, folder: Path) -> int:
    source = open_source(folder)
    listing = source.list()
    with detector.preprocessing.decoders(source) as decoders:
        return sum(len(batch.positions) for batch in read_batches(decoders, detector, listing))


def pixels(detector: Detector, folder: Path) -> torch.Tensor:
    source = open_source(folder)
    with detector.preprocessing.decoders(source) as decoders:
        return torch.cat([batch.images for batch in read_batches(decoders, detector, source.list())])


def scoring(detector: Detector, folder: Path) -> int:
    with tempfile.TemporaryDirectory() as place:
        job = Job(detector, detector.calibration, open_source(folder), Path(place) / "scores.parquet")
        return len(score_job(job).values)


@torch.inference_mode()
def loop(detector: Detector, folder: Path) -> int:
    """As one would write it: no batches, no padding, no processes."""
    channels, height, width = detector.preprocessing.shape
    device = next(detector.network.parameters()).device
    paths = sorted(folder.iterdir())[:LOOPED]
    for path in paths:
        image = Image.open(path).convert("L" if channels == 1 else "RGB").resize((width, height))
        array = np.asarray(image).reshape(1, height, width, channels).transpose(0, 3, 1, 2)
        batch = as_float(torch.from_numpy(array.copy()).to(device))
        with exact_float32(device.type):
            float(detector.scorer.score(batch, detector.network(batch)))
    return len(paths)


def rate(work: Callable[[], int]) -> float:
    """Images per second."""
    started = time.perf_counter()
    return work() / (time.perf_counter() - started)


def measure(name: str, detector: Detector, folder: Path, repeats: int) -> None:
    """All five of a folder, in turn, several times."""
    images = pixels(detector, folder)
    works: dict[str, Callable[[], int]] = {
        "decoding": lambda: decoding(detector, folder),
        "detector": lambda: len(detector.score(images)),
        "score": lambda: scoring(detector, folder),
        "loop": lambda: loop(detector, folder),
    }
    rates: dict[str, list[float]] = {kind: [] for kind in works}
    for _ in range(repeats):
        for kind, work in works.items():
            rates[kind].append(rate(work))
    a, b, scored, looped = (statistics.median(rates[kind]) for kind in works)
    on_cpu = next(detector.network.parameters()).device.type == "cpu"
    bound = 1 / (1 / a + 1 / b) if on_cpu else min(a, b)
    print(f"{name}: {len(images):,} files, {detector.config.scorer}")
    for kind, value in {"decoding": a, "detector": b, "bound": bound, "score": scored, "loop": looped}.items():
        print(f"  {kind:<10}{value:>10,.0f} images/s")
    ratios = {"score / bound": scored / bound, "score / loop": scored / looped, "bound / loop": bound / looped}
    print("  " + " · ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--detector", required=True, help="a saved detector's folder")
    parser.add_argument("--images", type=int, default=20_000, help="small PNGs")
    parser.add_argument("--large", type=int, default=1_500, help="JPEGs of 1024×1024")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    hide_displays()
    detector = Detector.load(asked.detector)
    print(f"on {next(detector.network.parameters()).device}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as place:
        small, large = Path(place) / "small", Path(place) / "large"
        for folder in (small, large):
            folder.mkdir()
        make_small(small, detector, asked.images)
        make_large(large, asked.large)
        measure(f"PNG {'×'.join(map(str, detector.preprocessing.shape[1:]))}", detector, small, asked.repeats)
        measure(f"JPEG {LARGE}×{LARGE}", detector, large, asked.repeats)


if __name__ == "__main__":
    main()
