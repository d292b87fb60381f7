"""What images a detector takes, and how they become what its network sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from anomaly_ae.data import decoding
from anomaly_ae.data.decoders import Decoders
from anomaly_ae.data.images import ImageSet
from anomaly_ae.data.sources import Source
from anomaly_ae.errors import DataError, one_line
from anomaly_ae.schema import OneOf, Side

Images = Tensor | npt.NDArray[Any] | Image.Image | Sequence[Image.Image]


@dataclass(frozen=True)
class Preprocessing:
    """Images of one size, `channels` × `height` × `width`; those of another height or width are resized to it.

    fit: what is done with other proportions: stretch, pad or crop, see `decoding.place`
    """

    channels: Side
    height: Side
    width: Side
    fit: Annotated[str, OneOf((decoding.STRETCH, decoding.PAD, decoding.CROP))] = decoding.STRETCH

    @classmethod
    def for_shape(cls, shape: Sequence[int], fit: str = decoding.STRETCH) -> "Preprocessing":
        channels, height, width = shape
        return cls(channels, height, width, fit)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def decoders(self, source: Source, workers: int | None = None) -> Decoders:
        """Processes that decode a source's files to such images."""
        return Decoders(source, self.shape, workers, self.fit)

    def prepare(self, images: Images) -> Tensor:
        """Images as a tensor (N, C, H, W): uint8 or float in [0, 1], (N, C, H', W'), of the same type; one of
        Pillow's, or a list of them, as uint8, as a file would be, but for a JPEG, which is decoded in full first.

        Raises `DataError`, saying what is wrong with them, when they are no such images.
        """
        if pictures := _pictures(images):
            return torch.from_numpy(np.stack([self._convert(picture) for picture in pictures]))
        return resize(self._check(images), (self.height, self.width), self.fit)

    def prepare_set(self, images: ImageSet) -> ImageSet:
        """The same with labelled images."""
        return ImageSet(self.prepare(images.images), images.labels, images.names)

    def _convert(self, picture: Image.Image) -> decoding.Pixels:
        try:
            return decoding.convert(
                picture.copy(), self.shape, self.fit
            ).pixels  # a copy, for drafts alter what they read
        except OSError as error:  # it was opened, and is decoded only here
            raise DataError(f"an image cannot be decoded ({one_line(error)})") from error

    def _check(self, images: Images) -> Tensor:
        """The images as a tensor, if they are what the detector takes but for their size."""
        if isinstance(images, np.ndarray) and images.dtype.kind in "uif":
            images = torch.from_numpy(
                np.array(images, order="C")
            )  # a copy: flipped and read-only views are taken too
        if not isinstance(images, Tensor):
            kind = f"array of {images.dtype}" if isinstance(images, np.ndarray) else type(images).__name__
            raise DataError(
                f"images are a torch tensor, a NumPy array of numbers or Pillow images, and these are: {kind}"
            )
        if images.ndim != 4 or images.shape[1] != self.channels or 0 in images.shape[2:]:
            wanted, given = "×".join(map(str, self.shape)), "×".join(map(str, images.shape))
            raise DataError(f"the detector takes images N×{wanted} (N×C×H×W), and was given {given}")
        if images.dtype == torch.uint8:
            return images
        if not images.is_floating_point():
            raise DataError(f"images are uint8 from 0 to 255 or float from 0 to 1, and these are {images.dtype}")
        if len(images) and not bool(((images >= 0) & (images <= 1)).all()):  # a NaN fails both comparisons
            raise DataError("float images must lie in [0, 1], and some values do not; divide by 255 or clean them")
        return images


def size_of(images: Images) -> tuple[int, int]:
    """Height and width of images, of the first of Pillow's."""
    if pictures := _pictures(images):
        return pictures[0].height, pictures[0].width
    height, width = images.shape[-2:]  # type: ignore[union-attr]
    return height, width


def _pictures(images: Any) -> list[Image.Image]:
    """The images of Pillow that were given, or none."""
    pictures = [images] if isinstance(images, Image.Image) else images if isinstance(images, list | tuple) else []
    return list(pictures) if all(isinstance(picture, Image.Image) for picture in pictures) else []


def resize(images: Tensor, size: tuple[int, int], fit: str = decoding.STRETCH) -> Tensor:
    """Images (N, C, H', W'), uint8 or float in [0, 1], at `size`, each channel as that of a file."""
    if tuple(images.shape[-2:]) == size:
        return images
    planes = images if images.dtype == torch.uint8 else images.float()
    flat = planes.cpu().contiguous().flatten(0, 1).numpy()
    resized = np.zeros((len(flat), *size), flat.dtype)
    for i, plane in enumerate(flat):
        resized[i] = decoding.resize(plane, *size, fit)
    return torch.from_numpy(resized).view(*images.shape[:2], *size).to(images.device, images.dtype)
