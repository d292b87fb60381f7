"""How the default scorer was chosen: every scorer, on data that are not MNIST.

Two data sets of ten classes at 28×28 pixels: the bundled handwritten digits, enlarged, and letters drawn here from
the fonts that come with matplotlib, each bent, slanted, stretched and thickened at random. On both, ten detectors
with one class normal, ten with one class novel, and one with the first three normal. The mean AUROC of each decides.

    python pipelines/benchmarks/choose_scorer.py
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, grey_dilation, map_coordinates
from torch.nn import functional

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import prepare, run_training
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.metrics.ranking import ranking
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.tables import plain_table
from anomaly_ae.scorers import build_scorer

LETTERS, OF_EACH, CANVAS = "aeghknrsty", 500, 96
FONTS = (
    "DejaVuSans*",
    "DejaVuSerif*",
    "STIXGeneral*",
    "cmr10*",
    "cmss10*",
    "cmtt10*",
    "cmb10*",
    "cmmi10*",
    "cmti10*",
)
SCORERS = ("aligned-knn", "relative+latent-knn", "relative", "latent-knn", "feature-knn", "pixel-knn", "pca", "mse")
STEPS, MOST_TESTED = 1_000, 600


def digits() -> ImageSet:
    """The bundled digits, 24×24 with a border of 2."""
    files = load_dataset("digits").files["train"]
    large = functional.interpolate(files.images.float(), (24, 24), mode="bicubic", antialias=True).clamp(0, 255)
    return ImageSet(functional.pad(large, (2, 2, 2, 2)).round().to(torch.uint8), files.labels)


def letters() -> ImageSet:
    """Ten letters in many shapes, centred by mass in a box of 20 pixels, as MNIST's digits are."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = sorted(path for pattern in FONTS for path in folder.glob(pattern + ".ttf") if "Display" not in path.name)
    random = np.random.default_rng(0)
    images = [_framed(_bent(_drawn(letter, fonts, random), random)) for letter in LETTERS for _ in range(OF_EACH)]
    labels = torch.arange(len(LETTERS)).repeat_interleave(OF_EACH)
    return ImageSet(torch.from_numpy(np.stack(images)).round().to(torch.uint8).unsqueeze(1), labels)


def _drawn(letter: str, fonts: Sequence[Path], random: np.random.Generator) -> np.ndarray:
    """A letter in one of the fonts, (CANVAS, CANVAS), in [0, 1]."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    font = ImageFont.truetype(str(fonts[random.integers(len(fonts))]), 64)
    ImageDraw.Draw(canvas).text((CANVAS / 2, CANVAS / 2), letter, font=font, fill=255, anchor="mm")
    return np.asarray(canvas, float) / 255


def _bent(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The image turned, slanted, stretched, bent and thickened."""
    turn, slant, stretch = random.normal(0, 0.15), random.normal(0, 0.25), random.uniform(0.75, 1.2, 2)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = rotation @ np.array([[1, slant], [0, 1]]) @ np.diag(stretch)  # of (x, y)
    field = np.stack([gaussian_filter(random.normal(size=image.shape), 9) for _ in range(2)])
    field *= random.uniform(2, 5) / field.std()
    rows, columns = np.indices(image.shape) - CANVAS / 2
    x, y = matrix @ np.stack([columns, rows]).reshape(2, -1) + field.reshape(2, -1) + CANVAS / 2
    bent = map_coordinates(image, [y, x], order=1).reshape(image.shape)
    width = 2 * int(random.integers(0, 4)) - 1
    return grey_dilation(bent, size=(width, width)) if width > 1 else bent


def _framed(image: np.ndarray) -> np.ndarray:
    """The ink cut out, brought to 20 pixels, and centred by mass in 28×28, 0 to 255."""
    rows, columns = np.nonzero(image > 0.3)
    ink = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = 20 / max(ink.shape)
    size = max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale))
    small = np.asarray(Image.fromarray((ink * 255).astype(np.uint8)).resize(size, Image.Resampling.LANCZOS), float)
    centre = (np.indices(small.shape) * small).reshape(2, -1).sum(axis=1) / small.sum()
    top, left = (int(np.clip(round(13.5 - c), 0, 28 - side)) for c, side in zip(centre, small.shape, strict=True))
    framed = np.zeros((28, 28))
    framed[top : top + small.shape[0], left : left + small.shape[1]] = small
    return framed


def protocols() -> dict[str, list[list[int]]]:
    """The normal classes of each detector, by protocol."""
    return {
        "one class": [[c] for c in range(10)],
        "leave one out": [[k for k in range(10) if k != c] for c in range(10)],
        "first three": [[0, 1, 2]],
    }


def areas(data: ImageSet, normal: list[int]) -> dict[str, float]:
    """AUROC of each scorer on one network: half of the normal images are fitted, a fifth validates."""
    generator = torch.Generator().manual_seed(0)
    is_normal = torch.isin(data.labels, torch.tensor(normal))
    order = is_normal.nonzero().flatten()
    order = order[torch.randperm(len(order), generator=generator)]
    fit, validation, test = order.tensor_split([len(order) // 2, len(order) * 7 // 10])
    novel = (~is_normal).nonzero().flatten()
    novel = novel[torch.randperm(len(novel), generator=generator)[:MOST_TESTED]]
    parts = [data.images[chosen] for chosen in (fit, validation, torch.cat([test[:MOST_TESTED], novel]))]
    labels = np.arange(len(parts[2])) >= len(parts[2]) - len(novel)
    made = _experiment(len(parts[0]))
    network = run_training(made, prepare(made, parts[0], parts[1])).finished_network()
    scorers = {name: fit_scorer(build_scorer(name), network, parts[0], parts[1], made.config) for name in SCORERS}
    scores = {name: each.score_all(network, parts[2]) for name, each in scorers.items()}
    return {name: ranking(values.numpy(), labels).auroc for name, values in scores.items()}


def _experiment(images: int) -> Experiment:
    """The experiment of a network for so many images to learn from."""
    config = RunConfig(normal="0", epochs=max(1, round(STEPS / max(1, round(images / 128)))), patience=1_000)
    return Experiment.build(config, Preprocessing(1, 28, 28), ("normal",), ("normal",))


def main() -> None:
    """Print a table."""
    rows = []
    for name, data in (("digits", digits()), ("letters", letters())):
        for protocol, sets in protocols().items():
            found = [areas(data, normal) for normal in sets]
            logger.info(f"{name}, {protocol}: done")
            means = {scorer: 100 * fmean(each[scorer] for each in found) for scorer in SCORERS}
            rows.append({"data": name, "protocol": protocol} | means)
    print("\n".join(plain_table(rows)))


if __name__ == "__main__":
    main()
