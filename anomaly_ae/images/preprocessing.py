"""What images a detector takes, and how they become what its network sees."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from anomaly_ae.errors import DataError, OtherBrightness, one_line
from anomaly_ae.images import decode
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.intensity import KINDS, WHOLE, Intensity, intensity_differences, to_bytes
from anomaly_ae.images.listing import Source
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.storage.schema import OneOf, Side


@dataclass(frozen=True)
class Preprocessed:
    """Images that `Preprocessing` has made, uint8 or float in [0, 1] (N, C, H, W): no whole pictures any more."""

    pixels: Tensor


Images = Tensor | npt.NDArray[Any] | Image.Image | Sequence[Image.Image] | Preprocessed


@dataclass(frozen=True)
class Preprocessing:
    """Images of one size, `channels` × `height` × `width`; those of another height or width are resized to it.

    resize_mode: what is done with other proportions: stretch, pad or crop, see `decode.place`
    intensity: which values are black and white in files of more than 8 bits, as found in the training; None where
               those had 8
    roi:       the parts of a picture that are looked at; None for all of it
    """

    channels: Side
    height: Side
    width: Side
    resize_mode: Annotated[str, OneOf((decode.STRETCH, decode.PAD, decode.CROP))] = decode.STRETCH
    intensity: Intensity | None = None
    roi: RegionOfInterest | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def part_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what is looked at of a picture of `size`, height and width."""
        return size if self.roi is None else self.roi.part_size(size)

    @property
    def target(self) -> decode.Target:
        """What a file is to become."""
        return decode.Target(self.shape, self.resize_mode, self.intensity, roi=self.roi)

    def decoders(self, source: Source, workers: int | None = None) -> Decoders:
        """Processes that decode a source's files to such images."""
        return Decoders(source, self.target, workers)

    def prepare(self, images: Images) -> Tensor:
        """Images as a tensor (N, C, H, W): uint8 or float in [0, 1], (N, C, H', W'), of the same type; other whole
        numbers as uint8, by the `intensity`; one of Pillow's, or a list of them, as uint8, as their files would be;
        those that are `Preprocessed` as they are.

        Raises `DataError`, saying what is wrong with them, when they are no such images. A warning `OtherBrightness`
        says that files or whole numbers are of another kind than the `intensity` is for, or lose values.
        """
        prepared, differences = self.prepare_and_compare(images)
        for difference in differences:
            warnings.warn(f"brightness: {difference}", OtherBrightness, stacklevel=4)  # whoever had them scored
        return prepared

    def prepare_and_compare(self, images: Images) -> tuple[Tensor, list[str]]:
        """The same, and in words what it would have warned of."""
        if isinstance(images, Preprocessed):
            return images.pixels, []
        if pictures := _pictures(images):
            try:
                read = [decode.convert(picture, self.target) for picture in pictures]
            except (DataError, MemoryError):
                raise
            except Exception as error:  # it was opened, and is decoded only here; or it is closed
                raise DataError(f"an image cannot be decoded ({one_line(error)})") from error
            kinds = np.array([KINDS.index(one.kind) for one in read])
            clipped = np.array([one.clipped for one in read])
            pixels = torch.from_numpy(np.stack([one.pixels for one in read]))
            return pixels, intensity_differences(self.intensity, kinds, clipped)
        tensor, differences = self._to_tensor(images), list[str]()
        if tensor.ndim != 4 or tensor.shape[1] != self.channels or 0 in tensor.shape[2:]:
            expected, actual = "×".join(map(str, self.shape)), "×".join(map(str, tensor.shape))
            raise DataError(f"the detector takes images N×{expected} (N×C×H×W), and was given {actual}")
        inside = None
        if self.roi is not None:
            tensor, inside = _crop(tensor, self.roi)
        is_float = tensor.is_floating_point()
        if is_float and not bool(((tensor >= 0) & (tensor <= 1)).all()):  # a NaN fails both comparisons
            raise DataError("float images must lie in [0, 1], and some values do not; divide by 255 or clean them")
        if not is_float and tensor.dtype != torch.uint8:
            tensor, differences = self._scale(tensor)
        if inside is not None:
            tensor = tensor * inside.to(tensor.device)
        return resize(tensor, (self.height, self.width), self.resize_mode), differences

    def prepare_set(self, images: ImageSet, dataset: Dataset) -> ImageSet:
        """The same with images of a data set, unless they have been prepared."""
        if dataset.prepared:
            return images
        return ImageSet(self.prepare(images.images), images.labels, images.names)

    def _to_tensor(self, images: Images) -> Tensor:
        """An array of numbers of whatever byte order and layout as a tensor."""
        if isinstance(images, Tensor):
            plain = images.detach() if images.requires_grad else images
            return plain if plain.layout == torch.strided else plain.to_dense()
        if type(images) is np.ndarray and images.dtype.kind in "uif":  # a masked array would lose its mask
            kind: np.dtype[Any] = images.dtype.newbyteorder("=") if images.dtype.itemsize <= 8 else np.dtype(float)
            return torch.from_numpy(np.array(images, kind, order="C"))  # a copy: of flipped and read-only views, too
        of_what = f" of {images.dtype}" if hasattr(images, "dtype") else ""
        raise DataError(
            "images are a torch tensor, a NumPy array of numbers or Pillow images, and these are: "
            f"{type(images).__name__}{of_what}"
        )

    def _scale(self, images: Tensor) -> tuple[Tensor, list[str]]:
        """Whole numbers, as files have them, as uint8 between black and white, and what to say of those beyond."""
        whole = images.dtype not in (torch.bool, torch.complex64, torch.complex128)
        if not whole or self.intensity is None or self.intensity.kind != WHOLE:
            raise DataError(f"images are uint8 from 0 to 255 or float from 0 to 1, and these are {images.dtype}")
        values, low, high = images.cpu().numpy(), self.intensity.low, self.intensity.high
        beyond = ((values < low) | (values > high)).mean(axis=(1, 2, 3))
        kinds = np.full(len(values), KINDS.index(WHOLE))
        return torch.from_numpy(to_bytes(values, low, high)[0]), intensity_differences(self.intensity, kinds, beyond)


def _crop(images: Tensor, roi: RegionOfInterest) -> tuple[Tensor, Tensor]:
    """The box around what is looked at of images (N, C, H, W), and which of its pixels are, bool (h, w). The others
    have the value of one that is, so that nothing is said of them.
    """
    values, inside = roi.crop(images.cpu().numpy())
    filled = np.where(inside, values, values[..., inside][..., :1, None])
    return torch.from_numpy(filled).to(images.device), torch.from_numpy(inside.copy())


def size_of(images: Images) -> tuple[int, int]:
    """Height and width of images, of the first of Pillow's as it is seen."""
    if pictures := _pictures(images):
        return decode.seen_size(pictures[0])[::-1]
    pixels = images.pixels if isinstance(images, Preprocessed) else images
    height, width = pixels.shape[-2:]  # type: ignore[union-attr]  # Pillow's are done with
    return height, width


def sizes_of(images: Images, count: int) -> list[tuple[int, int]]:
    """Width and height of each of `count` images, of Pillow's as they are seen."""
    if pictures := _pictures(images):
        return [decode.seen_size(picture) for picture in pictures]
    height, width = size_of(images)
    return [(width, height)] * count


def _pictures(images: Any) -> list[Image.Image]:
    """The images of Pillow that were given, or none."""
    pictures = [images] if isinstance(images, Image.Image) else images if isinstance(images, list | tuple) else []
    return list(pictures) if all(isinstance(picture, Image.Image) for picture in pictures) else []


def resize(images: Tensor, size: tuple[int, int], resize_mode: str = decode.STRETCH) -> Tensor:
    """Images (N, C, H', W'), uint8 or float in [0, 1], at `size`, each channel as that of a file."""
    if tuple(images.shape[-2:]) == size:
        return images
    planes = images if images.dtype == torch.uint8 else images.float()
    flat = planes.cpu().contiguous().flatten(0, 1).numpy()
    resized = np.zeros((len(flat), *size), flat.dtype)
    for i, plane in enumerate(flat):
        resized[i] = decode.resize_plane(plane, *size, resize_mode)
    return torch.from_numpy(resized).view(*images.shape[:2], *size).to(images.device, images.dtype)
