import dataclasses
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import DataDamaged, DataError
from anomaly_ae.images.decode import CROP, INSIDE, PAD, STRETCH, Picture, Target, put_back, read_file, size_inside
from anomaly_ae.images.decode import decode as decode_content
from anomaly_ae.images.preprocessing import resize

GRAY, COLOUR = (1, 4, 6), (3, 4, 6)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
RGB = np.dstack([PIXELS, 255 - PIXELS, PIXELS])


def decode(content: bytes, shape: tuple[int, int, int], resize_mode: str = STRETCH) -> Picture:
    return decode_content(content, Target(shape, resize_mode))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def damaged(content: bytes) -> bytes:
    """With a byte changed in the middle of its data."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises much and whose data are few."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_gray_pixels_come_as_they_are_and_as_colour(kind: str) -> None:
    content = encoded(Image.fromarray(PIXELS), kind)
    assert decode(content, GRAY).pixels.tolist() == [PIXELS.tolist()]
    assert decode(content, COLOUR).pixels.tolist() == [PIXELS.tolist()] * 3


def test_colour_pixels_come_as_they_are_and_lossy_kinds_nearly() -> None:
    image = Image.fromarray(RGB)
    assert decode(encoded(image), COLOUR).pixels.tolist() == RGB.transpose(2, 0, 1).tolist()
    flat = np.full((4, 6, 3), (90, 120, 60), np.uint8)
    for kind in ("JPEG", "WEBP"):
        pixels = decode(encoded(Image.fromarray(flat), kind, quality=100), COLOUR).pixels.transpose(1, 2, 0)
        assert np.abs(pixels.astype(int) - flat).max() <= 4
    cmyk = decode(encoded(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=100), COLOUR).pixels
    assert np.abs(cmyk.transpose(1, 2, 0).astype(int) - flat).max() <= 6


def test_transparency_lies_over_black() -> None:
    alpha = np.where(PIXELS > 127, 255, 0).astype(np.uint8)
    rgba = Image.fromarray(np.dstack([PIXELS, PIXELS, PIXELS, alpha]))
    assert decode(encoded(rgba), GRAY).pixels[0].tolist() == np.where(PIXELS > 127, PIXELS, 0).tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, PIXELS),
        (2, PIXELS[:, ::-1]),
        (3, PIXELS[::-1, ::-1]),
        (4, PIXELS[::-1]),
        (5, PIXELS.T),
        (6, np.rot90(PIXELS)),
        (7, PIXELS[::-1, ::-1].T),
        (8, np.rot90(PIXELS, -1)),
    ],
)
def test_the_exif_orientation_is_followed(orientation: int, stored: np.ndarray, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    picture = decode(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **lossless), GRAY)
    assert np.abs(picture.pixels[0].astype(int) - PIXELS).max() <= 3
    assert (picture.width, picture.height) == (6, 4)


def test_of_several_frames_or_pages_the_first_is_taken() -> None:
    image, other = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    for kind in ("GIF", "TIFF"):
        content = encoded(image, kind, save_all=True, append_images=[other])
        assert decode(content, GRAY).pixels.tolist() == [PIXELS.tolist()]


def test_other_sizes_are_resized_as_arrays_are() -> None:
    large = np.random.default_rng(1).integers(0, 256, (9, 20, 3), dtype=np.uint8)
    expected = resize(torch.from_numpy(large).permute(2, 0, 1)[None], (4, 6))[0]
    picture = decode(encoded(Image.fromarray(large)), COLOUR)
    assert picture.pixels.tolist() == expected.tolist()
    assert (picture.width, picture.height) == (20, 9)


def test_a_large_jpeg_is_about_what_it_would_be_decoded_in_full() -> None:
    ramp = np.linspace(0, 255, 640 * 480).reshape(480, 640).astype(np.uint8)
    picture = decode(encoded(Image.fromarray(ramp), "JPEG", quality=95), GRAY)
    expected = resize(torch.from_numpy(ramp)[None, None], (4, 6))[0].numpy()
    assert np.abs(picture.pixels.astype(int) - expected).max() <= 4
    assert (picture.width, picture.height) == (640, 480)


def test_a_picture_can_be_fitted_inside_with_its_proportions() -> None:
    picture = decode(encoded(Image.fromarray(np.full((10, 40), 200, np.uint8))), (1, 8, 8), INSIDE)
    assert picture.pixels[0].tolist() == [[200] * 8] * 2 + [[0] * 8] * 6
    assert size_inside((3, 2), (8, 8)) == (3, 2)  # never enlarged
    assert size_inside((30_000, 1), (8, 8)) == (8, 1)


@pytest.mark.parametrize("size", [(1, 1), (30_000, 2), (2, 30_000)])
def test_any_size_will_do(size: tuple[int, int]) -> None:
    content = encoded(Image.fromarray(np.full(size[::-1], 7, np.uint8)))
    assert (decode(content, GRAY).pixels == 7).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"nonsense", "its header is damaged"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF\n", "its header is damaged"),  # a decoder that is never run
        (encoded(Image.fromarray(RGB))[:60], "cannot be read as an image"),
        (encoded(Image.fromarray(RGB)).replace(b"IDAT", b"IDAU"), "cannot be read as an image"),
        (damaged(encoded(Image.fromarray(np.tile(PIXELS, (9, 9))))), "cannot be read as an image"),
    ],
)
def test_what_is_no_whole_image_is_damaged(content: bytes, reason: str) -> None:
    with pytest.raises(DataDamaged, match=reason):
        decode(content, GRAY)


def test_too_many_pixels_are_refused_by_the_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(DataError, match="100000×100000 pixels are too many"):
        decode(bomb(100_000, 100_000), GRAY)


def test_a_detector_of_two_channels_takes_no_files() -> None:
    with pytest.raises(DataError, match="takes 2 channels"):
        decode(encoded(Image.fromarray(PIXELS)), (2, 4, 6))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataDamaged, match="no regular file"):
        read_file(bytes(tmp_path / "pipe.png"))


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(3 * 2**30)  # sparse
    with pytest.raises(DataError, match="too many bytes"):
        read_file(bytes(tmp_path / "a.png"))


def halves(width: int, height: int) -> Image.Image:
    """Left half dark, right half bright."""
    pixels = np.full((height, width), 50, np.uint8)
    pixels[:, width // 2 :] = 200
    return Image.fromarray(pixels)


def test_padding_keeps_all_of_a_picture_and_its_proportions() -> None:
    wide = decode(encoded(halves(40, 20)), (1, 16, 16), PAD).pixels[0]
    assert not wide[:4].any()
    assert not wide[12:].any()
    assert wide[4:12, :7].tolist() == [[50] * 7] * 8
    assert wide[4:12, 9:].tolist() == [[200] * 7] * 8
    small = decode(encoded(halves(4, 2)), (1, 16, 16), PAD).pixels[0]  # enlarged, unlike what is put inside
    assert small[4:12].all()


def test_cropping_keeps_the_middle_and_fills_all() -> None:
    tall = decode(encoded(halves(20, 60)), (1, 10, 10), CROP).pixels[0]
    assert tall[:, :4].tolist() == [[50] * 4] * 10
    assert tall[:, 6:].tolist() == [[200] * 4] * 10
    wide = decode(encoded(halves(60, 20)), (1, 20, 10), CROP).pixels[0]
    assert wide.tolist() == [[50] * 5 + [200] * 5] * 20


def test_a_large_jpeg_is_cropped_to_its_middle_however_it_is_decoded() -> None:
    content = encoded(halves(2400, 400), "JPEG", quality=95)
    pixels = decode(content, (1, 32, 32), CROP).pixels[0]
    assert int(pixels[:, :14].max()) < 60
    assert int(pixels[:, 18:].min()) > 190


@pytest.mark.parametrize("resize_mode", [STRETCH, PAD, CROP])
def test_arrays_are_fitted_as_files_are(resize_mode: str) -> None:
    image = halves(37, 22)
    whole = torch.from_numpy(np.array(image))[None, None]
    assert torch.equal(
        resize(whole, (16, 12), resize_mode)[0],
        torch.from_numpy(decode(encoded(image), (1, 16, 12), resize_mode).pixels),
    )


@pytest.mark.parametrize(
    ("resize_mode", "size"), [(STRETCH, (40, 20)), (PAD, (40, 20)), (PAD, (20, 40)), (CROP, (40, 20))]
)
def test_a_map_is_put_back_where_the_detector_looked(resize_mode: str, size: tuple[int, int]) -> None:
    width, height = size
    pixels = np.zeros((height, width), np.uint8)
    pixels[8:12, 16:20] = 255 if width == 40 else 0
    pixels[18:22, 8:12] = 255 if height == 40 else 0
    seen = decode(encoded(Image.fromarray(pixels)), (1, 16, 16), resize_mode).pixels[0].astype(np.float32)
    back = put_back(seen, size, Target((1, 16, 16), resize_mode))
    assert back.shape == (height, width)
    centre = [float((np.indices(back.shape)[axis] * back).sum() / back.sum()) for axis in (0, 1)]
    true = [float((np.indices(back.shape)[axis] * pixels).sum() / pixels.sum()) for axis in (0, 1)]
    assert centre == pytest.approx(true, abs=0.8)


def test_what_can_be_asked_for_is_what_can_be_done() -> None:
    fields = {field.name: field for field in dataclasses.fields(RunConfig)}
    assert fields["resize_mode"].metadata["choices"] == (STRETCH, PAD, CROP)
