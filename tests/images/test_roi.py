"""What lies outside the region of interest changes nothing, whatever it is and however the file is stored."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import DataDamaged, DataError, DataMissing, UsageError
from anomaly_ae.images.decode import CROP, ORIENTATION, PAD, STRETCH, Target, decode, put_back, put_mask_back
from anomaly_ae.images.intensity import WHOLE, Intensity
from anomaly_ae.images.listing import NOT_KNOWN
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.roi import MOST_BOXES, RegionOfInterest
from anomaly_ae.images.roi_file import read_roi
from anomaly_ae.images.sources import open_source
from anomaly_ae.storage.schema import Mismatch, parse
from tests.images.test_decode import bomb

RNG = np.random.default_rng(0)
SIZE = 24, 16  # width, height
LEFT_MIDDLE = RegionOfInterest(((0.25, 0.25, 0.25, 0.5),))
TWO = RegionOfInterest(((0.0, 0.0, 0.25, 0.5), (0.5, 0.25, 0.5, 0.75)))
MODES = pytest.mark.parametrize("resize_mode", [STRETCH, PAD, CROP])
REGIONS = pytest.mark.parametrize("roi", [LEFT_MIDDLE, TWO], ids=["box", "two"])


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def with_other_outside(pixels: np.ndarray, roi: RegionOfInterest) -> np.ndarray:
    """A picture (H, W) or (H, W, 3) with other values of the whole range outside."""
    other = RNG.integers(0, np.iinfo(pixels.dtype).max, pixels.shape, pixels.dtype, endpoint=True)
    inside = roi.mask((pixels.shape[1], pixels.shape[0]))
    return np.where(inside if pixels.ndim == 2 else inside[..., None], pixels, other)


@pytest.mark.parametrize("size", [(5, 7), (60, 40), (1, 1)])
def test_boxes_of_a_mask_are_the_mask_to_the_pixel(size: tuple[int, int]) -> None:
    mask = RNG.random(size) < 0.6
    mask[0, 0] = True
    roi = RegionOfInterest.of_mask(mask)
    assert (roi.mask(size[::-1]) == mask).all()
    rows, columns = np.nonzero(mask)
    assert roi.bounds(size[::-1]) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("width", range(1, 40))
def test_boxes_that_adjoin_leave_no_gap_at_any_size(width: int) -> None:
    stairs = np.tri(23, dtype=bool)[:, ::-1]
    roi = RegionOfInterest.of_mask(stairs)
    columns = roi.mask((width, width)).sum(axis=0)
    assert (np.diff(columns) >= 0).all()
    assert columns.max() == width


def test_a_picture_too_small_for_it_still_has_a_pixel_of_it() -> None:
    roi = RegionOfInterest(((0.9, 0.9, 0.01, 0.01),))
    assert roi.mask((3, 2)).sum() == 1
    left, top, right, bottom = roi.bounds((3, 2))
    assert roi.mask((3, 2))[top:bottom, left:right].all()
    assert roi.cut(np.full((1, 2, 3), 7, np.uint8)).tolist() == [[[7]]]


@MODES
@REGIONS
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kind", "depth"), [("PNG", np.uint8), ("TIFF", np.uint8), ("PNG", np.uint16), ("TIFF", np.uint16)]
)
def test_pixels_outside_change_nothing(
    kind: str, depth: type, channels: int, roi: RegionOfInterest, resize_mode: str
) -> None:
    shape = (16, 24, 3) if channels == 3 and depth is np.uint8 else (16, 24)
    pixels = RNG.integers(0, 900 if depth is np.uint16 else 255, shape, depth)
    intensity = Intensity(0, 1023, WHOLE) if depth is np.uint16 else None
    target = Target((channels, 10, 12), resize_mode, intensity, sample=9, roi=roi)
    first = decode(encoded(pixels, kind), target)
    for _ in range(3):
        other = decode(encoded(with_other_outside(pixels, roi), kind), target)
        assert other.pixels.tobytes() == first.pixels.tobytes()
        assert other.clipped == first.clipped == 0
        if first.sample is not None:
            assert other.sample is not None
            assert other.sample.tolist() == first.sample.tolist()
    assert first.pixels.any()
    assert (first.width, first.height) == SIZE


def test_floats_that_are_no_numbers_outside_do_no_harm_and_inside_are_told() -> None:
    pixels = np.full((16, 24), np.nan, np.float32)
    target = Target((1, 4, 6), roi=LEFT_MIDDLE)
    with pytest.raises(DataError, match="no value that is a number"):
        decode(encoded(np.where(LEFT_MIDDLE.mask(SIZE), pixels, 0.5), "TIFF"), target)
    assert (decode(encoded(np.where(LEFT_MIDDLE.mask(SIZE), 1.0, pixels), "TIFF"), target).pixels == 255).all()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_it_is_of_the_picture_as_it_is_seen(turn: int, depth: type) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    stored = (16, 24) if turn < 5 else (24, 16)
    pixels = RNG.integers(1, 200, stored, depth)
    intensity = Intensity(0, 255, WHOLE) if depth is np.uint16 else None
    whole = decode(encoded(pixels, exif=exif), Target((1, 16, 24), intensity=intensity)).pixels
    x, y, width, height = 6, 4, 6, 8
    target = Target((1, height, width), intensity=intensity, sample=48, roi=LEFT_MIDDLE)
    seen = decode(encoded(pixels, exif=exif), target)
    expected = whole[:, y : y + height, x : x + width]
    assert seen.pixels.tolist() == expected.tolist()
    if seen.sample is not None:
        assert seen.sample.tolist() == sorted(expected.flatten().tolist())


def test_a_large_jpeg_is_looked_at_in_full() -> None:
    """Opened at an eighth, as it could be for so few pixels, those at the edge would be made of both sides."""
    inside = np.zeros((1600, 1600), np.uint8)
    inside[800:, :800] = 255
    target = Target((1, 8, 8), roi=RegionOfInterest(((0.0, 0.0, 0.49, 0.5), (0.0, 0.0, 0.1, 0.1))))
    dark = decode(encoded(np.zeros_like(inside), "JPEG"), target).pixels
    assert decode(encoded(inside, "JPEG"), target).pixels.tolist() == dark.tolist()


@MODES
@REGIONS
def test_arrays_and_images_are_seen_as_their_files(roi: RegionOfInterest, resize_mode: str) -> None:
    pixels = RNG.integers(0, 255, (16, 24), np.uint8)
    preprocessing = Preprocessing(1, 10, 12, resize_mode, roi=roi)
    as_file = torch.from_numpy(decode(encoded(pixels), preprocessing.target).pixels)
    assert torch.equal(preprocessing.prepare(torch.from_numpy(pixels)[None, None])[0], as_file)
    assert torch.equal(preprocessing.prepare(Image.fromarray(pixels))[0], as_file)
    as_float = preprocessing.prepare(torch.from_numpy(pixels)[None, None] / 255)[0]
    assert torch.allclose(255 * as_float, as_file.float(), atol=1.01)  # rounded twice, in each direction once


def test_of_arrays_only_what_is_looked_at_has_to_be_an_image(tmp_path: Path) -> None:
    values = RNG.integers(1000, 2001, (2, 1, 16, 24)).astype(np.int32)
    preprocessing = Preprocessing(1, 10, 12, STRETCH, Intensity(1000, 2000, WHOLE), TWO)
    seen, said = preprocessing.prepare_and_compare(values)
    outside = ~TWO.mask(SIZE)
    values[..., outside] = 60_000
    again, said_again = preprocessing.prepare_and_compare(values)
    assert torch.equal(again, seen)
    assert said == said_again == []
    floats = torch.rand(1, 1, 16, 24)
    floats[..., torch.from_numpy(outside)] = torch.nan
    assert bool(preprocessing.prepare(floats).isfinite().all())
    floats[0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match=r"float images must lie in \[0, 1\]"):
        preprocessing.prepare(floats)


def test_it_reaches_the_processes_that_decode_however_long_it_is(tmp_path: Path) -> None:
    mask = RNG.random((120, 150)) < 0.4
    roi = RegionOfInterest.of_mask(mask)
    assert len(roi.boxes) > 3_000
    pixels = RNG.integers(0, 255, (120, 150), np.uint8)
    (tmp_path / "a.png").write_bytes(encoded(pixels))
    preprocessing = Preprocessing(1, 120, 150, roi=RegionOfInterest((*roi.boxes, (0.0, 0.0, 1 / 150, 1 / 120))))
    with preprocessing.decoders(open_source(tmp_path), 1) as decoders:
        record = decoders.decode([b"a.png"], np.full(1, NOT_KNOWN))[0]
    mask[0, 0] = True
    assert record["pixels"][0].tolist() == np.where(mask, pixels, 0).tolist()


@MODES
@REGIONS
def test_maps_and_masks_lie_inside_where_they_are_put_back(roi: RegionOfInterest, resize_mode: str) -> None:
    target = Target((1, 10, 12), resize_mode, roi=roi)
    over, mask = (
        put(np.ones((10, 12), kind), (240, 160), target)
        for put, kind in ((put_back, np.float32), (put_mask_back, bool))
    )
    inside = roi.mask((240, 160))
    assert not over[~inside].any()
    assert not mask[~inside].any()
    if resize_mode != CROP:
        assert over[inside].all()
        assert mask[inside].all()


@MODES
def test_a_map_is_put_back_to_the_place_it_is_of(resize_mode: str) -> None:
    roi = RegionOfInterest(((0.5, 0.25, 0.5, 0.5),))
    pixels = np.zeros((80, 120), np.uint8)
    pixels[36:44, 86:94] = 255
    seen = decode(encoded(pixels), Target((1, 20, 20), resize_mode, roi=roi)).pixels[0]
    back = put_back(seen.astype(np.float32), (120, 80), Target((1, 20, 20), resize_mode, roi=roi))
    rows, columns = np.nonzero(back > 128)
    assert (rows.mean(), columns.mean()) == pytest.approx((39.5, 89.5), abs=1.5)


def test_defects_outside_are_none() -> None:
    mask = np.zeros((16, 24), np.uint8)
    mask[2, 2] = mask[8, 8] = 255
    seen = decode(encoded(mask), Target((1, 8, 6), mask=True, roi=LEFT_MIDDLE)).pixels[0]
    assert np.argwhere(seen).tolist() == [[4, 2]]


def drawn(path: Path, mode: str, background: object, white: object) -> str:
    image = Image.new(mode, SIZE, background)
    ImageDraw.Draw(image).rectangle((6, 4, 11, 11), fill=white)
    image.save(path)
    return str(path)


@pytest.mark.parametrize(
    ("mode", "background", "white"),
    [("L", 0, 255), ("L", 100, 140), ("1", 0, 1), ("RGB", (0, 0, 0), (255, 255, 255))],
)
def test_the_white_of_a_file_is_looked_at(tmp_path: Path, mode: str, background: object, white: object) -> None:
    roi, size = read_roi(drawn(tmp_path / "roi.png", mode, background, white))
    assert roi == LEFT_MIDDLE
    assert size == (16, 24)


def test_what_is_transparent_in_a_file_is_not_looked_at(tmp_path: Path) -> None:
    assert read_roi(drawn(tmp_path / "roi.png", "RGBA", (255, 255, 255, 0), (255, 255, 255, 255)))[0] == LEFT_MIDDLE


def test_boxes_are_read_as_they_are_written() -> None:
    text = "0,0,.25,0.5+0.5,0.25,0.5,0.75"
    assert RunConfig(roi=text).roi == text
    for listed in (["0,0,.25,0.5", "0.5,0.25,0.5,0.75"], [[0, 0, ".25", 0.5], [0.5, 0.25, 0.5, 0.75]]):
        assert RunConfig(roi=listed).roi == text
    assert RunConfig(roi=[0.5, 0.25, 0.5, 0.75]).roi == "0.5,0.25,0.5,0.75"
    assert read_roi("0, 0, .25, 0.5 + 0.5, 0.25, 0.5, 0.75") == read_roi(text)
    assert read_roi(text) == (TWO, None)


@pytest.mark.parametrize(
    "text",
    [
        "0.1,0.2,0.3",
        "0.1,0.2,0.3,0.4,0.5",
        "0,0,0,1",
        "0.5,0,0.6,1",
        "0,0,50,60",
        "-0.1,0,0.5,0.5",
        "0,0,1,1+0.5,0.5,1,1",
    ],
)
def test_boxes_that_are_none_are_told_before_anything_else(text: str) -> None:
    with pytest.raises(UsageError, match="boxes x,y,w,h in shares of the picture"):
        RunConfig(roi=text)


def test_a_file_that_is_none_or_says_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"no file .*missing\.png"):
        read_roi(str(tmp_path / "missing.png"))
    with pytest.raises(DataMissing, match="region of interest"):
        read_roi(str(tmp_path))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataDamaged, match=r"text\.png"):
        read_roi(str(tmp_path / "text.png"))
    with pytest.raises(UsageError, match="nothing in it is white, its brightest value is 100 of 255"):
        read_roi(drawn(tmp_path / "black.png", "L", 0, 100))
    (tmp_path / "bomb.png").write_bytes(bomb(20_000, 20_000))
    with pytest.raises(DataDamaged, match=r"bomb\.png cannot be read as an image"):
        read_roi(str(tmp_path / "bomb.png"))
    with pytest.raises(DataMissing, match="no file a"):
        read_roi("a\0b")
    ragged = RNG.random((400, 400)) < 0.5
    Image.fromarray(ragged).save(tmp_path / "ragged.png")
    with pytest.raises(UsageError, match=f"the most are {MOST_BOXES:,}"):
        read_roi(str(tmp_path / "ragged.png"))


@pytest.mark.parametrize(
    "boxes", [[], [[0, 0, 1]], [[0, 0, 2, 1]], [[0, 0, 0, 1]], [[0.5, 0, 0.6, 1]], [[0, 0, "1", 1]]]
)
def test_a_damaged_one_is_no_region(boxes: list[object]) -> None:
    with pytest.raises(Mismatch):
        parse(RegionOfInterest, {"boxes": boxes})
