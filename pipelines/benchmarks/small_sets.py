"""How far few normal images go: AUROC, detection and the realised false-alarm rate against their number.

n normal images are drawn, 5 to 250, and the tool makes a detector of them as it does by itself: of `digits` and
`mnist` (0, 1 and 2 normal) by `AutoencoderDetector`, of `cookies` and `magnetic-tile` (MVTec's layout) as `train`
would of a folder of n pictures, which takes the preset surface. It is asked for a false-alarm rate of 0.1, or where
so few images cannot hold that, the smallest rate that they can. False alarms are counted on normal images that were
not drawn, at most 500: of digits those of the same file, of photos those of `test/good`, then of `train/good`.

    python pipelines/benchmarks/small_sets.py digits|mnist|cookies|magnetic-tile DIR [DRAWS [N,N,…]]
    python pipelines/benchmarks/small_sets.py table

Each draw is a line of results/small-sets-DATA.csv as soon as it is done, and is not done again. `table` makes
results/small-sets.md and docs/small-sets.png of all of them.
"""

import csv
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

from anomaly_ae import AutoencoderDetector, Detector, RunConfig  # isort: skip  # before torch, whose threads it keeps from spinning
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from anomaly_ae.calibration.rates import smallest_rate
from anomaly_ae.config.run_config import CROSS
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.fit import fit
from anomaly_ae.errors import CalibrationError, TooFewRows
from anomaly_ae.metrics.ranking import Floats, delong
from anomaly_ae.reporting.figures.style import NORMAL, NOVEL, plots
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.tables import markdown_table
from anomaly_ae.storage.atomic import write_text, write_with
from anomaly_ae.workflows.resolve import resolve

RATE, DIGITS, MOST_TEST = 0.1, 3, 500  # the digits below are normal
COUNTS = {
    "digits": (5, 10, 20, 30, 50, 100, 200),
    "mnist": (5, 10, 20, 30, 50, 100, 200),
    "cookies": (5, 10, 20, 31),
    "magnetic-tile": (5, 10, 20, 30, 50, 100, 200, 250),
}
COLOURS = dict(zip(COUNTS, (NORMAL, "#66ccee", NOVEL, "#ccbb44"), strict=True))
RESULTS = Path(__file__).parent / "results"
FIGURE = Path(__file__).parents[2] / "docs" / "small-sets.png"
Scored = tuple[Detector, Floats, Floats]  # with the scores of normal images that were not drawn, and of novel ones


@dataclass(frozen=True)
class Trial:
    """What a detector of n drawn images came to.

    learned, calibrate: how many of them the network learned from, and how many set the threshold; with `cross` both
    asked, proven: the false-alarm rate asked for, and what is proven of it
    normal, novel: how many images it was measured with
    """

    n: int
    draw: int
    guarantee: str
    learned: int
    calibrate: int
    asked: float
    proven: float
    normal: int
    novel: int
    auroc: float
    detected: float
    realised: float
    seconds: float


def digits(dataset: str, folder: str) -> Callable[[int, int], Scored]:
    """The estimator, of digits."""
    data = load_dataset(dataset, folder).files["train"]
    is_normal = data.labels < DIGITS

    def make(count: int, draw: int) -> Scored:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(draw))
        normal, novel = order[is_normal[order]], order[~is_normal[order]][:MOST_TEST]
        estimator = AutoencoderDetector(target_fpr=RATE, random_state=draw, device="cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TooFewRows)  # what it can hold instead is a column of the table
            estimator.fit(data.images[normal[:count]].numpy())
        fresh, others = (
            -estimator.score_samples(data.images[which].numpy()) for which in (normal[count:][:MOST_TEST], novel)
        )
        return estimator.detector_, fresh, others

    return make


def photos(dataset: str, folder: str) -> Callable[[int, int], Scored]:
    """What `train` makes of a folder of photos."""
    root = Path(folder) / dataset
    good, fresh = (sorted((root / part / "good").iterdir()) for part in ("train", "test"))
    novel = [
        path for kind in sorted((root / "test").iterdir()) if kind.name != "good" for path in sorted(kind.iterdir())
    ]

    def make(count: int, draw: int) -> Scored:
        order = torch.randperm(len(good), generator=torch.Generator().manual_seed(draw)).tolist()
        drawn, others = ([good[i] for i in part] for part in (order[:count], order[count:]))
        with tempfile.TemporaryDirectory() as place:
            for part, paths in {"train/good": drawn, "test/good": fresh[:1], "test/bad": novel[:1]}.items():
                folder = Path(place) / part  # with tests of their own, all that is drawn is learned from
                folder.mkdir(parents=True)
                for path in paths:
                    (folder / path.name).symlink_to(path)
            detector = trained(RunConfig(dataset=place, target_fpr=RATE, seed=draw, device="cpu"))
        return detector, *(score(detector, paths) for paths in ((fresh + others)[:MOST_TEST], novel))

    return make


def trained(config: RunConfig) -> Detector:
    """The detector of a training, at the smallest rate that is possible where the one asked for is not."""
    home = RunStore.find()  # where nothing is kept
    try:
        experiment, data = resolve(config, home)
    except CalibrationError:
        _, data = resolve(replace(config, target_fpr=0.5), home)
        rate = smallest_rate(len(data.images["calibration"]), CROSS)
        experiment, data = resolve(replace(config, target_fpr=rate), home)
    return fit(experiment, data.images, data.split)


def score(detector: Detector, paths: Sequence[Path]) -> Floats:
    """The scores of pictures, (N,)."""
    scores = []
    for path in paths:
        with Image.open(path) as picture:
            scores.append(detector.score([picture]))
    return torch.cat(scores).numpy()


def trial(count: int, draw: int, make: Callable[[int, int], Scored]) -> Trial:
    """Make a detector and measure it."""
    began = time.monotonic()
    detector, normal, novel = make(count, draw)
    calibration, split = detector.calibration, detector.split
    return Trial(
        n=count,
        draw=draw,
        guarantee=calibration.guarantee,
        learned=split.trainable if calibration.guarantee == CROSS else len(split.fit.indices),
        calibrate=len(calibration.scores),
        asked=calibration.target_fpr,
        proven=float(calibration.proven_fpr or np.nan),
        normal=len(normal),
        novel=len(novel),
        auroc=delong(novel, normal)[0],
        detected=float((novel > detector.threshold).mean()),
        realised=float((normal > detector.threshold).mean()),
        seconds=time.monotonic() - began,
    )


def kept(dataset: str) -> list[Trial]:
    """The draws that are done."""
    path = RESULTS / f"small-sets-{dataset}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Trial(**{f.name: f.type(row[f.name]) for f in fields(Trial)}) for row in csv.DictReader(file)]


def run(dataset: str, folder: str, draws: int, counts: Sequence[int]) -> None:
    """Do the draws that are missing, of each number of images the first before the second of any."""
    path, done = RESULTS / f"small-sets-{dataset}.csv", {(each.n, each.draw) for each in kept(dataset)}
    logger.setLevel(logging.WARNING)
    make = (digits if dataset in ("digits", "mnist") else photos)(dataset, folder)
    for draw, count in product(range(draws), counts):
        if (count, draw) in done:
            continue
        row = asdict(trial(count, draw, make))
        print(row, flush=True)
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            if is_new:
                writer.writeheader()
            writer.writerow(row)


@dataclass(frozen=True)
class Point:
    """The draws of a data set with one number of images: means and their standard errors over draws."""

    dataset: str
    trials: list[Trial]

    def mean(self, key: str) -> float:
        return fmean(getattr(each, key) for each in self.trials)

    def error(self, key: str) -> float:
        values = [getattr(each, key) for each in self.trials]
        return stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")

    def row(self) -> dict[str, str]:
        """A line of the table."""
        first = self.trials[0]
        return {
            "data": self.dataset,
            "normal images": str(first.n),
            "guarantee": first.guarantee,
            "set the threshold": str(first.calibrate),
            "asked": f"{first.asked:.3g}",
            "proven": f"{first.proven:.3g}",
            "realised": f"{self.mean('realised'):.1%} ± {self.error('realised'):.1%}",
            "detected": f"{self.mean('detected'):.1%} ± {self.error('detected'):.1%}",
            "AUROC": f"{self.mean('auroc'):.4f} ± {self.error('auroc'):.4f}",
            "draws": str(len(self.trials)),
        }


def points() -> Iterator[Point]:
    """All that are there."""
    for dataset in COUNTS:
        trials = kept(dataset)
        for count in sorted({each.n for each in trials}):
            yield Point(dataset, [each for each in trials if each.n == count])


def table() -> None:
    """Write what is kept as a table and a figure."""
    found = list(points())
    text = markdown_table([point.row() for point in found])
    write_text(RESULTS / "small-sets.md", f"# Few normal images\n\nMeans over draws ± standard error.\n\n{text}\n")
    write_with(FIGURE, partial(draw(found).savefig, dpi=130, format="png"))
    print(text)


def draw(found: Sequence[Point]) -> Figure:
    """AUROC, detection and realised rate against the number of images, with standard errors."""
    figure, axes = plots(3, (13, 4.4))
    for panel, key in zip(axes, ("auroc", "detected", "realised"), strict=True):
        for dataset in dict.fromkeys(point.dataset for point in found):
            line([point for point in found if point.dataset == dataset], key, panel)
        panel.set(xscale="log", xlabel="normal images")
        ticks = sorted({count for counts in COUNTS.values() for count in counts} - {31, 250})
        panel.set_xticks(ticks, list(map(str, ticks)))
        panel.xaxis.set_minor_locator(NullLocator())
    axes[0].set_title("AUROC")
    axes[1].set(title="anomalies detected", ylim=(-0.02, 1.02))
    axes[2].set(title="false-alarm rate: realised, and asked (dotted)", ylim=(-0.005, None))
    axes[0].legend(loc="lower right")
    return figure


def line(of_set: Sequence[Point], key: str, panel: Axes) -> None:
    """A data set in a panel."""
    name = of_set[0].dataset
    counts = [point.trials[0].n for point in of_set]
    guarantees = dict.fromkeys(point.trials[0].guarantee for point in of_set)
    panel.errorbar(
        counts,
        [point.mean(key) for point in of_set],
        [point.error(key) for point in of_set],
        fmt="o-",
        markersize=4,
        capsize=2,
        color=COLOURS[name],
        label=f"{name} ({', '.join(guarantees)})",
    )
    if key == "realised":
        panel.plot(counts, [point.mean("asked") for point in of_set], ":", color=COLOURS[name])


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "table":
        table()
    else:
        folder, draws, counts = (*arguments, *("", "5", "")[len(arguments) :])
        run(command, folder, int(draws), [int(count) for count in counts.split(",") if count] or COUNTS[command])
