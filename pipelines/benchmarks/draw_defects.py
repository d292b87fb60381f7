"""Draw defects on the normal pictures that a detector was not trained on, to choose settings by without any label.

    python pipelines/benchmarks/draw_defects.py MODEL OUT
    anomaly-ae evaluate MODEL --dataset OUT --compare-scorers all

OUT gets MVTec's layout: the validation and calibration pictures of MODEL as test/good, and ten kinds of defects drawn
on each of them, with their masks; those of more than 256 pixels of the smaller side are made as small first. They are
drawn by other means than those planted in training (`anomaly_ae.augmentation.synthetic_defects`), so that they tell
how a detector does on what it was not taught. Train MODEL with `--guarantee marginal`, or it has learned from all but
the validation pictures.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import map_coordinates
from sklearn.datasets import load_sample_images

from anomaly_ae import load
from anomaly_ae.storage.atomic import write_with

Drawn = tuple[Image.Image, np.ndarray]  # the picture, and what is defective in it
Point = tuple[float, float]

LARGEST = 256  # pixels of the smaller side, which the defects' sizes are made for


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
    along = rng.uniform(0.1, 0.9)
    edges = [
        (along * width, 6.0),
        (along * width, height - 6.0),
        (6.0, along * height),
        (width - 6.0, along * height),
    ]
    return darken(image, ragged(image, rng.choice(edges), rng.uniform(10, 30), rng), rng.uniform(0.3, 0.8))


def uneven(image: Image.Image, rng: random.Random) -> Drawn:
    """A wide soft patch, darker or brighter."""
    (x, y), radius, taller = somewhere(image, rng), rng.uniform(25, 60), rng.uniform(0.6, 1.4)
    mask, draw = canvas(image)
    draw.ellipse((x - radius, y - radius * taller, x + radius, y + radius * taller), fill=255)
    change = rng.choice([-1, 1]) * rng.uniform(0.15, 0.35)
    return darken(image, mask.filter(ImageFilter.GaussianBlur(8)), change)


def fray(image: Image.Image, rng: random.Random) -> Drawn:
    """Coarse noise that fades out."""
    y, x = np.mgrid[: image.height, : image.width]
    (cx, cy), radius, taller = somewhere(image, rng), rng.uniform(8, 25), rng.uniform(0.5, 2)
    weight = np.exp(-(((x - cx) / radius) ** 2 + ((y - cy) / (radius * taller)) ** 2))
    noise = np.random.default_rng(rng.randint(0, 10**9)).normal(size=(image.height, image.width)).astype(np.float32)
    small = Image.fromarray(noise).resize((max(1, image.width // 2), max(1, image.height // 2)))
    coarse = np.asarray(small.resize(image.size))
    return picture(pixels(image) + (weight * coarse / coarse.std() * rng.uniform(12, 35))[..., None]), weight > 0.5


def broken(image: Image.Image, rng: random.Random) -> Drawn:
    """All that lies beyond a line moved away and along it; between them the colour of the border, or dark."""
    y, x = np.mgrid[: image.height, : image.width]
    angle, offset = rng.uniform(0, 6.28), rng.uniform(-0.2, 0.2) * min(image.size)
    across = (x - image.width / 2) * np.cos(angle) + (y - image.height / 2) * np.sin(angle)
    away, along = rng.uniform(4, 12), rng.uniform(-6, 6)
    right = round(away * np.cos(angle) - along * np.sin(angle))
    down = round(away * np.sin(angle) + along * np.cos(angle))
    beyond, values = across > offset, pixels(image)
    gap = beyond & ~np.roll(beyond, (down, right), (0, 1))
    between = border(values) if rng.random() < 0.5 else 0.4 * values.mean(axis=(0, 1))
    moved = np.where(beyond[..., None], np.roll(values, (down, right), (0, 1)), values)
    return picture(np.where(gap[..., None], between, moved)), gap


def missing(image: Image.Image, rng: random.Random) -> Drawn:
    """A ragged patch of the colour of the border."""
    where = ragged(image, somewhere(image, rng), rng.uniform(15, 40), rng)
    return blend(image, np.broadcast_to(border(pixels(image)), pixels(image).shape), where)


def foreign(image: Image.Image, rng: random.Random) -> Drawn:
    """A ragged patch of a photo of something else."""
    photo = Image.fromarray(rng.choice(load_sample_images().images)).convert(image.mode)
    photo = photo.resize([max(side, least) for side, least in zip(photo.size, image.size, strict=True)])
    left, top = (rng.randint(0, there - here) for there, here in zip(photo.size, image.size, strict=True))
    part = photo.crop((left, top, left + image.width, top + image.height))
    return blend(image, pixels(part), ragged(image, somewhere(image, rng), rng.uniform(10, 30), rng))


def bent(image: Image.Image, rng: random.Random) -> Drawn:
    """A round part that is twisted, the more so the nearer to its middle."""
    y, x = np.mgrid[: image.height, : image.width]
    (cx, cy), radius = somewhere(image, rng), rng.uniform(20, 50)
    weight = np.exp(-2 * ((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    turn = rng.choice([-1, 1]) * rng.uniform(0.5, 1.2) * weight
    sine, cosine = np.sin(turn), np.cos(turn)
    to = [cy + (x - cx) * sine + (y - cy) * cosine, cx + (x - cx) * cosine - (y - cy) * sine]
    values = pixels(image)
    twisted = [map_coordinates(values[..., i], to, order=1, mode="reflect") for i in range(values.shape[2])]
    return picture(np.stack(twisted, axis=-1)), weight > 0.3


def smear(image: Image.Image, rng: random.Random) -> Drawn:
    """A ragged patch that is blurred."""
    where = ragged(image, somewhere(image, rng), rng.uniform(15, 40), rng).filter(ImageFilter.GaussianBlur(3))
    return blend(image, pixels(image.filter(ImageFilter.BoxBlur(3))), where)


def darken(image: Image.Image, where: Image.Image, share: float) -> Drawn:
    """The picture darker by `share` there, brighter where that is negative."""
    return blend(image, pixels(image) * (1 - share), where)


def blend(image: Image.Image, other: np.ndarray, where: Image.Image) -> Drawn:
    """The picture, and `other` in its place there."""
    weight, values = np.asarray(where) / 255, pixels(image)
    return picture(values + weight[..., None] * (other - values)), weight > 0.4


def ragged(image: Image.Image, middle: Point, size: float, rng: random.Random) -> Image.Image:
    """A ragged patch, white on black."""
    angles = np.linspace(0, 6.28, 9)[:-1]
    lengths = [size * rng.uniform(0.4, 1.2) for _ in angles]
    corners = [(middle[0] + r * np.cos(a), middle[1] + r * np.sin(a)) for r, a in zip(lengths, angles, strict=True)]
    mask, draw = canvas(image)
    draw.polygon(corners, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(1))


def border(values: np.ndarray) -> np.ndarray:
    """The mean colour of the upper and the lower edge, (C,)."""
    mean: np.ndarray = np.concatenate([values[:4], values[-4:]]).mean(axis=(0, 1))
    return mean


def pixels(image: Image.Image) -> np.ndarray:
    """float (H, W, C), 0 to 255."""
    values = np.asarray(image).astype(float)
    return values[..., None] if values.ndim == 2 else values


def picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8).squeeze())


def canvas(image: Image.Image) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    mask = Image.new("L", image.size)
    return mask, ImageDraw.Draw(mask)


def somewhere(image: Image.Image, rng: random.Random) -> Point:
    return rng.uniform(0.1, 0.9) * image.width, rng.uniform(0.1, 0.9) * image.height


KINDS: dict[str, Callable[[Image.Image, random.Random], Drawn]] = {
    each.__name__: each for each in (hole, crack, chip, uneven, fray, broken, missing, foreign, bent, smear)
}


def main(model: str, out: str) -> None:
    """Draw every kind on every picture."""
    detector, rng = load(model), random.Random(0)
    names = (detector.split.validation.names or ()) + (detector.split.calibration.names or ())
    for number, name in enumerate(names):
        with Image.open(Path(detector.config.dataset) / name.decode()) as opened:
            image = opened.convert("L" if detector.preprocessing.channels == 1 else "RGB")
        if (scale := LARGEST / min(image.size)) < 1:
            image = image.resize([round(scale * side) for side in image.size])
        save(Path(out) / f"test/{detector.normal[0]}/{number:03}.png", image)
        for kind, draw in KINDS.items():
            drawn, where = draw(image, rng)
            save(Path(out) / f"test/{kind}/{number:03}.png", drawn)
            save(Path(out) / f"ground_truth/{kind}/{number:03}_mask.png", Image.fromarray(where))


def save(path: Path, image: Image.Image) -> None:
    write_with(path, lambda temporary: image.save(temporary, "PNG"))


if __name__ == "__main__":
    main(*sys.argv[1:])
