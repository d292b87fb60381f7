"""What `train --from RUN --add-marks FILE` does: false alarms among fresh pictures of a new kind of normal, and what
becomes of the old kind.

    python pipelines/benchmarks/learning.py slanted|thicker|moved|cookies DIR [SEEDS=5] [DRAWS=1] [MARKED]

DIR holds MNIST, or `cookies` in MVTec's layout. For each seed a detector is trained on the old kind of normal. Then,
DRAWS times, some pictures of the new kind are drawn and marked good, MARKED of them, and it is gone on with.

slanted, thicker, moved: 0, 1 and 2 are normal, scorer relative+latent-knn, a rate of 0.05; the test digits in a new
hand, 200 of the normal ones marked, and the others measured in both hands
cookies: 20 of the 45 normal photos are trained on as they are, 10 are marked under a warm and darker light, and the
    other 15 are measured under both; what `train --dataset` takes by itself, at a rate of 0.1, for so few hold no
    lower one; each seed draws all anew

Every cell of the table is before → after. It is printed, and kept as results/learning-KIND.md, with a MARKED of one's
own as learning-KIND-MARKED.md.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from anomaly_ae import Detector, RunConfig, train, train_from  # isort: skip  # before torch, whose threads it keeps from spinning
import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.stats import t
from torch import Tensor
from torch.nn import functional

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.images.sources import open_source
from anomaly_ae.metrics.ranking import proportion_interval, ranking
from anomaly_ae.runs.store import RunStore
from anomaly_ae.scoring.marks import GOOD, MARKS_ENDING, Mark, MarkFile
from anomaly_ae.storage.atomic import write_text

DIGITS, COOKIES = 3, "cookies"  # normal are the digits below
TRAINED, MARKED = 20, {COOKIES: 10}  # photos
CAST = (0.8, 0.5, 0.3)  # of red, green and blue: the new light, in which most good photos of the first seed alarm
COLUMNS = {"auroc": "AUROC", "alarms": "false alarms", "found": "detected"}
Scores = dict[str, float]  # by the files' names


@dataclass(frozen=True)
class Pictures:
    """A detector's settings, and folders of pictures: the same in the old and the new kind, under the same names.

    measured: those that are in no training, of which the marked ones are drawn unless they are `marked` already
    """

    config: RunConfig
    old: tuple[Path, Path]  # normal, novel
    new: tuple[Path, Path]
    measured: list[str]
    marked: list[str]

    def draw(self, count: int, number: int) -> tuple[list[str], list[str]]:
        """Some to mark, and some to measure."""
        if self.marked:
            return self.marked, self.measured
        order = torch.randperm(len(self.measured), generator=torch.Generator().manual_seed(number)).tolist()
        names = [self.measured[i] for i in order]
        return names[:count], names[count:]


@dataclass(frozen=True)
class Kind:
    """What a detector makes of one kind of pictures."""

    auroc: float
    alarms: float
    found: float
    count: int  # false alarms
    normal: int


def slanted(images: Tensor) -> Tensor:
    """By half of their height."""
    slant = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0]])[None].expand(len(images), 2, 3)
    grid = functional.affine_grid(slant, list(images.shape), align_corners=False)
    return functional.grid_sample(images.float(), grid, align_corners=False).round().clamp(0, 255).to(torch.uint8)


def thicker(images: Tensor) -> Tensor:
    """Each pixel the brightest of the 2×2 that it is a corner of."""
    return functional.max_pool2d(functional.pad(images.float(), (1, 0, 1, 0)), 2, 1).to(torch.uint8)


def moved(images: Tensor) -> Tensor:
    """By two pixels to the right and down."""
    return images.roll((2, 2), dims=(2, 3))


HANDS: dict[str, Callable[[Tensor], Tensor]] = {"slanted": slanted, "thicker": thicker, "moved": moved}


def digits(hand: str, data_dir: str, place: Path, seed: int) -> Pictures:
    """MNIST; the folders are made once for all seeds."""
    test = load_dataset("mnist", data_dir).files["test"]
    is_normal = test.labels < DIGITS
    names = [f"{i:05}.png" for i in range(len(test))]
    for kind, images in (("old", test.images), ("new", HANDS[hand](test.images))):
        normal, novel = place / kind / "normal", place / kind / "novel"
        if not normal.exists():
            normal.mkdir(parents=True)
            novel.mkdir()
            for name, image, keeps in zip(names, images, is_normal.tolist(), strict=True):
                Image.fromarray(image[0].numpy()).save((normal if keeps else novel) / name)
    config = RunConfig(dataset="mnist", data_dir=data_dir, normal="0-2", scorer="relative+latent-knn", seed=seed)
    old, new = ((place / kind / "normal", place / kind / "novel") for kind in ("old", "new"))
    return Pictures(config, old, new, [names[i] for i in torch.nonzero(is_normal).flatten().tolist()], [])


def cookies(data_dir: str, place: Path, seed: int, marked: int) -> Pictures:
    """Photos of cookies, of which each seed draws others."""
    place, source = place / str(seed), Path(data_dir) / COOKIES
    good, cracked = (sorted(source.glob(f"*/{name}/*.jpg")) for name in ("good", "cracked"))
    order = torch.randperm(len(good), generator=torch.Generator().manual_seed(seed)).tolist()
    good = [good[i] for i in order]
    old, new = place / "old", place / "new"
    folders = [old / "train" / "good", old / "test" / "good", old / "test" / "cracked", new / "good", new / "cracked"]
    for folder in folders:
        folder.mkdir(parents=True)
    fit, normal, novel, new_normal, new_novel = folders
    as_it_is = (1.0, 1.0, 1.0)
    light(good[:TRAINED], fit, as_it_is)
    light(good[TRAINED + marked :], normal, as_it_is)
    light(cracked, novel, as_it_is)
    light(good[TRAINED:], new_normal, CAST)
    light(cracked, new_novel, CAST)
    names = [f"{path.stem}.png" for path in good[TRAINED:]]
    config = RunConfig(dataset=str(old), target_fpr=0.1, seed=seed)
    return Pictures(config, (normal, novel), (new_normal, new_novel), names[marked:], names[:marked])


def light(photos: Sequence[Path], folder: Path, cast: tuple[float, float, float]) -> None:
    """Keep photos as PNG, the brightness of red, green and blue so many times as high."""
    for path in photos:
        with Image.open(path) as photo:
            pixels = np.asarray(ImageOps.exif_transpose(photo).convert("RGB")) * np.array(cast)
        Image.fromarray(pixels.round().astype(np.uint8)).save(folder / f"{path.stem}.png")


def mark(folder: Path, names: Sequence[str], file: Path) -> Path:
    """A file of marks that call some pictures of a folder good."""
    source, marks = open_source(folder), MarkFile(file)
    for name in names:
        marks.append(Mark.of(source, name.encode(), GOOD))
    return file


def scores_of(detector: Detector, folders: tuple[Path, Path]) -> tuple[Scores, Scores]:
    """Of the normal and of the novel pictures."""
    normal, novel = ({row["path"]: row["score"] for row in detector.score_folder(each)} for each in folders)
    return normal, novel


def measure(detector: Detector, scores: tuple[Scores, Scores], measured: Sequence[str]) -> Kind:
    """By the novel pictures and those of the normal ones that are to be measured."""
    normal, novel = np.array([scores[0][name] for name in measured]), np.array(list(scores[1].values()))
    rank = ranking(np.concatenate([normal, novel]), np.repeat([False, True], [len(normal), len(novel)]))
    alarms, found = normal > detector.threshold, novel > detector.threshold
    return Kind(rank.auroc, float(alarms.mean()), float(found.mean()), int(alarms.sum()), len(normal))


Trial = dict[tuple[str, str], Kind]  # by kind, and before or after


def trials(pictures: Pictures, home: RunStore, place: Path, draws: int, count: int) -> list[Trial]:
    """Train, and go on as often as there are draws."""
    folders = {"old": pictures.old, "new": pictures.new}
    run = train(pictures.config, home=home, tracking=False, figures=False)
    before = Detector.load(Path(run.run_folder) / "detector")
    scored, results = {kind: scores_of(before, each) for kind, each in folders.items()}, list[Trial]()
    for number in range(draws):
        marked, measured = pictures.draw(count, 1_000 * pictures.config.seed + number)
        marks = mark(pictures.new[0], marked, place / f"{run.run_id}-{number}{MARKS_ENDING}")
        more = train_from(run.run_id, marks, home=home, tracking=False, figures=False)
        after = Detector.load(Path(more.run_folder) / "detector")
        result: Trial = {}
        for kind, each in folders.items():
            result[kind, "before"] = measure(before, scored[kind], measured)
            result[kind, "after"] = measure(after, scores_of(after, each), measured)
        results.append(result)
    return results


def cells(trials: Sequence[Trial]) -> list[str]:
    """Means over trials, before → after, of both kinds."""
    texts = []
    for kind in ("new", "old"):
        for column in COLUMNS:
            pair = [fmean(getattr(trial[kind, when], column) for trial in trials) for when in ("before", "after")]
            texts.append(" → ".join(f"{each:.4f}" if column == "auroc" else f"{each:.1%}" for each in pair))
    return texts


def summary(results: Sequence[Trial], is_few: bool) -> list[str]:
    """False alarms and differences of AUROC over all of them; of few pictures the alarms are counted together."""
    lines = []
    for kind in ("new", "old"):
        for when in ("before", "after"):
            each = [trial[kind, when] for trial in results]
            count, of = sum(one.count for one in each), sum(one.normal for one in each)
            low, high = proportion_interval(count, of)
            together = f"{count} of {of}, {count / of:.1%}, exact 95 % interval {low:.1%} to {high:.1%}"
            text = together if is_few else spread([one.alarms for one in each], ".1%")
            lines.append(f"- false alarms, {kind} kind, {when}: {text}")
        gains = [trial[kind, "after"].auroc - trial[kind, "before"].auroc for trial in results]
        lines.append(f"- AUROC, {kind} kind, after less before: {spread(gains, '.4f')}, lowest {min(gains):.4f}")
    return lines


def spread(values: Sequence[float], form: str) -> str:
    """A mean with Student's 95 % interval over trainings, and how they scatter."""
    mean = fmean(values)
    if len(values) < 2:
        return f"{mean:{form}}"
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return (
        f"mean {mean:{form}}, 95 % interval {mean - half:{form}} to {mean + half:{form}}, s.d. {stdev(values):{form}}"
    )


def main(kind: str, data_dir: str, seeds: str = "5", draws: str = "1", marked: str = "") -> None:
    """Print a table, and keep it."""
    count, results = int(marked or MARKED.get(kind, 200)), list[Trial]()
    heads = ["seed", *(f"{kind}: {text}" for kind in ("new", "old") for text in COLUMNS.values())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        place, home = Path(folder), RunStore.find(str(Path(folder) / "runs"))
        for seed in range(int(seeds)):
            if kind == COOKIES:
                pictures = cookies(data_dir, place, seed, count)
            else:
                pictures = digits(kind, data_dir, place / "digits", seed)
            for result in trials(pictures, home, place, int(draws), count):
                results.append(result)
                lines.append(f"| {seed} | " + " | ".join(cells([result])) + " |")
                print(lines[-1], flush=True)
    lines.append("| mean | " + " | ".join(cells(results)) + " |")
    text = f"{kind}, {count} marked good\n\n" + "\n".join([*lines, "", *summary(results, kind == COOKIES)]) + "\n"
    print(f"\n{text}")
    name = f"learning-{kind}-{marked}.md" if marked else f"learning-{kind}.md"
    write_text(Path(__file__).parent / "results" / name, text)


if __name__ == "__main__":
    main(*sys.argv[1:])
