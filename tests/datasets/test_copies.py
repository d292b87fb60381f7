"""Copies of pictures are found, and what is merely alike is not taken for one."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.datasets.copies import find_copies, first_alike
from anomaly_ae.datasets.splitting import split_dataset
from anomaly_ae.errors import DataError
from anomaly_ae.images.image_set import Dataset, ImageSet

SIDE = 64


def scene(seed: int, channels: int = 1) -> np.ndarray:
    """One still scene as a camera sees it again and again, uint8 (H, W, C): only its noise is new."""
    y, x = np.mgrid[:SIDE, :SIDE]
    shapes = 110 + 40 * np.sin(x / 3) + 15 * np.cos(y / 4)
    noisy = shapes + np.random.default_rng(seed).normal(0, 4, (SIDE, SIDE))
    return (noisy[..., None] * (1.0, 0.8, 0.5)[:channels]).clip(0, 255).astype(np.uint8)


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content)).reshape(pixels.shape)


def brighter(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 1.1).clip(0, 255).astype(np.uint8)


def smaller(pixels: np.ndarray) -> np.ndarray:
    """The same picture, stored at three quarters of its size and enlarged again."""
    image = Image.fromarray(pixels.squeeze())
    return np.asarray(image.resize((SIDE * 3 // 4,) * 2).resize((SIDE, SIDE))).reshape(pixels.shape)


def together(pictures: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return images, torch.arange(len(images))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "change",
    [np.copy, lambda p: as_jpeg(p, 90), lambda p: as_jpeg(p, 75), brighter, smaller],
    ids=["equal", "jpeg 90", "jpeg 75", "brighter", "resized"],
)
def test_a_picture_saved_anew_is_a_copy(channels: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    pictures = [scene(seed, channels) for seed in range(30)]
    first = first_alike(together(pictures + [change(picture) for picture in pictures[:10]]))
    assert first[:30].tolist() == list(range(30))
    found = first[30:]
    assert (found == torch.arange(10)).float().mean() >= 0.6
    assert bool(((found == torch.arange(10)) | (found == torch.arange(30, 40))).all())  # and of no other


@pytest.mark.parametrize("channels", [1, 3])
def test_shots_of_one_still_scene_are_no_copies(channels: int) -> None:
    first = first_alike(together([scene(seed, channels) for seed in range(150)]))
    assert first.tolist() == list(range(150))


def test_products_that_differ_by_light_and_place_alone_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for seed in range(100):
        moved = np.roll(scene(seed).astype(float), rng.integers(-2, 3, 2), axis=(0, 1))
        pictures.append((moved * rng.uniform(0.8, 1.2)).clip(0, 255).astype(np.uint8))
    assert first_alike(together(pictures)).tolist() == list(range(100))


def test_handwritten_digits_are_no_copies_of_each_other() -> None:
    digits = load_dataset("digits").files["train"].images[:600]
    large = torch.nn.functional.interpolate(digits.float(), size=24, mode="bilinear").to(torch.uint8)
    for images in (digits, large):
        assert torch.equal(first_alike((images, torch.arange(600))), torch.arange(600))


def test_it_is_said_where_pictures_of_two_kinds_hide_their_copies(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    shapes = [np.kron(rng.integers(0, 120, (8, 8, 1), np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(2)]
    pictures = [shapes[i % 3 // 2] + rng.integers(0, 20, (SIDE, SIDE, 1), np.uint8) for i in range(90)]
    assert len(first_alike(together([*pictures, as_jpeg(pictures[0], 90)])).unique()) == 91
    assert "hardly any that were saved anew" in capsys.readouterr().err
    assert len(first_alike(together([*pictures[::3], as_jpeg(pictures[0], 90)])).unique()) == 30
    assert not capsys.readouterr().err


def test_copies_are_found_far_apart_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_ae.datasets.copies.NEIGHBORS", 200)
    images = torch.from_numpy(np.random.default_rng(0).normal(128, 40, (900, 1, 20, 20)).clip(0, 255)).to(torch.uint8)
    again = torch.cat([images, (images[:50].float() * 0.95).to(torch.uint8)])
    first = first_alike((again, torch.arange(950)))
    assert torch.equal(first[900:], torch.arange(50))
    assert torch.equal(first[:900], torch.arange(900))


class Largest(TorchDispatchMode):
    """Values of the largest tensor of each type that is made within it."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func: Callable[..., Any], types: object, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self.values[tensor.dtype] = max(self.values.get(tensor.dtype, 0), tensor.numel())
        return made


@pytest.mark.parametrize("copied", [False, True], ids=["unlike", "copies of one another"])
def test_twice_the_pictures_take_no_more_memory(copied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the pictures themselves, and some numbers of each."""
    for name, few in {"NEIGHBORS": 128, "PICTURES_AT_ONCE": 64, "PAIRS_AT_ONCE": 1024, "LIKENESS_SAMPLE": 50}.items():
        monkeypatch.setattr(f"anomaly_ae.datasets.copies.{name}", few)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(64, 192, (1200, 1, 20, 20), generator=draw, dtype=torch.uint8)
    if copied:  # 40 pictures, 30 times each
        images = images[:40].repeat(30, 1, 1, 1) + images % 2
    largest = []
    for count in (600, 1200):
        with Largest() as made:
            first = first_alike((images[:count], torch.arange(count)))
        assert len(first.unique()) == (40 if copied else count)
        largest.append(made.values)
    assert largest[1][torch.float32] == largest[0][torch.float32]
    assert largest[1][torch.int64] <= 2 * (1200 + 1024 + 64 * 40)  # pairs; there are 17,400 of the copies


def test_large_pictures_are_looked_at_a_few_at_a_time() -> None:
    images = torch.randint(64, 192, (20, 3, 512, 512), dtype=torch.uint8)
    with Largest() as made:
        assert len(first_alike((images, torch.arange(20))).unique()) == 20
    assert max(made.values[torch.float32], made.values[torch.float64]) <= 2**22


def test_among_too_many_pictures_only_equal_ones_are_found_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [scene(seed) for seed in range(30)]
    again = together([*pictures, as_jpeg(pictures[3], 90), pictures[4]])
    assert first_alike(again)[30:].tolist() == [3, 4]
    monkeypatch.setattr("anomaly_ae.datasets.copies.MOST_PICTURES", 30)
    assert first_alike(again)[30:].tolist() == [30, 4]
    assert capsys.readouterr().err == (
        "copies: 31 pictures are compared for equal ones alone; those that were saved anew are looked for among up "
        "to 30\n"
    )


def test_pictures_without_anything_in_them_are_equal_or_not() -> None:
    black, gray = np.zeros((SIDE, SIDE, 1), np.uint8), np.full((SIDE, SIDE, 1), 90, np.uint8)
    assert first_alike(together([black, gray, black, gray, scene(1)])).tolist() == [0, 1, 0, 1, 4]


def made(train: list[tuple[int, str]], test: list[tuple[int, str]]) -> Dataset:
    """Pictures by seed and class."""

    def file(pictures: list[tuple[int, str]], prefix: str) -> ImageSet:
        images, _ = together([scene(seed) for seed, _ in pictures])
        labels = torch.tensor([("good", "bad").index(name) for _, name in pictures])
        return ImageSet(images, labels, tuple(f"{prefix}/{i}.png".encode() for i in range(len(pictures))))

    return Dataset("made", ("good", "bad"), {"train": file(train, "train")} | ({"test": file(test, "test")}))


def test_what_was_trained_on_is_no_test_and_what_is_both_is_nothing() -> None:
    train = [*((seed, "good") for seed in range(20)), (3, "good"), (4, "bad"), (300, "bad")]
    test = [(100, "good"), (5, "good"), (200, "bad"), (6, "bad"), (101, "good"), (101, "bad"), (300, "good")]
    both = "in a normal class and in another"
    copies = find_copies(made(train, test), [0])
    assert dict(copies.left_out["train"]) == {20: "a copy of train/3.png", 4: both, 6: both, 21: both, 22: both}
    assert dict(copies.left_out["test"]) == {1: "a training picture, too", 3: both, 4: both, 5: both, 6: both}
    assert [line.split(":")[0] for line in copies.about] == ["copies", *["left out"] * 3]
    assert find_copies(made(train[:4], test[:1]), [0]).about == ()


def test_a_test_of_pictures_that_are_both_alone_is_refused() -> None:
    data = made([(seed, "good") for seed in range(40)], [(100, "good"), (100, "bad")])
    with pytest.raises(DataError, match="all 2 test images are left out; give others"):
        split_dataset(data, [0], seed=0, contamination=0.0, needed=0, copies=find_copies(data, [0]))
