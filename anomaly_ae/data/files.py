"""Image files: finding them in a folder, and one file's bytes to what a detector takes."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from anomaly_ae.data.preprocessing import Preprocessing, resize
from anomaly_ae.errors import DataDamaged, DataError, DataMissing, one_line

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp"))
MOST_PIXELS = 2**26  # of a file, 8192×8192; more is refused before anything is decoded
MODES = {1: "L", 3: "RGB"}


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, hidden ones left out, in order of their paths.

    Raises `DataMissing` when it is no folder or holds none.
    """
    if not folder.is_dir():
        raise DataMissing(f"{folder} is no folder; name one that holds images")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    shown = sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if not shown:
        raise DataMissing(f"there is no image in {folder}; taken are {', '.join(sorted(SUFFIXES))}")
    return shown


def image_sizes(paths: Iterable[Path]) -> list[tuple[int, int]]:
    """Height and width in pixels that the headers of files state; files that cannot be read are left out."""
    sizes = []
    for path in paths:
        with contextlib.suppress(Exception), Image.open(path) as image:  # decoders raise whatever they like
            sizes.append((image.height, image.width))
    return sizes


def read_image(path: Path, preprocessing: Preprocessing) -> Tensor:
    """One file as uint8 (C, H, W) at the size in `preprocessing`.

    Turned as its EXIF orientation says; transparency over black; 16 bits divided by 257; gray or colour as needed.
    Raises `DataDamaged` when it cannot be read, `DataError` when it is too large or the detector takes neither gray
    nor colour.
    """
    channels, height, width = preprocessing.shape
    if channels not in MODES:
        raise DataError(f"files are gray or colour, and the detector takes {channels} channels")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{image.width}×{image.height} pixels are too many; the most are {MOST_PIXELS:,}")
            side = max(height, width)  # EXIF may turn it
            image.draft(MODES[channels], (side, side))  # a JPEG is decoded to about the size needed
            pixels = np.array(_flat(ImageOps.exif_transpose(image)).convert(MODES[channels]))
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever a broken file makes them
        raise DataDamaged(f"cannot be read as an image ({one_line(error)})") from error
    tensor = torch.from_numpy(pixels).reshape(*pixels.shape[:2], channels).permute(2, 0, 1)
    return resize(tensor[None], (height, width))[0].contiguous()


def _flat(image: Image.Image) -> Image.Image:
    """8 bits a channel, and transparency over black."""
    if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16
        return Image.fromarray((np.array(image).clip(0, 65_535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image
