"""What images look like as a whole, to tell when others look altogether unlike them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomaly_ae.escaping import counted
from anomaly_ae.images.decode import STRETCH
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.schema import Mismatch, Share

VALUES_AT_ONCE = 2**24  # looked at together
USUAL = (0.005, 0.995)  # quantiles between which the middle 99 % of images lie
GRAY_LEVEL = 1 / 255
COLOURED = 16  # of 255, by which the channels of a gray picture may differ, as JPEG makes them
BLANK = 0.1  # of the least contrast that is usual
MOST_COST = 4  # times what images of the usual size take, before it is worth a word
MOST_STRETCH = 1.5  # of one side against the other, before it is worth a word

Sides = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Profile:
    """Between which values the middle 99 % of the fit images lie, each in [0, 1].

    brightness: mean of the pixels
    contrast:   standard deviation of the pixels
    """

    brightness: tuple[Share, Share]
    contrast: tuple[Share, Share]

    def __post_init__(self) -> None:
        if self.brightness[0] > self.brightness[1] or self.contrast[0] > self.contrast[1]:
            raise Mismatch("the profile has a lower end above its upper end")

    @classmethod
    def of(cls, images: Tensor) -> "Profile":
        """The profile of images, uint8 or float in [0, 1], (N, C, H, W)."""
        ends = torch.tensor(USUAL, dtype=torch.float64)
        brightness, contrast = (tuple(torch.quantile(each, ends).tolist()) for each in brightness_contrast(images))
        return cls(brightness, contrast)

    def differences(self, images: Tensor) -> list[str]:
        """How a batch, uint8 or float in [0, 1], (N, C, H, W), looks unlike the fit images altogether; often nothing.

        Said of the median image, so that single odd ones do not speak for all.
        """
        return self.compare(*brightness_contrast(images)) if len(images) else []

    def compare(self, brightnesses: Tensor, contrasts: Tensor) -> list[str]:
        """The same of what `brightness_contrast` says of a batch, (N,) each, N at least 1; and how many are blank."""
        words, brightness = list[str](), float(brightnesses.median())
        if count := int((contrasts < BLANK * self.contrast[0]).sum()):
            # A network that has seen no image of next to nothing may well rebuild it, and its score says little
            words.append(
                f"{counted(count, 'image is', 'images are')} blank, with less than a tenth of the contrast of those "
                "in training: a score that is not high does not make them normal"
            )
        low, high = self.brightness
        is_far = abs(brightness - (low + high) / 2) > high - low  # else it may just as well be a little darker
        if is_far and not _within(brightness, self.brightness) and _within(1 - brightness, self.brightness):
            inverted = (
                f"the images look inverted: their median brightness is {brightness:.3f}, and in training it was "
                f"{_words(self.brightness)}; swap dark and light"
            )
            return [*words, inverted]
        medians = {
            "brightness": (brightness, self.brightness),
            "contrast": (float(contrasts.median()), self.contrast),
        }
        return words + [
            f"the images have another {name} than in training: {value:.3f} at the median, against {_words(usual)}"
            for name, (value, usual) in medians.items()
            if not _within(value, usual)
        ]


def size_difference(size: tuple[int, int], wanted: tuple[int, int], resize_mode: str = STRETCH) -> str | None:
    """A word on images whose height and width had to be stretched, or enlarged to more than twice; else None."""
    up, wide = wanted[0] / size[0], wanted[1] / size[1]
    shape = f"the images are {size[0]}×{size[1]} and the detector works at {wanted[0]}×{wanted[1]}"
    if resize_mode == STRETCH and max(up / wide, wide / up) > MOST_STRETCH:
        return f"{shape}: they are stretched"
    return f"{shape}: they have less detail than those in training" if min(up, wide) > 2 else None


def size_words(
    heights: Sides, widths: Sides, seen: tuple[int, int], side: int, resize_mode: str = STRETCH
) -> list[str]:
    """What training pictures of these heights and widths, (N,), lose or cost where they are seen in height and width
    `seen`, in words; nothing where that is as it should be. side: of the square that training is made for
    """
    words, (height, width) = [], seen
    odd = np.maximum(heights * width / (widths * height), widths * height / (heights * width)) > MOST_STRETCH
    if resize_mode == STRETCH and odd.any():
        words.append(
            f"size: {odd.mean():.0%} of the pictures have other proportions than {height}×{width} and are stretched "
            f"to it; {setting('image_size')} sets another size, {setting('resize_mode', 'pad')} or crop keeps "
            "proportions"
        )
    if height * width > MOST_COST * side**2:
        words.append(
            f"size: the pictures are seen at {height}×{width}, which takes about {height * width / side**2:,.0f} "
            f"times the time and memory of {side}×{side}; {setting('image_size')} sets another, {setting('tile')} "
            "has them seen in parts"
        )
    return words


def is_gray(images: Tensor) -> Tensor:
    """Which images, uint8 or float in [0, 1], (N, C, H, W), of several channels have no colour, bool (N,)."""
    if images.shape[1] == 1:
        return torch.zeros(len(images), dtype=torch.bool)
    spread = (images.amax(dim=1) - images.amin(dim=1)).flatten(1).amax(dim=1)
    return (spread if images.dtype == torch.uint8 else 255 * spread) <= COLOURED


def gray_words(gray: Tensor) -> list[str]:
    """What to say of images to a detector that sees in colour, where most are gray, bool (N,)."""
    count = int(gray.sum())
    if 2 * count <= len(gray):
        return []
    return [f"{count:,} of {counted(len(gray), 'image')} have no colour, and the detector sees in colour"]


def brightness_contrast(images: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness and contrast of each image, float64 (N,), in [0, 1]."""
    values = images.flatten(1)
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    parts = [
        (part.double().mean(dim=1), part.double().std(dim=1, correction=0))
        for part in torch.split(values, max(1, VALUES_AT_ONCE // max(1, values.shape[1])))
    ]
    brightness, contrast = (torch.cat(column) / scale for column in zip(*parts, strict=True))
    return brightness, contrast


def _within(value: float, usual: tuple[float, float]) -> bool:
    """Whether a value is usual, or less than a gray level beside that, which nobody sees."""
    return usual[0] - GRAY_LEVEL < value < usual[1] + GRAY_LEVEL


def _words(usual: tuple[float, float]) -> str:
    return f"{usual[0]:.3f} to {usual[1]:.3f}"
