"""All bits of pictures that have more than 8, whatever file they lie in."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.errors import DataError
from anomaly_ae.images.decode import Target, decode
from anomaly_ae.images.intensity import FLOAT, WHOLE, Intensity
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.runs.store import RunStore
from tests.images.test_intensity import cloth, fill, train

VALUES = np.random.default_rng(0).random((5, 7, 4))


def png(values: np.ndarray) -> bytes:
    """Of 16 bits, (H, W, 1 to 4)."""
    height, width, samples = values.shape
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[samples - 1], 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))),
        (b"IEND", b""),
    ):
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content


def tiff(values: np.ndarray, order: str = "<", packed: bool = False, zero: int = 1, planes: int = 1) -> bytes:
    """Of one strip, (H, W, 1, 3 or 4). order: of bytes; zero: photometric of gray, 0 where 0 is white"""
    height, width, samples = values.shape
    kind, size = values.dtype.kind, values.dtype.itemsize
    laid = np.moveaxis(values, 2, 0) if planes == 2 else values
    data = laid.astype(values.dtype.newbyteorder(order)).tobytes()
    strip = zlib.compress(data) if packed else data
    tags = {256: [width], 257: [height], 258: [8 * size] * samples, 259: [8 if packed else 1]}
    tags |= {262: [zero if samples == 1 else 2], 273: [8], 277: [samples], 278: [height], 279: [len(strip)]}
    tags |= {284: [planes]} | ({338: [2]} if samples == 4 else {}) | {339: [" uif".index(kind)] * samples}
    start = 8 + len(strip) + len(strip) % 2
    end, table, beyond = start + 2 + 12 * len(tags) + 4, b"", b""
    for tag, numbers in tags.items():
        field = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(field) > 4:
            field, beyond = struct.pack(f"{order}I", end + len(beyond)), beyond + field
        table += struct.pack(f"{order}HHI", tag, 3, len(numbers)) + field.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    count = struct.pack(f"{order}H", len(tags))
    return head + strip.ljust(start - 8, b"\0") + count + table + bytes(4) + beyond


def ppm(values: np.ndarray, white: int) -> bytes:
    return b"P6\n# of a camera\n%d %d\n%d\n" % (*values.shape[1::-1], white) + values.astype(">u2").tobytes()


def plain_ppm(values: np.ndarray, white: int) -> bytes:
    text = " ".join(map(str, values.flatten())).encode()
    return b"P3 %d %d # of a camera\n%d\n" % (*values.shape[1::-1], white) + text


def seen(content: bytes, intensity: Intensity, channels: int = 3) -> np.ndarray:
    """(H, W, C), 0 to 1."""
    picture = decode(content, Target((channels, *VALUES.shape[:2]), intensity=intensity))
    assert picture.kind == intensity.kind
    return picture.pixels.transpose(1, 2, 0) / 255


TWELVE = (VALUES * 4095).astype(np.uint16)


@pytest.mark.parametrize(
    "content",
    [
        png(TWELVE[..., :3]),
        *[tiff(TWELVE[..., :3], order, packed) for order in "<>" for packed in (False, True)],
        ppm(TWELVE[..., :3], 65535),
        ppm(TWELVE[..., :3], 4095),
        plain_ppm(TWELVE[..., :3], 4095),
    ],
)
def test_colours_of_16_bits_keep_all_of_them(content: bytes) -> None:
    assert np.abs(seen(content, Intensity(0, 4095, WHOLE)) - VALUES[..., :3]).max() < 0.003


@pytest.mark.parametrize("write", [png, tiff])
def test_their_transparency_lies_over_black(write: object) -> None:
    values = np.concatenate([TWELVE[..., :3], (VALUES[..., 3:] * 65535).astype(np.uint16)], axis=2)
    found = seen(write(values), Intensity(0, 4095, WHOLE))
    assert np.abs(found - VALUES[..., :3] * VALUES[..., 3:]).max() < 0.006
    gray = seen(png(values[..., 2:]), Intensity(0, 4095, WHOLE), 1)
    assert np.abs(gray - VALUES[..., 2:3] * VALUES[..., 3:]).max() < 0.006


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u2", "u4", "u8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("zero", [0, 1])
def test_any_numbers_in_a_tiff_are_read(kind: str, order: str, packed: bool, zero: int) -> None:
    least = 0 if kind[0] == "u" else -50
    content = tiff((VALUES[..., :1] * 120 + least).astype(kind), order, packed, zero)
    found = seen(content, Intensity(least, least + 120, FLOAT if kind[0] == "f" else WHOLE), 1)
    assert np.abs((found if zero else 1 - found) - VALUES[..., :1]).max() < 0.015


def test_colours_of_12_bits_in_16_are_seen_the_same_in_training_in_folders_and_from_python(tmp_path: Path) -> None:
    def make(values: np.ndarray, path: Path) -> None:
        colours = np.stack([values, values * 0.5, 1 - values], axis=2) * 4000
        Path(f"{path}.png").write_bytes(png(colours.astype(np.uint16)))

    detector = train(fill(tmp_path / "set", make, 40), RunStore.find(str(tmp_path / "mlruns")))
    assert detector.preprocessing.channels == 3
    assert detector.preprocessing.intensity == Intensity(0, 4095, WHOLE)
    fill(tmp_path / "new", make, 3, 100)
    rows = [row["score"] for row in detector.score_folder(tmp_path / "new")]
    files = sorted((tmp_path / "new").iterdir())
    assert detector.score([Image.open(file) for file in files]).tolist() == pytest.approx(rows, rel=1e-5)
    values = np.stack([cloth(100 + i) for i in range(3)])
    arrays = (np.stack([values, values * 0.5, 1 - values], axis=1) * 4000).astype(np.uint16)
    assert detector.score(arrays).tolist() == pytest.approx(rows, rel=1e-5)


def test_a_picture_that_was_opened_stays_as_it_is_and_can_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(TWELVE[..., :3]))
    preprocessing = Preprocessing(3, 5, 7, intensity=Intensity(0, 4095, WHOLE))
    with Image.open(tmp_path / "a.png") as image:
        once, again = preprocessing.prepare(image), preprocessing.prepare(image)
        assert once.equal(again)
        assert once.max() > 240
        assert np.asarray(image).tolist() == (TWELVE[..., :3] >> 8).tolist()


def test_a_mask_of_16_bits_in_colour_keeps_its_least_value() -> None:
    labels = np.zeros((5, 7, 3), np.uint16)
    labels[2, 3] = 1
    for content in (png(labels), ppm(labels, 65535), tiff(labels, ">", packed=True)):
        marked = decode(content, Target((1, 5, 7), mask=True)).pixels[0]
        assert np.argwhere(marked).tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"v/1\x01" + bytes(40), "is OpenEXR; save it as a TIFF of gray floats"),
        (b"PF\n1 1\n-1\n" + bytes(12), "is a PFM in colour; save it in gray"),
        (b"MM\0+" + bytes(40), "is a BigTIFF with the high bytes first"),
        (tiff(VALUES[..., :3].astype(np.float32)), "is a TIFF of 3 × 32 bits, floats; save it with 8 or 16 bits"),
        (tiff(TWELVE[..., :3], planes=2), "is a TIFF with colours in planes, of more than 8 bits; save it with"),
        (ppm(TWELVE[:3, :, :3], 4095).replace(b"7 3", b"7 5"), "is cut off"),
        (plain_ppm(TWELVE[:3, :, :3], 4095).replace(b"7 3", b"7 5"), "is cut off"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_what_cannot_be_read_is_said_with_what_to_do(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        decode(content, Target((1, 5, 7)))


def test_a_pfm_is_a_picture(tmp_path: Path) -> None:
    rows = VALUES[::-1, :, 0].astype("<f4")  # from the bottom up
    (tmp_path / "a.pfm").write_bytes(b"Pf\n7 5\n-1.0\n" + rows.tobytes())
    data = PictureData.open(str(tmp_path))
    assert data.find_intensity() == Intensity(0, 1, FLOAT)
    pixels = data.load(Preprocessing(1, 5, 7, intensity=data.find_intensity())).files["train"].images[0, 0]
    assert np.abs(pixels.numpy() / 255 - VALUES[..., 0]).max() < 0.003


def test_values_that_span_more_than_a_number_can_say_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff((VALUES[..., :1] * 2 - 1) * 1.7e308))
    with pytest.raises(DataError, match="the range of the pictures' values comes to -1"):
        PictureData.open(str(tmp_path)).find_intensity()


def test_a_turned_picture_of_16_bits_in_colour_is_turned_once() -> None:
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(TWELVE[..., 0]).save(content, "TIFF", exif=exif)
    picture = decode(content.getvalue(), Target((1, 7, 5), intensity=Intensity(0, 4095, WHOLE)))
    assert (picture.width, picture.height) == (5, 7)
    assert np.abs(picture.pixels[0] / 255 - np.rot90(VALUES[..., 0], -1)).max() < 0.003
