import numpy as np
import pytest
import torch

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.images.statistics import Profile, gray_words, is_gray, size_difference, size_words

IMAGES = load_dataset("digits").files["train"].images
PROFILE = Profile.of(IMAGES[:900])


def test_images_of_the_same_kind_look_the_same() -> None:
    assert PROFILE.differences(IMAGES[900:]) == []
    assert PROFILE.differences(IMAGES[900:].float() / 255) == []
    assert PROFILE.differences(IMAGES[:0]) == []


def test_brightness_is_between_the_darkest_and_the_brightest_but_for_one_in_a_hundred() -> None:
    means = IMAGES[:900].double().mean(dim=(1, 2, 3)) / 255
    low, high = PROFILE.brightness
    assert float(((means < low) | (means > high)).double().mean()) == pytest.approx(0.01, abs=0.003)


def test_inverted_ink_is_said() -> None:
    [said] = PROFILE.differences(255 - IMAGES)
    assert "inverted" in said


@pytest.mark.parametrize(("usual", "seen"), [((0.455, 0.564), 0.44), ((0.4, 0.49), 0.52), ((0.51, 0.6), 0.48)])
def test_pictures_of_middling_brightness_that_are_a_little_darker_are_not_called_inverted(
    usual: tuple[float, float], seen: float
) -> None:
    [said] = Profile(usual, (0.1, 0.2)).compare(torch.full((8,), seen), torch.full((8,), 0.15))
    assert "another brightness" in said


def test_what_is_within_the_usual_brightness_is_not_called_inverted() -> None:
    assert Profile((0.49, 0.499), (0.1, 0.2)).compare(torch.full((8,), 0.498), torch.full((8,), 0.15)) == []


@pytest.mark.parametrize(("change", "word"), [(lambda x: x // 5, "brightness"), (lambda x: x // 8 + 60, "contrast")])
def test_other_brightness_and_contrast_are_said(change: object, word: str) -> None:
    said = PROFILE.differences(change(IMAGES))
    assert any(word in each for each in said)


def test_single_odd_images_do_not_speak_for_all() -> None:
    mixed = torch.cat([IMAGES[:80], 255 - IMAGES[:40]])
    assert PROFILE.differences(mixed) == []


@pytest.mark.parametrize(
    ("given", "word"), [((28, 28), None), ((56, 56), None), ((28, 60), "stretched"), ((8, 8), "less detail")]
)
def test_another_size_is_said_where_it_matters(given: tuple[int, int], word: str | None) -> None:
    said = size_difference(given, (28, 28))
    assert (said is None) if word is None else (word in str(said))


@pytest.mark.parametrize(
    ("sizes", "seen", "resize_mode", "words"),
    [
        ([(100, 130)] * 4, (98, 128), "stretch", []),
        (
            [(100, 130)] * 3 + [(130, 100)],
            (98, 128),
            "stretch",
            ["25% of the pictures have other proportions than 98×128"],
        ),
        ([(100, 130)] * 3 + [(130, 100)], (98, 128), "pad", []),
        ([(8000, 200)] * 2, (5120, 128), "stretch", ["seen at 5120×128, which takes about 40 times"]),
        ([(8000, 200)] * 2, (64, 64), "stretch", ["100% of the pictures have other proportions than 64×64"]),
    ],
)
def test_the_size_in_which_pictures_are_seen_is_said_where_it_is_odd(
    sizes: list[tuple[int, int]], seen: tuple[int, int], resize_mode: str, words: list[str]
) -> None:
    heights, widths = np.array(sizes).T
    told = size_words(heights, widths, seen, 128, resize_mode)
    assert len(told) == len(words)
    assert all(part in text for part, text in zip(words, told, strict=True))


def test_a_blank_image_is_said_unless_those_in_training_were_blank() -> None:
    blank = torch.zeros_like(IMAGES[:1])
    [said] = PROFILE.differences(torch.cat([IMAGES[900:950], blank]))
    assert said.startswith("1 image is blank")
    assert Profile.of(torch.cat([IMAGES[:50], blank, blank])).differences(torch.cat([IMAGES[50:90], blank])) == []


@pytest.mark.parametrize("scale", [1, 255.0])
def test_it_is_said_where_most_images_have_no_colour_for_a_detector_that_sees_in_colour(scale: float) -> None:
    images = torch.randint(1, 255, (5, 3, 4, 6), dtype=torch.uint8)
    images[1:4] = images[1:4, :1].clamp(max=240) + torch.tensor([0, 7, 15], dtype=torch.uint8)[:, None, None]
    gray = is_gray(images / scale if scale > 1 else images)
    assert gray.tolist() == [False, True, True, True, False]
    assert gray_words(gray) == ["3 of 5 images have no colour, and the detector sees in colour"]
    assert gray_words(gray[2:]) == ["2 of 3 images have no colour, and the detector sees in colour"]
    assert gray_words(gray[3:]) == gray_words(gray[:0]) == []
    assert not is_gray(images[:, :1]).any()
