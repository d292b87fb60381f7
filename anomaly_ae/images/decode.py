"""One image file to pixels: opened, turned, flattened, resized. Needs NumPy and Pillow alone, so a process that does
nothing else starts quickly.
"""

import contextlib
import io
import math
import os
import stat
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomaly_ae.errors import DataDamaged, DataError, DataMissing, one_line
from anomaly_ae.escaping import counted
from anomaly_ae.images.deep import DeepImage, kind_of, reopen, unread_words
from anomaly_ae.images.intensity import EIGHT, Intensity, Values
from anomaly_ae.images.masks import MaskColours, cover, find_defects, find_named
from anomaly_ae.images.roi import Mask, RegionOfInterest

Pixels = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]  # C, H, W

FILE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")  # no other decoder is ever run
OF_SEVERAL = ("TIFF", "GIF", "WEBP", "PNG")  # formats whose further pages or frames are pictures of their own
MODES = {1: "L", 3: "RGB"}
LARGEST_PICTURE = 2**26  # of a file, 8192×8192; more is refused by its header
LARGEST_FILE = 2**29
TOO_LARGE = f"has too many bytes for a picture; the most are {LARGEST_FILE:,}"
# A JPEG may be decoded to a half, quarter or eighth if that is still so many times larger than what is wanted: from
# there on it is made smaller as all others, so that its pixels are those of the whole picture but for their rounding.
FINER = 4
STRETCH, PAD, CROP, INSIDE = "stretch", "pad", "crop", "inside"
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
PLAIN_ALPHA = {"La": "LA", "RGBa": "RGBA"}  # modes whose colours were multiplied


@dataclass(frozen=True)
class Target:
    """What a picture is to become.

    shape:     C, H, W, C 1 or 3
    resize_mode: see `place`
    intensity: which values are black and white in files of more than 8 bits; None where those of the training had 8
    sample:    how many of its values are wanted as they are in the file, see `DeepImage.sample`
    mask:      whether it is a mask of defects: 255 for what is defective, see `find_defects`
    roi:       what is looked at; None for all
    colours:   what those of a mask stand for, see `find_named`; None where that is not said
    """

    shape: Shape
    resize_mode: str = STRETCH
    intensity: Intensity | None = None
    sample: int = 0
    mask: bool = False
    roi: RegionOfInterest | None = None
    colours: MaskColours | None = None


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    pixels:        uint8 (C, H, W)
    width, height: that it had, as it is seen
    kind:          what its values are, one of `intensity.KINDS`
    clipped:       the share of its values that lay beyond black or white
    sample:        of the values as they are in the file, where it was asked for and they have more than 8 bits
    further:       whether the file has further pages or frames
    """

    pixels: Pixels
    width: int
    height: int
    kind: str = EIGHT
    clipped: float = 0.0
    sample: Values | None = None
    further: bool = False


def read_file(path: bytes | str) -> bytes:
    """What a file holds. Raises `OSError`, and `DataError` when it is no file or far too large for a picture."""
    with open_file(path) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise DataDamaged("is no regular file")
        if about.st_size > LARGEST_FILE:
            raise DataError(TOO_LARGE)
        return file.read()


def open_file(path: bytes | str) -> BinaryIO:
    """Open a file to read; a pipe that is called .png is not waited for."""
    return open(path, "rb", opener=lambda path, flags: os.open(path, flags | getattr(os, "O_NONBLOCK", 0)))


def decode(content: bytes, target: Target) -> Picture:
    """The picture that a file's bytes hold, as `target` says.

    Turned as its EXIF orientation says; transparency over black; more than 8 bits and floats as `Intensity` says;
    gray or colour as asked; of several frames or pages the first.
    Raises `DataDamaged` when it cannot be decoded, `DataError` when it has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FILE_FORMATS) as image:
            further = False
            with contextlib.suppress(Exception):  # what follows a good picture may be damaged
                further = image.format in OF_SEVERAL and bool(getattr(image, "is_animated", False))
            picture = _convert_mask(image, target) if target.mask else convert(image, target, draft=True)
            return replace(picture, further=further)
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataDamaged(f"cannot be read as an image ({unread_words(content)})") from error
    except Exception as error:  # decoders raise whatever a broken file makes them
        raise DataDamaged(f"cannot be read as an image ({one_line(error)})") from error


def convert(image: Image.Image, target: Target, draft: bool = False) -> Picture:
    """The same of an image opened with Pillow. draft: whether a JPEG may be opened smaller, see `FINER`."""
    channels, height, width = target.shape
    if channels not in MODES:
        raise DataError(f"pictures are gray or colour, and the detector takes {channels} channels")
    _require_size(image)
    stored, roi = image.size, target.roi
    if draft and roi is None:  # of a smaller one, pixels at the edge of what is looked at would be part of both sides
        image.draft(None, _least(image.size, (width, height), target.resize_mode))
    kind, clipped, sample = kind_of(image), 0.0, None
    if kind == EIGHT:
        image.load()  # here, for reading EXIF data may load what is damaged and say nothing; and a TIFF turns itself
        flat = _flat(image)
    else:
        image = reopen(image)  # who opened it may show it again, and is not to find it loaded, with half of its bits
        deep = DeepImage.of(image)
        if roi is not None:
            deep = replace(deep, within=_as_stored(roi, deep.values.shape[1::-1], _orientation(image)))
        flat, clipped = deep.to_image(target.intensity)
        sample = deep.sample(target.sample) if target.sample else None
    orientation = _orientation(image)
    seen = _turned(stored, orientation)
    plain = flat.convert(MODES[channels])
    turned = plain.transpose(TURNS[orientation]) if orientation in TURNS else plain
    part = turned if roi is None else roi.cut_image(turned)
    pixels = np.zeros(target.shape, np.uint8)
    _put(pixels, part, place(part.size, (width, height), target.resize_mode))
    return Picture(pixels, *seen, kind, clipped, sample)


def seen_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image opened with Pillow, as it is seen."""
    return _turned(image.size, _orientation(image))


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return size[::-1] if orientation in SIDEWAYS else size


def _as_stored(roi: RegionOfInterest, size: tuple[int, int], orientation: int) -> Mask:
    """Which pixels of a picture that is stored in `size`, (width, height), are looked at, (H, W)."""
    mask = roi.mask(_turned(size, orientation))
    back = {6: 8, 8: 6}.get(orientation, orientation)
    return np.asarray(Image.fromarray(mask).transpose(TURNS[back])) if orientation in TURNS else mask


def _convert_mask(image: Image.Image, target: Target) -> Picture:
    _require_size(image)
    defects = find_defects(image) if target.colours is None else find_named(image, target.colours)
    stored = Image.fromarray(defects)
    orientation = _orientation(image)  # only now, for it may load what has more than 8 bits
    turned = stored.transpose(TURNS[orientation]) if orientation in TURNS else stored
    defective = np.asarray(turned) if target.roi is None else target.roi.cut(np.asarray(turned))
    placed = place(defective.shape[::-1], target.shape[:0:-1], target.resize_mode)
    left, top, width, height = placed.at
    pixels = np.zeros(target.shape, np.uint8)
    pixels[:, top : top + height, left : left + width] = 255 * cover(defective, placed.seen, (width, height))
    return Picture(pixels, *turned.size)


def _require_size(image: Image.Image) -> None:
    if image.width * image.height > LARGEST_PICTURE:
        raise DataError(f"{image.width}×{image.height} pixels are too many; the most are {LARGEST_PICTURE:,}")


@dataclass(frozen=True)
class Fitted:
    """Which part of a picture is seen, and where it lies in the detector's H×W.

    seen: left, top, right, bottom in the picture's pixels
    at:   left, top, width, height in those of the detector
    """

    seen: tuple[float, float, float, float]
    at: tuple[int, int, int, int]


def place(size: tuple[int, int], box: tuple[int, int], resize_mode: str) -> Fitted:
    """How a picture of `size` comes into `box`, both (width, height).

    resize_mode: `stretch`, all of it on all of the box; `pad`, all of it, proportions kept, black around it; `crop`,
    as much of its middle as fills the box, proportions kept; `inside`, all of it, never enlarged, at the top left
    """
    width, height = size
    whole = (0.0, 0.0, float(width), float(height))
    if resize_mode == CROP:
        scale = max(box[0] / width, box[1] / height)
        left, top = (width - box[0] / scale) / 2, (height - box[1] / scale) / 2
        return Fitted((left, top, width - left, height - top), (0, 0, *box))
    if resize_mode == PAD:
        scale = min(box[0] / width, box[1] / height)
        small = max(1, round(width * scale)), max(1, round(height * scale))
        return Fitted(whole, ((box[0] - small[0]) // 2, (box[1] - small[1]) // 2, *small))
    return Fitted(whole, (0, 0, *(size_inside(size, box) if resize_mode == INSIDE else box)))


def place_in_whole(size: tuple[int, int], target: Target) -> Fitted:
    """How what is looked at of a picture of `size`, (width, height), comes into a target; `seen` in all of it."""
    box = target.shape[2], target.shape[1]
    if target.roi is None:
        return place(size, box, target.resize_mode)
    x, y, *_ = target.roi.bounds(size)
    height, width = target.roi.part_size(size[::-1])
    placed = place((width, height), box, target.resize_mode)
    left, top, right, bottom = placed.seen
    return replace(placed, seen=(x + left, y + top, x + right, y + bottom))


def _least(stored: tuple[int, int], box: tuple[int, int], resize_mode: str) -> tuple[int, int]:
    """The least width and height that a file may be decoded to, whichever way up it is."""
    side = FINER * max(box)
    if resize_mode != CROP:
        return side, side
    scale = side / min(stored)
    return math.ceil(stored[0] * scale), math.ceil(stored[1] * scale)


def _put(pixels: npt.NDArray[Any], image: Image.Image, placed: Fitted) -> None:
    """Put what is seen of an image where it belongs in pixels (C, H, W), smoothed where it shrinks."""
    left, top, width, height = placed.at
    small = image.resize((width, height), Image.Resampling.BILINEAR, box=placed.seen)
    seen = np.asarray(small).reshape(height, width, len(pixels))
    pixels[:, top : top + height, left : left + width] = seen.transpose(2, 0, 1)


def size_inside(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """A size scaled down, if need be, to lie within another, its proportions kept; both (width, height)."""
    scale = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_plane(plane: npt.NDArray[Any], height: int, width: int, resize_mode: str = STRETCH) -> npt.NDArray[Any]:
    """A channel (H', W'), uint8 or float32, at H×W: bilinear, smoothed where it shrinks, as files are."""
    image, resized = Image.fromarray(plane), np.zeros((height, width), plane.dtype)
    _put(resized[None], image, place(image.size, (width, height), resize_mode))
    return resized


def put_back(heat: npt.NDArray[np.float32], size: tuple[int, int], target: Target) -> npt.NDArray[np.float32]:
    """A map (h, w) of what a detector saw, over the whole picture of `size`, (width, height), of which that `target`
    was made; 0 where it saw nothing.
    """
    seen, rows, columns = _seen(heat, size, target)
    whole = np.zeros(size[::-1], np.float32)
    whole[rows, columns] = resize_plane(
        np.ascontiguousarray(seen), rows.stop - rows.start, columns.stop - columns.start
    )
    return whole if target.roi is None else np.where(target.roi.mask(size), whole, np.float32(0))


def put_mask_back(mask: npt.NDArray[np.bool_], size: tuple[int, int], target: Target) -> npt.NDArray[np.bool_]:
    """The same of a mask (h, w); of what is made smaller, no part is lost."""
    seen, rows, columns = _seen(mask, size, target)
    whole = np.zeros(size[::-1], np.bool_)
    of_all = (0.0, 0.0, float(seen.shape[1]), float(seen.shape[0]))
    whole[rows, columns] = cover(seen, of_all, (columns.stop - columns.start, rows.stop - rows.start))
    return whole if target.roi is None else whole & target.roi.mask(size)


def _seen(plane: npt.NDArray[Any], size: tuple[int, int], target: Target) -> tuple[npt.NDArray[Any], slice, slice]:
    """What there is of a picture in a plane (h, w) of a detector, and its rows and columns in the picture."""
    placed = place_in_whole(size, target)
    left, top, width, height = placed.at
    x0, y0, x1, y1 = (round(edge) for edge in placed.seen)
    rows, columns = slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))
    return plane[top : top + height, left : left + width], rows, columns


def reason(error: Exception) -> str:
    """What went wrong with a file, in a few words; its own name stands beside it."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be opened: {error.strerror}"
    return one_line(error)


def missing(error: Exception) -> bool:
    """Whether it was not the file's content that was at fault, so that another try may go well."""
    return isinstance(error, DataMissing) or (isinstance(error, OSError) and error.errno is not None)


def further_words(count: int) -> list[str]:
    """What to say where so many files have further pages or frames."""
    return [f"{counted(count, 'file has', 'files have')} further pages or frames; the first is used"] if count else []


def _orientation(image: Image.Image) -> int:
    """How it is to be turned, 1 to 8; 1, not at all, where its EXIF data are damaged, or Pillow does it (TIFF)."""
    if image.format == "TIFF":
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001  a picture with a broken remark is a picture
        return 1


def _flat(image: Image.Image) -> Image.Image:
    """A picture of 8 bits, gray or in colour, with transparency over black."""
    if image.has_transparency_data:
        image = image.convert(PLAIN_ALPHA.get(image.mode, "RGBA")).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB") if image.mode == "LAB" else image  # which has no way to gray
