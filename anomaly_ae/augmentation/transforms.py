"""How training images may be varied and stay normal, which only their owner knows: a flipped digit is not normal."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from anomaly_ae.errors import UnknownName
from anomaly_ae.runtime.torch_state import drawn_by
from anomaly_ae.storage.memmap import take_rows
from anomaly_ae.storage.pixel_values import as_bytes, as_float

Augment = Callable[[Tensor], Tensor]  # images (N, C, H, W), uint8 or float in [0, 1] -> the same, float and varied
LIGHT = 0.2  # by which brightness and contrast change at the most
VARIED_AT_ONCE = 16  # images that are varied as floats


def flip(side: int, images: Tensor) -> Tensor:
    """Half of the images, by chance, mirrored along `side`."""
    return torch.where(_random(images) < 0.5, images.flip(side), images)


def flips(images: Tensor) -> Tensor:
    """Mirrored along both sides, each by chance."""
    return flip(3, flip(2, images))


def turns(images: Tensor) -> Tensor:
    """By 0, 90, 180 or 270 degrees, and mirrored; by 0 or 180 where the images are not square."""
    square = images.shape[2] == images.shape[3]
    return flips(torch.where(_random(images) < 0.5, images.transpose(2, 3), images) if square else images)


def light(images: Tensor) -> Tensor:
    """Brighter or darker, and of more or less contrast, by up to a fifth."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    brightness, contrast = (1 + LIGHT * (2 * _random(images) - 1) for _ in range(2))
    return ((images - mean) * contrast + mean * brightness).clamp(0, 1)


def _random(images: Tensor) -> Tensor:
    return torch.rand(len(images), 1, 1, 1, device=images.device)


@dataclass(frozen=True)
class AugmentationEntry:
    """A line of the catalogue."""

    about: str
    augment: Augment


AUGMENTATIONS: dict[str, AugmentationEntry] = {
    "as-is": AugmentationEntry("not varied, whatever the preset says", lambda images: images),
    "mirror": AugmentationEntry("left and right exchanged", partial(flip, 3)),
    "flips": AugmentationEntry("left and right, and top and bottom exchanged", flips),
    "turns": AugmentationEntry("turned by right angles and mirrored", turns),
    "light": AugmentationEntry("brighter or darker, with more or less contrast, by up to a fifth", light),
}


def find_augmentations(name: str | None) -> list[Augment]:
    """The augmentations in a name, which may be several joined by +; none for None. Raises `UnknownName`."""
    parts = [part.strip() for part in name.split("+")] if name else []
    for part in parts:
        if part not in AUGMENTATIONS:
            raise UnknownName("augmentation", part, [*AUGMENTATIONS, "or several joined by +, as in flips+light"])
    return [AUGMENTATIONS[part].augment for part in parts]


def build_augmentation(name: str | None) -> Augment:
    """The augmentation called `name`, one after another where several are joined by +. Raises `UnknownName`."""
    steps = find_augmentations(name)

    def augment(images: Tensor) -> Tensor:
        images = as_float(images)
        for step in steps:
            images = step(images)
        return images

    return augment


@torch.no_grad()
def varied_copies(images: Tensor, augment: Augment, copies: int, seed: int) -> Tensor:
    """Images, uint8 or float (N, C, H, W), `copies` times, (copies·N, C, H, W): once as they are, then varied, by
    chance that goes by the seed alone. With one copy, the images themselves.
    """
    if copies == 1:
        return images
    varied = take_rows(images, torch.arange(len(images)).repeat(copies))
    with drawn_by(seed):
        for part in torch.split(varied[len(images) :], VARIED_AT_ONCE):
            changed = augment(part)
            part.copy_(as_bytes(changed) if part.dtype == torch.uint8 else changed)
    return varied
