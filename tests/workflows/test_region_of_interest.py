"""A part in the middle of pictures whose surroundings are never the same: these change nothing that is said of it."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import UsageError
from anomaly_ae.review.pictures import DARK, Pictures
from anomaly_ae.review.session import Session
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows.train import resume
from tests.conftest import Cli, interrupted_at

SIZE = 60, 48  # width, height
PART = 20, 12, 44, 36  # left, top, right, bottom
COUNTS = {"train/good": 40, "test/good": 10, "test/scratched": 10}
SETTINGS = {"preset": "fast", "epochs": 40, "image_size": "16"}


def picture(part: int, around: int, scratched: bool) -> Image.Image:
    """A part that is drawn by one number, in the midst of noise that is drawn by another."""
    rng = np.random.default_rng(part)
    pixels = np.random.default_rng(around).integers(0, 256, (SIZE[1], SIZE[0]), np.uint8)
    seen = 90 + 40 * np.sin(np.arange(24) / 2 + rng.uniform(0, 1)) + rng.normal(0, 4, (24, 24))
    if scratched:
        row = int(rng.integers(4, 18))
        seen[row : row + 3, 6:18] = 250
    pixels[PART[1] : PART[3], PART[0] : PART[2]] = seen.clip(0, 255)
    return Image.fromarray(pixels)


def make_set(root: Path, around: int) -> Path:
    for number, (place, count) in enumerate(COUNTS.items()):
        (root / place).mkdir(parents=True)
        for i in range(count):
            part = 100 * number + i
            picture(part, 1000 * around + part, "scratched" in place).save(root / place / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same parts in other surroundings."""
    root = tmp_path_factory.mktemp("sets")
    return make_set(root / "one" / "parts", 1), make_set(root / "two" / "parts", 2)


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ovals in the part, drawn over a picture of twice the size."""
    path = tmp_path_factory.mktemp("mask") / "look here.png"
    image = Image.new("L", (2 * SIZE[0], 2 * SIZE[1]))
    draw = ImageDraw.Draw(image)
    draw.ellipse((40, 24, 60, 71), fill=255)
    draw.ellipse((64, 26, 87, 71), fill=255)
    image.save(path)
    return path


def config(dataset: Path, mask: Path) -> RunConfig:
    return RunConfig.build(SETTINGS, {"dataset": dataset, "roi": mask})


@pytest.fixture(scope="module")
def home(sets: tuple[Path, Path], mask: Path, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """With a training on the first of them."""
    home = RunStore.find(str(tmp_path_factory.mktemp("home")))
    anomaly_ae.train(config(sets[0], mask), home=home, tracking=False)
    return home


@pytest.fixture(scope="module")
def detector(home: RunStore) -> Detector:
    return Detector.load(home.latest().detector_folder())


def opened(place: Path) -> list[Image.Image]:
    return [Image.open(path) for path in sorted((place / "test").rglob("*.png"))]


def test_what_lies_around_changes_no_score_and_no_region(detector: Detector, sets: tuple[Path, Path]) -> None:
    one, two = (list(detector.score_folder(each / "test")) for each in sets)
    assert len(one) == 20
    told = "score", "p_value", "is_anomaly", "regions"
    assert [[row[name] for name in told] for row in one] == [[row[name] for name in told] for row in two]
    scores = torch.tensor([row["score"] for row in one])
    assert len(scores.unique()) == 20
    images = opened(sets[1])
    arrays = torch.stack([torch.from_numpy(np.asarray(image).copy()) for image in images])[:, None]
    assert torch.allclose(detector.score(images), scores, rtol=1e-5)
    assert torch.allclose(detector.score(arrays), scores, rtol=1e-5)
    assert [json.dumps(regions) for regions in map(str, detector.regions(images))] == [
        json.dumps(regions) for regions in map(str, detector.regions(opened(sets[0])))
    ]


def test_nor_does_it_change_the_training(sets: tuple[Path, Path], mask: Path, home: RunStore, tmp_path: Path) -> None:
    other = RunStore.find(str(tmp_path))
    anomaly_ae.train(config(sets[1], mask), home=other, tracking=False, figures=False)
    first, second = (each.latest().detector_folder() / "weights.safetensors" for each in (home, other))
    assert first.read_bytes() == second.read_bytes()


def test_it_is_the_part_that_is_seen_and_found_defective(
    detector: Detector, home: RunStore, sets: tuple[Path, Path], cli: Cli
) -> None:
    assert detector.preprocessing.roi is not None
    inside = detector.preprocessing.roi.mask(SIZE)
    left, top, right, bottom = PART
    assert not np.delete(inside, np.s_[top:bottom], axis=0).any()
    assert not np.delete(inside, np.s_[left:right], axis=1).any()
    ended = cli(
        *("score", str(sets[0] / "test"), "--model", str(home.latest().detector_folder()), "--output", "s.csv"),
        *("--heatmaps", "heat", "--masks", "masks", "--target-fpr", "0.3"),
    )
    assert ended.code == 0, ended.err
    masks = [np.asarray(Image.open(path)) > 0 for path in Path("masks").rglob("*.png")]
    assert masks
    assert not any(mask[~inside].any() for mask in masks)
    over = np.asarray(Image.open("heat/scratched/00.png.png").convert("L"))
    scale = over.shape[0] // SIZE[1]
    dim = np.asarray(opened(sets[0])[10]) // 3
    assert (over[::scale, ::scale][~inside] == dim[~inside]).mean() > 0.95  # but where a region is outlined


def test_in_the_review_it_is_dark_around_the_part(home: RunStore, sets: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "s.csv"
    anomaly_ae.score(sets[0] / "test", home.latest().path.name, output, home=home)
    session = Session.open(output, home.latest().path.name, home)
    with Pictures(session) as pictures:
        content = pictures.heat(0)
        assert content is not None
        over = np.asarray(Image.open(io.BytesIO(content)))
        roi = session.detector.preprocessing.roi
        assert roi is not None
        assert (over[~roi.mask(SIZE)] == DARK).all()
        assert (over[roi.mask(SIZE)] != DARK).any(axis=-1).all()


def test_evaluation_and_calibration_see_the_same(home: RunStore, sets: tuple[Path, Path]) -> None:
    evaluation = anomaly_ae.evaluate(home=home)
    assert evaluation.dataset == str(sets[0])
    with (home.latest().path / "evaluation/scores.csv").open() as file:
        kept = sorted(float(row["score"]) for row in csv.DictReader(file))
    again = sorted(row["score"] for row in anomaly_ae.load("latest", mlruns=home.root).score_folder(sets[1] / "test"))
    assert kept == pytest.approx(again, rel=1e-5)
    results = [
        anomaly_ae.calibrate(home=home, normal_folder=str(place / "test/good"), target_fpr=0.2, tracking=False)
        for place in sets
    ]
    assert results[0].threshold == results[1].threshold


def test_a_training_goes_on_with_the_mask_that_it_began_with(
    sets: tuple[Path, Path], mask: Path, home: RunStore, tmp_path: Path
) -> None:
    own, other = tmp_path / "roi.png", RunStore.find(str(tmp_path / "home"))
    own.write_bytes(mask.read_bytes())
    with interrupted_at(2):
        anomaly_ae.train(config(sets[0], own), home=other, tracking=False)
    own.unlink()
    resume("latest", home=other)
    first, second = (each.latest().detector_folder() / "weights.safetensors" for each in (home, other))
    assert first.read_bytes() == second.read_bytes()


def test_a_mask_of_other_proportions_is_refused(sets: tuple[Path, Path], tmp_path: Path, home: RunStore) -> None:
    Image.new("L", (60, 60), 255).save(tmp_path / "square.png")
    with pytest.raises(UsageError, match=r"square\.png has 60×60 pixels and the images have 48×60"):
        anomaly_ae.train(config(sets[0], tmp_path / "square.png"), home=home, tracking=False)


def test_defects_elsewhere_are_said_and_left_out_of_the_figures_of_pixels(
    sets: tuple[Path, Path], mask: Path, tmp_path: Path, cli: Cli
) -> None:
    folder = shutil.copytree(sets[0], tmp_path / "masked")
    for i in range(10):
        marked = np.zeros(SIZE[::-1], np.uint8)
        marked[(slice(2, 5), slice(2, 5)) if i < 3 else (slice(20, 24), slice(26, 30))] = 255
        place = folder / "ground_truth/scratched" / f"{i:02}_mask.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(marked).save(place)
    ended = cli("train", "--dataset", str(folder), "--roi", str(mask), "--preset", "fast", "--epochs", "2",
                "--image-size", "16", "--no-tracking", "--no-figures")  # fmt: skip
    assert ended.code == 0, ended.err
    ended = cli("evaluate", "--no-figures")
    assert "masks: 3 mark what lies outside the region of interest" in ended.err
    assert "mark nothing" not in ended.err
    assert "pixel AUROC" in ended.out


def test_a_mask_is_for_pictures_of_its_proportions_and_it_is_said_where_some_have_others(
    sets: tuple[Path, Path], mask: Path, tmp_path: Path, cli: Cli
) -> None:
    folder = shutil.copytree(sets[0], tmp_path / "mixed")
    for path in sorted((folder / "train/good").iterdir())[:10]:
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    ended = cli("train", "--dataset", str(folder), "--roi", str(mask), "--preset", "fast", "--epochs", "2",
                "--image-size", "16", "--no-tracking", "--no-figures")  # fmt: skip
    assert ended.code == 0, ended.err
    assert "25% of the images have other proportions than 96×120; there it lies elsewhere" in ended.err


def test_what_is_looked_at_is_said_and_digits_have_parts_too(cli: Cli) -> None:
    quick = "--image-size", "8", "--epochs", "2", "--no-tracking", "--no-figures"
    ended = cli("train", "--normal", "0,1,2", "--roi", "0,0,1,0.5", *quick)
    assert ended.code == 0, ended.err
    assert "region of interest: 50.0% of each image, within 4×8 of its 8×8" in ended.err
    detector = anomaly_ae.load()
    images = load_dataset("digits").files["train"].images[:20]
    changed = images.clone()
    changed[:, :, 4:] = torch.randint(0, 256, (20, 1, 4, 8), dtype=torch.uint8)
    assert torch.equal(detector.score(images), detector.score(changed))
    measured = cli("evaluate", "--json", "--no-figures").json()
    assert measured["auroc"] > 0.8
    ended = cli("train", "--normal", "0,1,2", "--roi", "0.5,0,1,0.5", *quick)
    assert ended.code == 2
    assert "boxes x,y,w,h in shares of the picture" in ended.err
