"""Pictures of more than 8 bits with all their bits: of colours Pillow drops half of these, and some TIFFs it refuses
or confuses. Needs NumPy and Pillow alone.
"""

import io
import math
import re
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from anomaly_ae.errors import DataDamaged, DataError
from anomaly_ae.images.intensity import EIGHT, FLOAT, WHITE, WHOLE, Array, Intensity, Values, to_bytes
from anomaly_ae.images.roi import Mask

# How Pillow hands out all bytes of a pixel, by their count: modes and raw modes. Six and eight take two readings, one
# of the even bytes and one of the odd.
READINGS = {
    1: [("L", "L")],
    2: [("LA", "LA")],
    4: [("RGBA", "RGBA")],
    6: [("RGB", "RGB;16B"), ("RGB", "RGB;16L")],
    8: [("RGBA", "RGBA;16B"), ("RGBA", "RGBA;16L")],
}
PNG_SAMPLES = {"LA;16B": 2, "RGB;16B": 3, "RGBA;16B": 4}  # of 16 bits, by raw mode
PHOTOMETRIC, SAMPLES, PLANES, EXTRA, NUMBER_FORMAT = 262, 277, 284, 338, 339  # tags of TIFF,
BITS, FILL_ORDER = 258, 266
WHITE_IS_ZERO, BLACK_IS_ZERO, COLOUR = 0, 1, 2  # and what they may say
NUMPY_KINDS = {1: "u", 2: "i", 3: "f"}  # of NumPy, by the tag NUMBER_FORMAT
NUMBER_WORDS = {1: "whole numbers", 2: "whole numbers with a sign", 3: "floats"}
PREMULTIPLIED, NO_ALPHA = 1, 0
# Pillow opens no TIFFs of these types until it is told that they exist. It cannot load them by this raw mode and will
# say so, as before; what is here can. Twelve packed bits it knows, but for one order of two bytes.
ONLY_HERE = "all bytes"
NUMBER_TYPES = [(1, 16), (1, 32), (1, 64), (2, 8), (2, 16), (2, 32), (2, 64), (3, 16), (3, 32), (3, 64)]
GRAY = [
    (((1,), 1, (12,), ()), ("I;16", "I;12")),
    *[(((number,), 1, (bits,), ()), ("F" if number == 3 else "I", ONLY_HERE)) for number, bits in NUMBER_TYPES],
    *[(((1,), 1, (16, 16), (extra,)), ("LA", ONLY_HERE)) for extra in range(3)],
]
for order, zero, (about, modes) in product((b"II", b"MM"), (WHITE_IS_ZERO, BLACK_IS_ZERO), GRAY):
    TiffImagePlugin.OPEN_INFO.setdefault((order, zero, *about), modes)


@dataclass(frozen=True)
class DeepImage:
    """A picture of more than 8 bits.

    values:   (H, W, C), C 1 or 3, as they are in the file
    alpha:    how much of each pixel is seen, (H, W), in [0, 1]; None for all
    white:    which of the values is white by their type or the file's header
    inverted: whether dark and light are swapped
    within:   which pixels are looked at, bool (H, W); None for all
    """

    kind: str
    values: Array
    alpha: Values | None
    white: float
    inverted: bool
    within: Mask | None = None

    def __post_init__(self) -> None:
        """Raise `DataDamaged` when none of the values that are looked at is a number."""
        if self.kind == FLOAT and not np.isfinite(self._looked_at).any():
            raise DataDamaged("holds no value that is a number")

    @classmethod
    def of(cls, image: Image.Image) -> "DeepImage":
        """Of a picture opened with Pillow, best before it is loaded, for then all bits are there.

        Raises `DataDamaged` when none of its values is a number, `DataError` when colours lie in planes.
        """
        kind, samples = kind_of(image), _read_samples(image)
        colours = 3 if samples.shape[2] >= 3 else 1
        values, rest = samples[..., :colours], samples[..., colours:]
        if (transparent := image.info.get("transparency")) is not None:
            values = np.where((values == transparent).all(axis=2, keepdims=True), 0, values)
        tags = getattr(image, "tag_v2", {})
        opaque = not rest.shape[2] or tags.get(EXTRA, (None,))[0] in (NO_ALPHA, PREMULTIPLIED)
        alpha = None if opaque else rest[..., 0] / np.iinfo(rest.dtype).max
        return cls(kind, values, alpha, _netpbm_white(image) or WHITE[kind], tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)

    def to_image(self, intensity: Intensity | None) -> tuple[Image.Image, float]:
        """It with 8 bits, gray or RGB, over black, and the share of its values that lay beyond black or white and was
        clipped; what is no number counts as such, and is black.
        """
        is_same_kind = intensity is not None and intensity.kind == self.kind
        low, high = (intensity.low, intensity.high) if intensity and is_same_kind else (0, self.white)
        within = True if self.within is None else self.within
        planes, clipped = zip(
            *(to_bytes(plane, low, high, within) for plane in np.moveaxis(self.values, 2, 0)), strict=True
        )
        pixels = np.stack(planes, axis=2)
        if self.inverted:
            pixels = 255 - pixels
        if self.alpha is not None:
            pixels = np.rint(pixels * self.alpha[..., None]).astype(np.uint8)
        return Image.fromarray(pixels if len(planes) > 1 else pixels[..., 0]), sum(clipped) / len(clipped)

    def sample(self, count: int) -> Values:
        """So many of its values in order, the least first and the most last, between them evenly chosen ones."""
        values = self._looked_at[np.isfinite(self._looked_at)].astype(np.float64)
        chosen = np.sort(values[np.linspace(0, len(values) - 1, count).astype(int)])
        chosen[0], chosen[-1] = values.min(), values.max()
        return chosen

    @property
    def _looked_at(self) -> Array:
        return self.values if self.within is None else self.values[self.within]


def kind_of(image: Image.Image) -> str:
    """What a picture's values are."""
    if (stored := _stored_type(image)) is not None:
        return FLOAT if stored.base.kind == "f" else WHOLE
    if _netpbm_white(image):
        return WHOLE
    return FLOAT if image.mode == "F" else WHOLE if image.mode.startswith("I") else EIGHT


def reopen(image: Image.Image) -> Image.Image:
    """Another one of the same file and frame, if it is not loaded; else the image."""
    if _first_part(image) is None:
        return image
    again = Image.open(io.BytesIO(_content(image)), formats=[image.format or ""])
    again.seek(image.tell())
    return again


def unread_words(content: bytes) -> str:
    """What a file is that Pillow does not know, and what to do, where that can be told."""
    if not content:
        return "is empty"
    if content.startswith(b"v/1\x01"):
        return "is OpenEXR; save it as a TIFF of gray floats"
    if content.startswith(b"PF"):
        return "is a PFM in colour; save it in gray"
    if content.startswith(b"MM\0+"):
        return "is a BigTIFF with the high bytes first; save it with the low ones first"
    try:
        with io.BytesIO(content) as file:
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if content[2:3] == b"+" else 8))
            file.seek(tags.next)
            tags.load(file)
        bits, number = max(tags[BITS]), NUMBER_WORDS.get(tags.get(NUMBER_FORMAT, (1,))[0], "no numbers")
        what = f"is a TIFF of {tags.get(SAMPLES, 1)} × {bits} bits, {number}"
        return f"{what}; save it with 8 or 16 bits, or as gray floats"
    except Exception:  # noqa: BLE001  it is no TIFF, or a broken one
        return "is not one, or its header is damaged"


def _stored_type(image: Image.Image) -> "np.dtype[Any] | None":
    """The type of a pixel in a file that is not loaded, an array of as many numbers as it has samples, where all its
    bytes are to be read. None where Pillow has the values right.
    """
    if (part := _first_part(image)) is None:
        return None
    if image.format == "PNG":
        return np.dtype((">u2", (PNG_SAMPLES[part.args],))) if part.args in PNG_SAMPLES else None
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    tags, by_libtiff = image.tag_v2, part.codec_name == "libtiff"  # which gives numbers in the machine's order
    bits, letter = set(tags.get(BITS, (1,))), NUMPY_KINDS.get(tags.get(NUMBER_FORMAT, (1,))[0])
    samples, meaning = tags.get(SAMPLES, 1), tags.get(PHOTOMETRIC, WHITE_IS_ZERO)
    colours = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, COLOUR: 3}.get(meaning, samples + 1)
    is_reversed = tags.get(FILL_ORDER, 1) != 1 and not by_libtiff
    is_usual = bits not in ({8}, {16}, {32}, {64}) or (bits == {8} and letter == "u")
    if is_usual or is_reversed or letter is None or not colours <= samples <= colours + 1:
        return None
    order = "=" if by_libtiff else "<" if tags.prefix == TiffImagePlugin.II else ">"
    return np.dtype((f"{order}{letter}{bits.pop() // 8}", (samples,)))


def _read_samples(image: Image.Image) -> Array:
    """All values of a picture, (H, W, 1 to 4)."""
    if _netpbm_white(image):
        return _read_netpbm(image)
    if (stored := _stored_type(image)) is None:
        return np.asarray(image)[..., None]
    if stored.shape[0] > 1 and getattr(image, "tag_v2", {}).get(PLANES) == 2:
        raise DataError("is a TIFF with colours in planes, of more than 8 bits; save it with the colours interleaved")
    readings = list[Array]()
    for mode, raw_mode in READINGS[stored.itemsize]:
        again: Any = reopen(image)
        again._mode = mode
        again.tile = [  # the raw mode is the first of a decoder's arguments, or the only one
            part._replace(args=raw_mode if isinstance(part.args, str) else (raw_mode, *part.args[1:]))
            for part in again.tile
        ]
        readings.append(np.asarray(again).reshape(again.height, again.width, -1))
    raw = np.stack(readings, axis=3)  # (H, W, bytes of a reading, readings)
    return raw.reshape(*raw.shape[:2], -1).view(stored.base)


def _netpbm_white(image: Image.Image) -> int | None:
    """What is white by the header of a PGM or PPM of more than 8 bits that is not loaded."""
    if image.format != "PPM" or (part := _first_part(image)) is None:
        return None
    if part.args == "I;16B":
        return 65_535
    white = part.args[1] if part.codec_name in ("ppm", "ppm_plain") and isinstance(part.args, tuple) else 0
    return int(white) if white > WHITE[EIGHT] and image.mode in ("I", "RGB") else None


def _read_netpbm(image: Image.Image) -> Array:
    part = _first_part(image)
    shape = image.height, image.width, len(image.getbands())
    content, count = _content(image)[part.offset :], math.prod(shape)
    if part.codec_name == "ppm_plain":
        values = np.array(re.sub(rb"#[^\r\n]*", b"", content).split()[:count], object).astype(np.uint16)
    else:
        values = np.frombuffer(content, ">u2", min(count, len(content) // 2))
    if len(values) < count:
        raise DataDamaged("is cut off")
    return values.reshape(shape)


def _first_part(image: Image.Image) -> Any:
    """Where and how the first part of a picture lies in its file; None when it is loaded, or never was in one."""
    parts = getattr(image, "tile", None)
    return parts[0] if parts else None


def _content(image: Image.Image) -> bytes:
    """All bytes of the file of a picture that is not loaded."""
    file: Any = image.fp  # type: ignore[attr-defined]  # pictures that were opened have one
    position = file.tell()
    file.seek(0)
    content: bytes = file.read()
    file.seek(position)
    return content
