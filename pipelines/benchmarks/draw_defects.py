"""Draw defects on the normal pictures that a detector was not trained on, to choose settings by without any label.

    python pipelines/benchmarks/draw_defects.py MODEL OUT
    anomaly-ae evaluate MODEL --dataset OUT --compare-scorers all

OUT gets MVTec's layout: the validation and calibration pictures of MODEL as test/good, and five kinds of defects
drawn on each of them at its own size, with their masks. They are drawn by other means than those planted in training
(`anomaly_ae.augmentation.synthetic_defects`), so that they tell how a detector does on what it was not taught.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from anomaly_ae import load
from anomaly_ae.storage.atomic import write_with

Drawn = tuple[Image.Image, np.ndarray]  # the picture, and what is defective in it
Point = tuple[float, float]


def hole(image: Image.Image, rng: random.Random) -> Drawn:
    """A small dark ellipse."""
    (x, y), radius, longer = somewhere(image, rng), rng.uniform(3, 9), rng.uniform(0.6, 1.4)
    mask, draw = canvas(image)
    draw.ellipse((x - radius * longer, y - radius, x + radius * longer, y + radius), fill=255)
    return darken(image, mask.filter(ImageFilter.GaussianBlur(1.2)), rng.uniform(0.25, 0.7))


def crack(image: Image.Image, rng: random.Random) -> Drawn:
    """A thin dark line that wanders."""
    point, angle = somewhere(image, rng), rng.uniform(0, 6.28)
    points = [point]
    for _ in range(rng.randint(6, 16)):
        angle += rng.gauss(0, 0.4)
        points.append((points[-1][0] + 7 * np.cos(angle), points[-1][1] + 7 * np.sin(angle)))
    mask, draw = canvas(image)
    draw.line(points, fill=255, width=rng.choice([1, 2, 3]))
    return darken(image, mask.filter(ImageFilter.GaussianBlur(0.8)), rng.uniform(0.3, 0.8))


def chip(image: Image.Image, rng: random.Random) -> Drawn:
    """A ragged dark patch at an edge."""
    width, height = image.size
    along, size = rng.uniform(0.1, 0.9), rng.uniform(10, 30)
    edges = [
        (along * width, 6.0),
        (along * width, height - 6.0),
        (6.0, along * height),
        (width - 6.0, along * height),
    ]
    x, y = rng.choice(edges)
    corners = [
        (x + size * rng.uniform(0.4, 1.2) * np.cos(a), y + size * rng.uniform(0.4, 1.2) * np.sin(a))
        for a in np.linspace(0, 6.28, 9)[:-1]
    ]
    mask, draw = canvas(image)
    draw.polygon(corners, fill=255)
    return darken(image, mask.filter(ImageFilter.GaussianBlur(1)), rng.uniform(0.3, 0.8))


def uneven(image: Image.Image, rng: random.Random) -> Drawn:
    """A wide soft patch, darker or brighter."""
    (x, y), radius, taller = somewhere(image, rng), rng.uniform(25, 60), rng.uniform(0.6, 1.4)
    mask, draw = canvas(image)
    draw.ellipse((x - radius, y - radius * taller, x + radius, y + radius * taller), fill=255)
    change = rng.choice([-1, 1]) * rng.uniform(0.15, 0.35)
    return darken(image, mask.filter(ImageFilter.GaussianBlur(8)), change)


def fray(image: Image.Image, rng: random.Random) -> Drawn:
    """Coarse noise that fades out."""
    values = np.asarray(image).astype(float)
    y, x = np.mgrid[: values.shape[0], : values.shape[1]]
    (cx, cy), radius, taller = somewhere(image, rng), rng.uniform(8, 25), rng.uniform(0.5, 2)
    weight = np.exp(-(((x - cx) / radius) ** 2 + ((y - cy) / (radius * taller)) ** 2))
    noise = np.random.default_rng(rng.randint(0, 10**9)).normal(size=values.shape).astype(np.float32)
    small = Image.fromarray(noise).resize((max(1, image.width // 2), max(1, image.height // 2)))
    coarse = np.asarray(small.resize(image.size))
    coarse = coarse / coarse.std()
    return picture(values + weight * coarse * rng.uniform(12, 35)), weight > 0.5


def darken(image: Image.Image, mask: Image.Image, share: float) -> Drawn:
    """The picture darker by `share` where the mask is, brighter where that is negative."""
    weight = np.asarray(mask) / 255
    return picture(np.asarray(image) * (1 - share * weight)), weight > 0.4


def picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def canvas(image: Image.Image) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    mask = Image.new("L", image.size)
    return mask, ImageDraw.Draw(mask)


def somewhere(image: Image.Image, rng: random.Random) -> Point:
    return rng.uniform(0.1, 0.9) * image.width, rng.uniform(0.1, 0.9) * image.height


KINDS: dict[str, Callable[[Image.Image, random.Random], Drawn]] = {
    each.__name__: each for each in (hole, crack, chip, uneven, fray)
}


def main(model: str, out: str) -> None:
    """Draw every kind on every picture."""
    detector, rng = load(model), random.Random(0)
    names = (detector.split.validation.names or ()) + (detector.split.calibration.names or ())
    for number, name in enumerate(names):
        with Image.open(Path(detector.config.dataset) / name.decode()) as opened:
            image = opened.convert("L")
        save(Path(out) / f"test/{detector.normal[0]}/{number:03}.png", image)
        for kind, draw in KINDS.items():
            drawn, where = draw(image, rng)
            save(Path(out) / f"test/{kind}/{number:03}.png", drawn)
            save(Path(out) / f"ground_truth/{kind}/{number:03}_mask.png", Image.fromarray(where))


def save(path: Path, image: Image.Image) -> None:
    write_with(path, lambda temporary: image.save(temporary, "PNG"))


if __name__ == "__main__":
    main(*sys.argv[1:])
