"""Masks as people bring them: no defect is lost, whatever they are called, coloured, packed or sized."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.errors import DataError
from anomaly_ae.images import decode
from anomaly_ae.images.decode import CROP, PAD, STRETCH, Target
from anomaly_ae.images.masks import MaskColours
from anomaly_ae.images.preprocessing import Preprocessing

LABELS = np.zeros((64, 64), np.uint8)
LABELS[4:20, 4:20], LABELS[30:40, 30:40], LABELS[50:60, 50:60] = 1, 2, 3
WHERE = LABELS > 0


def coloured() -> np.ndarray:
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[LABELS == 1], colours[LABELS == 2], colours[LABELS == 3] = (255, 0, 0), (0, 9, 0), (0, 0, 255)
    return colours


def palette(*colours: int, indices: np.ndarray = LABELS) -> Image.Image:
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.flatten().tolist())
    image.putpalette([*colours])
    return image


def bordered() -> np.ndarray:
    """As Pascal VOC has them: 1, and 255 around."""
    mask = WHERE.astype(np.uint8)
    mask[4, 4:20] = 255
    return mask


def translucent() -> np.ndarray:
    return np.dstack([np.full((64, 64, 3), 200, np.uint8), WHERE.astype(np.uint8)])  # alpha 1 of 255


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray(WHERE.astype(np.uint8) * 255), "PNG"),
        (Image.fromarray(WHERE), "PNG"),  # 1 bit
        (Image.fromarray(WHERE), "TIFF"),
        (Image.fromarray(LABELS), "PNG"),
        (Image.fromarray(LABELS), "BMP"),
        (Image.fromarray(LABELS.astype(np.uint16)), "PNG"),
        (Image.fromarray(WHERE.astype(np.uint16) * 65535), "PNG"),
        (Image.fromarray(LABELS.astype(np.int32)), "TIFF"),
        (Image.fromarray(-LABELS.astype(np.float32) / 100), "TIFF"),
        (palette(0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0), "PNG"),
        (palette(0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0), "PNG"),  # labels without colours of their own
        (palette(0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0), "GIF"),
        (palette(200, 0, 0, 0, 0, 0, indices=(~WHERE).astype(np.uint8)), "PNG"),  # in whatever order
        (palette(20, 20, 90, 128, 0, 0, 0, 128, 0, 128, 128, 0), "PNG"),  # nothing is black
        (Image.fromarray(coloured()), "PNG"),
        (Image.fromarray(bordered()), "PNG"),
        (Image.fromarray(translucent()), "PNG"),
        (Image.fromarray(translucent()), "WEBP"),
        (Image.fromarray(np.dstack([np.zeros((64, 64, 3), np.uint8), LABELS])), "PNG"),  # black, and alpha tells
        (Image.fromarray(np.dstack([np.zeros((64, 64, 3), np.uint8), LABELS])), "WEBP"),
        (Image.fromarray(np.dstack([np.where(WHERE, 0, 255).astype(np.uint8), LABELS])), "PNG"),  # black on nothing
        (Image.fromarray(np.dstack([LABELS, np.full((64, 64), 255, np.uint8)])), "PNG"),
        (Image.fromarray(WHERE.astype(np.uint8) * 255), "JPEG"),
    ],
)
def test_all_that_is_not_background_is_defective(image: Image.Image, kind: str) -> None:
    content = io.BytesIO()
    image.save(content, kind, **{"lossless": True} if kind == "WEBP" else {})
    picture = decode.decode(content.getvalue(), Target((1, 64, 64), mask=True))
    wrong = (picture.pixels[0] > 0) != WHERE
    assert wrong.sum() <= (30 if kind == "JPEG" else 0)  # whose edges are not sharp


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.fromarray(coloured()), ""),
        (Image.fromarray(np.where(coloured().any(axis=2, keepdims=True), coloured(), 255)), ""),  # on white
        (palette(7, 8, 9, 255, 0, 0, 0, 9, 0, 0, 0, 255), ""),  # the colour that is named as background
        (Image.fromarray(np.dstack([coloured(), 255 * WHERE.astype(np.uint8)])), ""),  # on what is transparent
        (palette(7, 8, 10, 255, 0, 0, 0, 9, 0, 0, 0, 255), "has pixels of #07080a, which is said to be neither"),
        (palette(0, 0, 0, 255, 0, 0, 0, 9, 0, 255, 255, 255), "has pixels of #ffffff, which"),  # two backgrounds
        (Image.fromarray(LABELS), "has pixels of #010101, which"),
    ],
)
def test_where_colours_are_named_these_are_defective_and_all_others_one_background(
    image: Image.Image, said: str
) -> None:
    content = io.BytesIO()
    image.save(content, "PNG")
    target = Target((1, 64, 64), mask=True, colours=MaskColours((0xFF0000, 0x000900, 0x0000FF), (0x070809,)))
    if said:
        with pytest.raises(DataError, match=said):
            decode.decode(content.getvalue(), target)
    else:
        assert ((decode.decode(content.getvalue(), target).pixels[0] > 0) == WHERE).all()


@pytest.mark.parametrize("side", [64, 48, 33, 16, 5, 1])
def test_no_defect_is_lost_where_masks_are_made_smaller(side: int) -> None:
    rng = np.random.default_rng(side)
    for _ in range(8):
        mask = np.zeros((64, 64), np.uint8)
        y, x = rng.integers(1, 63, 2)
        mask[y, x] = 1  # one pixel beside a line and a blob
        mask[10, 2:60], mask[40:60, 40:60] = 255, 255
        content = io.BytesIO()
        Image.fromarray(mask).save(content, "PNG")
        seen = decode.decode(content.getvalue(), Target((1, side, side), mask=True)).pixels[0] > 0
        for row, column in np.argwhere(mask):
            assert seen[row * side // 64, column * side // 64]
        if side == 64:
            assert (seen == (mask > 0)).all()


@pytest.mark.parametrize("resize_mode", [STRETCH, PAD, CROP])
def test_masks_are_fitted_as_their_pictures_are(resize_mode: str) -> None:
    mask = np.zeros((40, 80), np.uint8)
    mask[15:25, 30:50] = 1
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG")
    seen = decode.decode(content.getvalue(), Target((1, 20, 20), resize_mode, mask=True)).pixels[0] > 0
    content = io.BytesIO()
    Image.fromarray(mask * 255).save(content, "PNG")
    pixels = decode.decode(content.getvalue(), Target((1, 20, 20), resize_mode)).pixels[0]
    assert not (~seen & (pixels > 127)).any()
    assert not (seen & (pixels == 0)).any()


def test_a_mask_made_larger_keeps_its_area() -> None:
    content = io.BytesIO()
    Image.fromarray(WHERE).save(content, "PNG")
    seen = decode.decode(content.getvalue(), Target((1, 96, 96), mask=True)).pixels[0] > 0
    assert seen.mean() == pytest.approx(WHERE.mean(), rel=0.05)


Change = Callable[[Path], None]


def write(pixels: np.ndarray) -> Change:
    return lambda path: Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(b"no picture"), "000_mask.png: cannot be read as an image"),
        (
            write((~WHERE).astype(np.uint8) * 255),
            "all of its border marked; the background is 0, or black: is it inv",
        ),
        (write(np.full((64, 64), 255, np.uint8)), "all of its border marked"),
        (write(np.zeros((64, 40), np.uint8)), "is a mask of 40×64 pixels, and its picture has 64×64"),
    ],
)
def test_a_mask_that_cannot_be_used_costs_its_picture_alone(
    tmp_path: Path, change: Change, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = masked(tmp_path, 3)
    change(tmp_path / "ground_truth/bad/000_mask.png")
    found = data.masks([b"test/bad/000.png", b"test/bad/001.png", b"test/bad/002.png"], Preprocessing(1, 64, 64))
    assert found is not None
    assert found[1].tolist() == [False, True, True]
    assert found[0].flatten(1).sum(dim=1).tolist() == [0, WHERE.sum(), WHERE.sum()]
    told = capsys.readouterr().err
    assert "masks: 1 cannot be used, and its picture is left out of the figures of pixels" in told
    assert said in told


def test_smaller_masks_of_the_same_proportions_and_empty_ones_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = masked(tmp_path, 2)
    Image.fromarray(WHERE[::2, ::2]).save(tmp_path / "ground_truth/bad/000_mask.png")
    Image.fromarray(WHERE & False).save(tmp_path / "ground_truth/bad/001_mask.png")
    found = data.masks([b"test/bad/000.png", b"test/bad/001.png"], Preprocessing(1, 64, 64))
    assert found is not None
    assert found[1].all()
    assert found[0].flatten(1).sum(dim=1).tolist() == [WHERE.sum(), 0]
    assert capsys.readouterr().err == "masks: 1 marks nothing as defective\n"


def masked(folder: Path, count: int) -> PictureData:
    """MVTec's layout."""
    for place in ("train/good", "test/bad", "ground_truth/bad"):
        (folder / place).mkdir(parents=True)
        for i in range(count):
            mask = place.startswith("ground")
            pixels = LABELS if mask else np.full((64, 64), 90 + i, np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{i:03}{'_mask' if mask else ''}.png")
    return PictureData.open(str(folder))


def test_where_masks_say_what_is_normal_one_that_cannot_be_used_does_not_say_it(tmp_path: Path) -> None:
    for i in range(6):
        for place in ("images", "masks"):
            (tmp_path / place).mkdir(exist_ok=True)
            marks = LABELS * (i >= 4)
            Image.fromarray(marks if place == "masks" else marks + 90).save(tmp_path / place / f"{i}.png")
    (tmp_path / "masks/5.png").write_bytes(b"no picture")
    data = PictureData.open(str(tmp_path))
    files = data.layout.files.values()
    named = {data.listing.paths[i]: data.classes[c] for of in files for i, c in zip(*of, strict=True)}
    assert len({named[b"images/%d.png" % i] for i in range(4)}) == 1
    assert named[b"images/4.png"] != named[b"images/0.png"]
    assert b"images/5.png" not in named  # left out
