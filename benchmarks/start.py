"""Seconds from a command to its end, and to the first that it shows, each in a new process.

    python benchmarks/start.py                     this checkout
    python benchmarks/start.py --against ../before the same commands of another checkout too, in turn, and the ratio

The digits are bundled; run it on an otherwise idle machine. Needs nothing but what anomaly-ae needs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parents[1]
FEW, MANY = 500, 5_000  # tiny epochs, which must cost the same; those of fewer are lost in what is done once


@dataclass(frozen=True)
class Timed:
    """A command, and a text that its first result holds."""

    arguments: tuple[str, ...]
    first: str = ""


COMMANDS = (
    Timed(("train", "--normal", "0,1,2"), "epoch 1/"),
    Timed(("evaluate",), "AUROC"),
    Timed(("scorers",)),
    Timed(("autoencoders",)),
    Timed(("datasets",)),
    Timed(("score", "pictures"), "anomalous"),
)


def run(tree: Path, folder: Path, command: Timed) -> tuple[float, float]:
    """Seconds to the first result and to the end. Raises `CalledProcessError`."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "anomaly_ae.cli", *command.arguments]
    began, first = time.perf_counter(), 0.0
    with subprocess.Popen(
        words, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if not first and command.first in line:
                first = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return first, time.perf_counter() - began


def per_epoch(tree: Path, folder: Path, epochs: int) -> float:
    """Milliseconds of an epoch of a training of so many, but for what is done once."""
    settings = ("--normal", "0", "--autoencoder", "vanilla", "--latent", "2", "--scorer", "mse", "--no-tracking")
    once, all_of_them = (
        run(tree, folder, Timed(("train", *settings, "--epochs", str(count))))[1] for count in (1, epochs)
    )
    return 1000 * (all_of_them - once) / (epochs - 1)


def measure(trees: Sequence[Path], times: int) -> None:
    """Print a line for each command: the medians of each tree, and the ratio of the first to the last."""
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / str(i) for i in range(len(trees))]
        for folder in folders:
            (folder / "pictures").mkdir(parents=True)
            for i, image in enumerate(np.random.default_rng(0).integers(0, 255, (10, 8, 8), np.uint8)):
                Image.fromarray(image).save(folder / "pictures" / f"{i}.png")
        print(f"{'command':<24} {'first result':>24} {'end':>24}   seconds, median of {times}")
        for command in COMMANDS:
            took = [[run(*pair, command) for pair in zip(trees, folders, strict=True)] for _ in range(times)]
            medians = [
                [statistics.median(each[i][part] for each in took) for i in range(len(trees))] for part in (0, 1)
            ]
            print(f"{' '.join(command.arguments):<24} {told(medians[0]):>24} {told(medians[1]):>24}", flush=True)
        for count in (FEW, MANY):
            each = [per_epoch(*pair, count) for pair in zip(trees, folders, strict=True)]
            print(f"{f'an epoch of {count:,}, in ms':<24} {'':>24} {told(each):>24}", flush=True)


def told(values: Sequence[float]) -> str:
    """The values, and how many times the first of them the last is."""
    text = "  ".join(f"{value:6.2f}" for value in values)
    return text if len(values) == 1 or not values[0] else f"{text}  ×{values[-1] / values[0]:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    measure([HERE, *([asked.against.resolve()] if asked.against else [])], asked.times)
