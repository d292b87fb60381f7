"""One image file to pixels: opened, turned, flattened, resized. Needs NumPy and Pillow alone, so a process that does
nothing else starts quickly.
"""

import io
import os
import stat
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomaly_ae.errors import DataDamaged, DataError, DataMissing, one_line

Pixels = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]  # C, H, W

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")  # no other decoder is ever run
MODES = {1: "L", 3: "RGB"}
MOST_PIXELS = 2**26  # of a file, 8192×8192; more is refused by its header
MOST_BYTES = 2**29
TOO_LARGE = f"has too many bytes for a picture; the most are {MOST_BYTES:,}"
STRETCH, INSIDE = "stretch", "inside"
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = range(5, 9)


@dataclass(frozen=True)
class Picture:
    """A decoded file: its pixels, uint8 (C, H, W), and the width and height it had, as it is seen."""

    pixels: Pixels
    width: int
    height: int


def read_file(path: bytes | str) -> bytes:
    """What a file holds. Raises `OSError`, and `DataError` when it is no file or far too large for a picture."""
    with open_file(path) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise DataDamaged("is no regular file")
        if about.st_size > MOST_BYTES:
            raise DataError(TOO_LARGE)
        return file.read()


def open_file(path: bytes | str) -> BinaryIO:
    """Open a file to read; a pipe that is called .png is not waited for."""
    return open(path, "rb", opener=lambda path, flags: os.open(path, flags | getattr(os, "O_NONBLOCK", 0)))


def decode(content: bytes, shape: Shape, fit: str = STRETCH) -> Picture:
    """The picture that a file's bytes hold, as uint8 of `shape` (C, H, W), C 1 or 3.

    Turned as its EXIF orientation says; transparency over black; 16 bits divided by 257, and so are 32, unless no
    value is above 255; floats up to 1 times 255; gray or colour as asked; of several frames or pages the first.
    fit: `stretch` to H×W, or `inside` H×W, never enlarged, at the top left
    Raises `DataDamaged` when it cannot be decoded, `DataError` when it has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return convert(image, shape, fit)
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        found = "is empty" if not content else "is not one, or its header is damaged"
        raise DataDamaged(f"cannot be read as an image ({found})") from error
    except Exception as error:  # decoders raise whatever a broken file makes them
        raise DataDamaged(f"cannot be read as an image ({one_line(error)})") from error


def convert(image: Image.Image, shape: Shape, fit: str = STRETCH) -> Picture:
    """The same of an image opened with Pillow."""
    channels, height, width = shape
    if channels not in MODES:
        raise DataError(f"pictures are gray or colour, and the detector takes {channels} channels")
    if image.width * image.height > MOST_PIXELS:
        raise DataError(f"{image.width}×{image.height} pixels are too many; the most are {MOST_PIXELS:,}")
    stored = image.size
    image.draft(MODES[channels], (max(width, height),) * 2)  # a JPEG is decoded to about the size needed
    image.load()  # here, for reading EXIF data may load what is damaged and say nothing; and a TIFF turns itself
    orientation = _orientation(image)
    seen = stored[::-1] if orientation in SIDEWAYS else stored
    if fit == INSIDE:
        width, height = size_inside(seen, (width, height))
    flat = _flat(image).convert(MODES[channels])
    turned = flat.transpose(TURNS[orientation]) if orientation in TURNS else flat
    small = turned if turned.size == (width, height) else turned.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.zeros(shape, np.uint8)
    pixels[:, :height, :width] = np.asarray(small).reshape(height, width, channels).transpose(2, 0, 1)
    return Picture(pixels, *seen)


def size_inside(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """A size scaled down, if need be, to lie within another, its proportions kept; both (width, height)."""
    scale = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(plane: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """A channel (H', W'), uint8 or float32, at H×W: bilinear, smoothed where it shrinks, as files are."""
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))


def reason(error: Exception) -> str:
    """What went wrong with a file, in a few words; its own name stands beside it."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be opened: {error.strerror}"
    return one_line(error)


def missing(error: Exception) -> bool:
    """Whether it was not the file's content that was at fault, so that another try may go well."""
    return isinstance(error, DataMissing) or (isinstance(error, OSError) and error.errno is not None)


def _orientation(image: Image.Image) -> int:
    """How it is to be turned, 1 to 8; 1, not at all, where its EXIF data are damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001  a picture with a broken remark is a picture
        return 1


def _flat(image: Image.Image) -> Image.Image:
    """8 bits a channel, and transparency over black."""
    if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16 or 8
        values = np.asarray(image).clip(0, 65_535)
        eight = image.mode == "I" and values.max() <= 255
        return Image.fromarray((values if eight else values // 257).astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        return Image.fromarray((values * (255 if values.max() <= 1 else 1)).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image
