"""Every mode and kind of file that Pillow knows: the same picture, whichever way it comes, gets the same score."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DataError
from anomaly_ae.images import decode
from anomaly_ae.images.decode import FINER, Target
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.runs.store import RunStore

RNG = np.random.default_rng(0)
SMOOTH = np.kron(RNG.integers(0, 256, (4, 5, 3)), np.ones((6, 6, 1))).astype(np.uint8)
COLOUR = Image.fromarray(SMOOTH)
DEEP = (SMOOTH[..., 0].astype(np.int32) * 257).clip(0, 65_535)


def with_alpha(mode: str) -> Image.Image:
    image = COLOUR.convert(mode)
    image.putalpha(Image.fromarray(SMOOTH[..., 1]))
    return image


def see_through(image: Image.Image) -> Image.Image:
    image.info["transparency"] = 3
    return image


def turned(image: Image.Image) -> Image.Image:
    image.getexif()[0x0112] = 6
    return image


CASES = {
    "1.png": COLOUR.convert("1"),
    "1.pbm": COLOUR.convert("1"),
    "L.png": COLOUR.convert("L"),
    "L.jpg": COLOUR.convert("L"),
    "L.webp": COLOUR.convert("L"),
    "P.png": COLOUR.convert("P"),
    "P.gif": COLOUR.convert("P", palette=Image.Palette.ADAPTIVE),
    "P transparent.png": see_through(COLOUR.convert("P", palette=Image.Palette.ADAPTIVE)),
    "P.bmp": COLOUR.convert("P"),
    "RGB.png": COLOUR,
    "RGB.jpg": COLOUR,
    "RGB.ppm": COLOUR,
    "RGB turned.jpg": turned(COLOUR.copy()),
    "L turned.tif": turned(COLOUR.convert("L")),
    "RGBA.png": with_alpha("RGB"),
    "RGBA.webp": with_alpha("RGB"),
    "RGBX.tif": COLOUR.convert("RGBX"),
    "LA.png": with_alpha("L"),
    "PA.tif": with_alpha("RGB").convert("PA"),
    "CMYK.jpg": COLOUR.convert("CMYK"),
    "CMYK.tif": COLOUR.convert("CMYK"),
    "YCbCr.tif": COLOUR.convert("YCbCr"),
    "LAB.tif": COLOUR.convert("LAB"),
    "I.tif": Image.fromarray(DEEP),
    "I;16.tif": Image.fromarray(DEEP.astype(np.uint16)),
    "I;16.png": Image.fromarray(DEEP.astype(np.uint16)),
    "I;16 transparent.png": see_through(Image.fromarray((DEEP // 257).astype(np.uint16))),
    "I;16B.tif": Image.frombytes("I;16B", COLOUR.size, DEEP.astype(">u2").tobytes()),
    "F.tif": Image.fromarray((DEEP / 65_535).astype(np.float32)),
    "I.pgm": Image.fromarray(DEEP),
}
IN_MEMORY = {  # modes that no file has, and the same picture in another
    "HSV": (COLOUR.convert("HSV"), COLOUR),
    "La": (with_alpha("L").convert("La"), with_alpha("L")),
    "RGBa": (with_alpha("RGB").convert("RGBa"), with_alpha("RGB")),
}


def content(name: str) -> bytes:
    file, image = io.BytesIO(), CASES[name]
    kind = {"jpg": "JPEG", "tif": "TIFF", "pbm": "PPM", "pgm": "PPM", "ppm": "PPM"}.get(name.rpartition(".")[2])
    extra = {"exif": image.getexif()} if "turned" in name else {}
    if kind == "JPEG":
        extra |= {"quality": 100, "subsampling": 0}
    if "transparent" in name:
        extra["transparency"] = image.info["transparency"]
    image.save(file, kind or name.rpartition(".")[2].upper(), **extra)
    return file.getvalue()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    home = RunStore.find(str(tmp_path_factory.mktemp("modes") / "mlruns"))
    config = RunConfig(normal="0,1,2", preset="fast", epochs=1)
    result = anomaly_ae.train(config, home=home, tracking=False)
    return Detector.load(home.find_run(result.run_id).detector_folder())


def test_files_and_pillow_images_of_every_mode_have_the_same_score(detector: Detector, tmp_path: Path) -> None:
    for name in CASES:
        (tmp_path / name).write_bytes(content(name))
    rows = {row["path"]: row for row in detector.score_folder(tmp_path)}
    assert [row["error"] for row in rows.values()] == [None] * len(CASES)
    lazy = {name: Image.open(io.BytesIO(content(name))) for name in CASES}  # Pillow maps turned TIFFs wrongly
    loaded = {name: Image.open(io.BytesIO(content(name))) for name in CASES}
    for image in loaded.values():
        image.load()
    for opened in (lazy, loaded):
        scores = detector.score(list(opened.values())).tolist()
        assert scores == pytest.approx([rows[name]["score"] for name in opened], rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_picture_is_what_it_was_before_it_was_saved(name: str) -> None:
    expected = SMOOTH
    if name.startswith(("L", "I", "F", "1")) and not name.startswith("LAB"):
        gray = SMOOTH[..., 0] if name[0] in "IF" else np.asarray(COLOUR.convert("1" if name[0] == "1" else "L"))
        expected = np.repeat((gray * np.uint8(255) if name[0] == "1" else gray)[..., None], 3, axis=2)
    if "A" in name.split(".")[0] and "LAB" not in name:
        expected = (expected * (SMOOTH[..., 1:2] / 255)).astype(np.uint8)
    if "turned" in name:
        expected = np.rot90(expected, -1)
    if "transparent" in name:
        return  # of which colour is seen through is the file's to say
    seen = decode.decode(content(name), Target((3, *expected.shape[:2]))).pixels.transpose(1, 2, 0)
    most = 60 if name.startswith("P") else 40 if "jpg" in name or "webp" in name else 12
    assert np.abs(seen.astype(int) - expected).mean() < most / 4
    if name.startswith(("L.png", "RGB.p", "I", "F", "1")):
        assert np.abs(seen.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", IN_MEMORY)
def test_modes_that_no_file_has_are_taken_too(mode: str) -> None:
    for channels in (1, 3):
        seen, expected = (Preprocessing(channels, 24, 30).prepare(image) for image in IN_MEMORY[mode])
        assert (seen.float() - expected.float()).abs().mean() < 3


def photo(side: int) -> Image.Image:
    """Coloured, and not smooth."""
    noise = RNG.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_the_same_from_a_file_opened_and_as_an_array(channels: int) -> None:
    file = io.BytesIO()
    photo(256).save(file, "JPEG", quality=90)
    image = Image.open(io.BytesIO(file.getvalue()))
    for side in (40, 65, 100):  # below twice FINER times the size nothing is gained by decoding it smaller
        preprocessing = Preprocessing(channels, side, side)
        seen = torch.from_numpy(decode.decode(file.getvalue(), preprocessing.target).pixels)
        assert torch.equal(preprocessing.prepare(image)[0], seen)
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(256, 256, channels)
        assert torch.equal(preprocessing.prepare(pixels.transpose(2, 0, 1)[None])[0], seen)


def test_a_large_jpeg_differs_from_its_array_by_rounding_alone() -> None:
    file = io.BytesIO()
    photo(512).save(file, "JPEG", quality=90)
    preprocessing = Preprocessing(3, 64, 48)
    assert 2 * FINER * 64 <= 512  # so it is decoded smaller
    seen = decode.decode(file.getvalue(), preprocessing.target).pixels.astype(int)
    opened = preprocessing.prepare(Image.open(io.BytesIO(file.getvalue())))[0].numpy().astype(int)
    assert np.abs(seen - opened).max() <= 6
    assert np.abs(seen - opened).mean() < 0.8


def test_a_closed_image_is_refused_in_words() -> None:
    image = Image.open(io.BytesIO(content("RGB.png")))
    image.close()
    with pytest.raises(DataError, match="an image cannot be decoded"):
        Preprocessing(3, 8, 8).prepare(image)
    with pytest.raises(DataError, match="an image cannot be decoded"):
        Preprocessing(3, 8, 8).prepare(Image.open(io.BytesIO(content("RGB.png")[:80])))


def test_arrays_of_any_layout_are_the_same() -> None:
    preprocessing = Preprocessing(1, 4, 5)
    values = RNG.random((2, 1, 8, 9)).astype(np.float32)
    expected = preprocessing.prepare(values)
    odd = [values.astype(">f4"), values.astype(np.longdouble), np.asfortranarray(values)]
    odd += [torch.tensor(values).to_sparse(), torch.tensor(values, requires_grad=True)]
    for images in odd:
        assert torch.allclose(preprocessing.prepare(images).float(), expected, atol=1e-6)
    for images in (np.ma.masked_less(values, 0.5), values.astype(complex), values.astype(object)):
        with pytest.raises(DataError, match="images are a torch tensor"):
            preprocessing.prepare(images)
