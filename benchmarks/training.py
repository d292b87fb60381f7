"""How fast training is beside the loop that one would write, and how soon it is good.

    python benchmarks/training.py --data-dir DIR               # all of it; MNIST lies there, in torchvision's layout
    python benchmarks/training.py --data-dir DIR steps quality # these parts: steps, quality, commands, scoring

Each part takes its sides in turn, round after round, and prints the median of each with the slowest and the fastest.
All that was printed is kept in benchmarks/results/training.md and .json. It runs from source where MLflow is not, but
for `commands`. How to read it: benchmarks/README.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import anomaly_ae  # isort: skip  # before torch, whose threads it keeps from spinning
import scoring
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from anomaly_ae.augmentation.corruption import Corrupted
from anomaly_ae.autoencoders import Autoencoder, Outputs
from anomaly_ae.autoencoders.autoencoder import Prepared
from anomaly_ae.autoencoders.inference import map_images
from anomaly_ae.autoencoders.twins import Twins, part_count
from anomaly_ae.config.run_config import BFLOAT16, RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import prepare
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.metrics.ranking import ranking
from anomaly_ae.runtime.machine import usable_cores
from anomaly_ae.runtime.tables import markdown_table, plain_table
from anomaly_ae.runtime.torch_state import thread_map
from anomaly_ae.storage.pixel_values import as_float
from anomaly_ae.training import Training, train_epochs

HERE, RESULTS = Path(__file__).resolve().parents[1], Path(__file__).resolve().parent / "results" / "training"
BATCH, ROUNDS, PAIRS = 128, 5, 20
NORMAL, REACHED = (0, 1, 2), (0.99, 0.995)
MOST_SECONDS = 120  # that a textbook loop may take to reach a quality
NETWORKS = {  # the shape of the images, how many there are, and images in a batch
    "strided-32": ((1, 28, 28), 12_800, BATCH),
    "conv": ((1, 28, 28), 12_800, BATCH),
    "deep-cnn": ((1, 28, 28), 2_560, BATCH),
    "repair": ((1, 128, 128), 64, 16),
    "feature-conv": ((3, 224, 224), 16, 8),
}
LAUNCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
Row = dict[str, object]
Work = Callable[[], float]  # does something, and says how many seconds of it count


class Files(Dataset[tuple[Tensor, int]]):
    """Images, uint8 (N, C, H, W), as torchvision's data sets have them: a Pillow image at a time, made a tensor."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.to_image, self.to_tensor = images, transforms.ToPILImage(), transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.to_tensor(self.to_image(self.images[index])), 0


def textbook(made: Experiment, data: Dataset[tuple[Tensor, int]], workers: int, batch: int) -> float:
    """One epoch as every tutorial has it: `DataLoader`, Adam, the network's own loss, read after each step."""
    network, device = made.network, next(made.network.parameters()).device
    loader = DataLoader(data, batch_size=batch, shuffle=True, num_workers=workers)
    optimizer, total = torch.optim.Adam(network.parameters(), lr=1e-3), 0.0
    network.train()
    started = time.perf_counter()
    for images, _ in loader:
        images = images.to(device)
        optimizer.zero_grad()
        loss = made.objective(images, network(images))
        loss.backward()
        optimizer.step()
        total += loss.item()
    return time.perf_counter() - started


def in_memory(made: Experiment, images: Tensor, batch: int) -> float:
    """The same with the images in a tensor of bytes, which are taken from it a batch at a time."""
    network, device = made.network, next(made.network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network.train()
    started = time.perf_counter()
    for chosen in torch.randperm(len(images)).split(batch):
        seen = images[chosen].to(device).float() / 255
        optimizer.zero_grad()
        loss = made.objective(seen, network(seen))
        loss.backward()
        optimizer.step()
        loss.item()
    return time.perf_counter() - started


def ours(training: Training, prepared: Prepared, advance: Callable[[int, str], None]) -> float:
    """One epoch of the tool's own loop, with its display; the seconds that it says."""
    return next(train_epochs(training, prepared.fit, prepared.validation, advance)).seconds


def bare(training: Training, like: Training, seen: Tensor, steps: int) -> float:
    """So many times the forward, loss, backward and optimiser of the tool's own step, on one batch.

    like: a training whose precision it has
    """
    training.network.train()
    is_short = like.precision == BFLOAT16
    parts = part_count(training.network, len(seen), seen.numel())
    twins, given = Twins(training.network, parts), Corrupted(seen, None)

    def loss_of(network: Autoencoder, images: Tensor, _: Corrupted) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=is_short):
            outputs = network(images)
        return training.objective(images, outputs.float())

    started = time.perf_counter()
    with thread_map(parts) as run:
        for _ in range(steps):
            twins.backward(loss_of, seen, given, run)
            training.optimizer.step(1e-3)
            twins.forget()
        _finish(seen)
    return time.perf_counter() - started


def _finish(tensor: Tensor) -> None:
    """Wait for the device of a tensor."""
    if tensor.device.type == "cuda":
        torch.cuda.synchronize()


def in_turn(works: Mapping[str, Work], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of each, in rounds in which all take their turn; a first round, which warms up, does not count."""
    taken = [{name: work() for name, work in works.items()} for _ in range(1 + rounds)]
    return {name: [each[name] for each in taken[1:]] for name in works}


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the greatest."""
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def experiment(name: str, shape: tuple[int, int, int], batch: int, device: str, number: int = 0) -> Experiment:
    """What is needed to train one network."""
    config = RunConfig(normal="0", autoencoder=name, epochs=1_000, batch_size=batch, device=device, seed=number)
    made = Experiment.build(config, Preprocessing(*shape), ("normal",), ("normal",))
    made.network.to(device)
    return made


def steps(device: str, _: Path) -> list[Row]:
    """Images trained on a second, of several networks."""
    rows: list[Row] = []
    for name, (shape, count, batch) in NETWORKS.items():
        images, made = scoring.images(count, shape, 0), partial(experiment, name, shape, batch, device)
        own, stepped, *plain = (made() for _ in range(5))
        training, stepping = (
            Training(each.network, each.config, each.objective, each.augment) for each in (own, stepped)
        )
        prepared = prepare(own, images, images[:batch])
        seen = as_float(prepare(stepped, images[:batch], images[:batch]).fit[:batch].to(device))
        repeats = max(1, len(prepared.fit) // batch)
        pair = {
            "anomaly-ae": partial(ours, training, prepared, lambda *_: None),
            "bare step": partial(bare, stepping, training, seen, repeats),
        }
        plainly = {
            "textbook, 0 workers": partial(textbook, plain[0], Files(images), 0, batch),
            "textbook, 2 workers": partial(textbook, plain[1], Files(images), 2, batch),
            "tensors in memory": partial(in_memory, plain[2], images, batch),
        }
        seconds, pairs = in_turn(plainly | pair), in_turn(pair, PAIRS)
        counts = dict.fromkeys(seconds, count) | {"anomaly-ae": len(prepared.fit), "bare step": repeats * len(seen)}
        rates = {side: [counts[side] / each for each in taken] for side, taken in seconds.items()}
        best = max(median(rates["textbook, 0 workers"]), median(rates["textbook, 2 workers"]))
        row: Row = {"network": f"{name}, {'×'.join(map(str, shape))}", "anomaly-ae in": training.precision}
        row |= {side: spread(each) for side, each in rates.items()}
        row["to the textbook"] = f"{median(rates['anomaly-ae']) / best:.2f}"
        low, middle, high = quantiles(
            [one / other for one, other in zip(pairs["bare step"], pairs["anomaly-ae"], strict=True)]
        )
        row["to the bare step"] = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        rows.append(row)
    return rows


def mnist(data_dir: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Normal images of the training file, all of the test file, uint8 (N, 1, 28, 28), and whether those are novel."""
    files = load_dataset("mnist", str(data_dir)).files
    train, test = files["train"], files["test"]
    normal, novel = torch.isin(train.labels, torch.tensor(NORMAL)), ~torch.isin(test.labels, torch.tensor(NORMAL))
    return train.images[normal], test.images, novel


def quality(device: str, data_dir: Path) -> list[Row]:
    """Seconds of training until an AUROC on MNIST's test file is reached. The tool's own training is at its settings,
    and ends when it ends; the epochs are tested by the weights of the moment, which is not counted.
    """
    images, tested, novel = mnist(data_dir)
    fit, validation = images[: len(images) * 9 // 10], images[len(images) * 9 // 10 :]
    rows: list[Row] = []
    for preset in ("fast", "default"):
        for kept in (0, 1, 2):
            rows.append(_ours_to_quality(preset, kept, fit, validation, tested, novel, device))
    for kept in (0, 1, 2):
        rows.append(_textbook_to_quality(kept, fit, tested, novel, device))
    try:
        rows.append(_pyod_to_quality(fit, tested, novel))
    except ImportError:
        print("PyOD is not installed (pip install pyod), and is left out", file=sys.stderr)
    return rows


def _ours_to_quality(
    preset: str, number: int, fit: Tensor, validation: Tensor, tested: Tensor, novel: Tensor, device: str
) -> Row:
    made = Experiment.build(
        RunConfig(normal="0", preset=preset, seed=number, device=device), Preprocessing(1, 28, 28), ("0",), ("0",)
    )
    training = Training(made.network.to(device), made.config, made.objective, made.augment)
    prepared, seconds, areas = prepare(made, fit, validation), 0.0, []
    for epoch in train_epochs(training, prepared.fit, prepared.validation):
        seconds += epoch.seconds
        scorer = fit_scorer(made.scorer, training.network, fit, validation, made.config)
        scores = scorer.score_all(training.network, tested)
        areas.append((seconds, ranking(scores.numpy(), novel.numpy()).auroc))
    return _reached(f"anomaly-ae, --preset {preset}", number, areas)


def _textbook_to_quality(number: int, fit: Tensor, tested: Tensor, novel: Tensor, device: str) -> Row:
    made, seconds, areas = (
        experiment("strided-32", (1, 28, 28), BATCH, device, number),
        0.0,
        list[tuple[float, float]](),
    )
    while seconds < MOST_SECONDS and (not areas or areas[-1][1] < REACHED[-1]):
        seconds += textbook(made, Files(fit), 0, BATCH)
        scores = map_images(made.network, tested, _squared_error)
        areas.append((seconds, ranking(scores.numpy(), novel.numpy()).auroc))
    return _reached("textbook, strided-32, MSE", number, areas)


def _squared_error(images: Tensor, outputs: Outputs) -> Tensor:
    return (images - outputs.reconstruction).square().mean(dim=(1, 2, 3))


def _pyod_to_quality(fit: Tensor, tested: Tensor, novel: Tensor) -> Row:
    from pyod.models.auto_encoder import AutoEncoder

    detector, started = AutoEncoder(verbose=0), time.perf_counter()
    detector.fit(fit.flatten(1).numpy() / 255.0)
    seconds = time.perf_counter() - started
    scores = detector.decision_function(tested.flatten(1).numpy() / 255.0)
    return _reached("PyOD's AutoEncoder, as it comes", 0, [(seconds, ranking(scores, novel.numpy()).auroc)])


def _reached(side: str, number: int, areas: Sequence[tuple[float, float]]) -> Row:
    """A row: seconds until each AUROC, and what it was at the end."""
    until = {
        f"seconds to {wanted}": next((f"{seconds:.1f}" for seconds, area in areas if area >= wanted), "not reached")
        for wanted in REACHED
    }
    end = {"seconds in all": f"{areas[-1][0]:.1f}", "AUROC then": f"{areas[-1][1]:.4f}"}
    return {"side": side, "seed": number, **until, **end}


def commands(device: str, data_dir: Path) -> list[Row]:
    """Seconds from command to exit on MNIST, and the most memory that the process held."""
    asked = ["--dataset", "mnist", "--normal", "0,1,2", "--device", device]
    rows = list[Row]()
    for preset in ("fast", "default"):
        with tempfile.TemporaryDirectory() as folder:
            for words in (["train", *asked, "--preset", preset], ["evaluate"]):
                seconds, megabytes = command([*words, "--data-dir", str(data_dir.resolve())], folder)
                row = {
                    "command": words[0],
                    "preset": preset,
                    "seconds": f"{seconds:.1f}",
                    "peak MB": f"{megabytes:,.0f}",
                }
                rows.append(row)
    return rows


def command(words: Sequence[str], folder: str) -> tuple[float, float]:
    """Seconds and megabytes of a command; one that fails ends all with what it said. A small process starts it, for a
    process counts as its own the memory that the one it was started from held.
    """
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", LAUNCHER, sys.executable, "-m", "anomaly_ae.cli", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        sys.exit(f"anomaly-ae {' '.join(words)} failed\n{ended.stderr}")
    return time.perf_counter() - started, int(ended.stdout) / 1024  # kilobytes on Linux


def scorers(device: str, _: Path) -> list[Row]:
    """Images scored a second by each scorer, beside the network alone; on the CPU."""
    return scoring.rows(scoring.SCORERS)


def described() -> dict[str, str]:
    """The machine, in words."""
    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        name = next(
            (line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), name
        )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": name,
        "cores": f"{usable_cores()}",
        "threads of torch": f"{torch.get_num_threads()}",
        "GPU": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "anomaly-ae": anomaly_ae.__version__,
    }


PARTS: dict[str, Callable[[str, Path], list[Row]]] = {
    "steps": steps,
    "quality": quality,
    "commands": commands,
    "scoring": scorers,
}


def main() -> None:
    """Print the parts that were asked for, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where MNIST lies")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    RESULTS.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULTS.with_suffix(".json").read_text()) if RESULTS.with_suffix(".json").exists() else {}
    for name in asked.parts or PARTS:
        rows = PARTS[name](asked.device, asked.data_dir)
        kept[name] = {"machine": described(), "rows": rows}
        print("\n".join(["", PARTS[name].__doc__ or "", *plain_table(rows)]), flush=True)
        RESULTS.with_suffix(".json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        RESULTS.with_suffix(".md").write_text(_page(kept))


def _page(kept: Mapping[str, Any]) -> str:
    """What is kept, as Markdown."""
    parts = ["# What benchmarks/training.py printed last"]
    for name, part in kept.items():
        machine = ", ".join(f"{key} {value}" for key, value in part["machine"].items())
        parts += [f"## {name}", machine, markdown_table(part["rows"])]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
