from pathlib import Path

import numpy as np
import pytest
import torch
from anomaly_ae.data.files import find_images, read_image
from PIL import Image

from anomaly_ae.data import files
from anomaly_ae.data.preprocessing import Preprocessing, resize
from anomaly_ae.errors import DataDamaged, DataError, DataMissing

GRAY, COLOUR = Preprocessing(1, 4, 6), Preprocessing(3, 4, 6)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)


def save(folder: Path, image: Image.Image, name: str = "a.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def test_gray_pixels_come_as_they_are_and_as_colour(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(PIXELS))
    assert read_image(path, GRAY).tolist() == [PIXELS.tolist()]
    assert read_image(path, COLOUR).tolist() == [PIXELS.tolist()] * 3


def test_sixteen_bits_are_divided_by_257(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(PIXELS.astype(np.uint16) * 257))
    assert read_image(path, GRAY).tolist() == [PIXELS.tolist()]


def test_transparency_lies_over_black(tmp_path: Path) -> None:
    rgba = np.dstack([PIXELS, PIXELS, PIXELS, np.where(PIXELS > 127, 255, 0).astype(np.uint8)])
    assert (
        read_image(save(tmp_path, Image.fromarray(rgba)), GRAY)[0].tolist()
        == np.where(PIXELS > 127, PIXELS, 0).tolist()
    )


def test_the_exif_orientation_is_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    path = save(tmp_path, Image.fromarray(np.ascontiguousarray(np.rot90(PIXELS))), exif=exif)
    assert read_image(path, GRAY).tolist() == [PIXELS.tolist()]


def test_other_sizes_are_resized_as_in_training(tmp_path: Path) -> None:
    large = np.random.default_rng(1).integers(0, 256, (9, 20), dtype=np.uint8)
    expected = resize(torch.from_numpy(large)[None, None], (4, 6))[0]
    assert torch.equal(read_image(save(tmp_path, Image.fromarray(large)), GRAY), expected)


def test_a_large_jpeg_is_about_what_it_would_be_decoded_in_full(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 640 * 480).reshape(480, 640).astype(np.uint8)
    path = save(tmp_path, Image.fromarray(ramp), "a.jpg", quality=95)
    expected = resize(torch.from_numpy(ramp)[None, None], (4, 6))[0].int()
    assert int((read_image(path, GRAY).int() - expected).abs().max()) <= 4


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataDamaged, match="cannot be read as an image"):
        read_image(tmp_path / "a.png", GRAY)


def test_a_truncated_image_is_damaged(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(np.random.default_rng(2).integers(0, 256, (80, 80), dtype=np.uint8)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataDamaged):
        read_image(path, GRAY)


def test_too_many_pixels_are_refused_by_the_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_PIXELS", 23)
    with pytest.raises(DataError, match="6×4 pixels are too many"):
        read_image(save(tmp_path, Image.fromarray(PIXELS)), GRAY)
    with pytest.raises(DataError, match="takes 2 channels"):
        read_image(tmp_path / "a.png", Preprocessing(2, 4, 6))


def test_images_are_found_below_a_folder_in_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.JPG", "a/.d.png", ".git/e.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["a/c.JPG", "b.png"]
    for nothing in (tmp_path / "absent", tmp_path / "b.png", tmp_path / ".git" / "objects"):
        with pytest.raises(DataMissing):
            find_images(nothing)
