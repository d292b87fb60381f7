"""Pictures of more than 8 bits: one scale for a data set, found in training, kept, said, and applied everywhere."""

import dataclasses
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DataError, OtherBrightness, UsageError
from anomaly_ae.images.intensity import FLOAT, WHOLE, Intensity
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows.division import View

Make = Callable[[np.ndarray, Path], None]  # writes values in [0, 1], (H, W), to a file without its ending


def tiff(scale: float, kind: str, offset: float = 0) -> Make:
    def make(values: np.ndarray, path: Path) -> None:
        Image.fromarray((values * scale + offset).astype(kind)).save(f"{path}.tif")

    return make


def signed_tiff(values: np.ndarray, path: Path) -> None:
    """16 bits with a sign, from -1000 to 3000."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[339] = 2
    pixels = (values * 4000 - 1000).astype(np.int16)
    Image.fromarray(pixels.view(np.uint16)).save(f"{path}.tif", tiffinfo=info)


def pgm(white: int, share: float = 1) -> Make:
    def make(values: np.ndarray, path: Path) -> None:
        content = (values * white * share).astype(">u2").tobytes()
        Path(f"{path}.pgm").write_bytes(b"P5\n%d %d\n%d\n" % (*values.shape[::-1], white) + content)

    return make


def png(values: np.ndarray, path: Path) -> None:
    Image.fromarray((values * 65535).astype(np.uint16)).save(f"{path}.png")


def eight(values: np.ndarray, path: Path) -> None:
    Image.fromarray((values * 255).astype(np.uint8)).save(f"{path}.png")


def cloth(seed: int, size: int = 16) -> np.ndarray:
    """Values from 0 to 1."""
    rng = np.random.default_rng(seed)
    values = np.sin(np.arange(size) / 2 + rng.uniform(0, 0.3)) * 0.4 + 0.5 + rng.uniform(0, 0.1, (size, size))
    values.flat[:16] = np.repeat([0, 1], 8)
    return values.clip(0, 1)


def fill(folder: Path, make: Make, count: int = 4, start: int = 0, scale: float = 1) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        make(cloth(start + i) * scale, folder / f"{i:03}")
    return folder


@pytest.mark.parametrize(
    ("make", "low", "high"),
    [
        (png, 0, 65535),
        (tiff(65535, "uint16"), 0, 65535),
        (tiff(4000, "uint16"), 0, 4095),
        (tiff(1000, "uint16"), 0, 1023),
        (tiff(16000, "uint16"), 0, 16383),
        (tiff(200, "uint16"), 0, 255),
        (tiff(4000, "int32"), 0, 4095),
        (tiff(100_000, "int32"), 0, 131_071),
        (signed_tiff, -1000, 3000),
        (tiff(1, "float32"), 0, 1),
        (tiff(0.3, "float32"), 0, 1),
        (tiff(255, "float32"), 0, 255),
        (tiff(4095, "float32"), 0, 4095),
        (tiff(2, "float32", -1), -1, 1),
        (pgm(65535), 0, 65535),
        (pgm(4095), 0, 4095),
        (pgm(65535, 4000 / 65535), 0, 4095),
    ],
)
def test_black_and_white_are_found_over_the_training_pictures(
    tmp_path: Path, make: Make, low: float, high: float, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PictureData.open(str(fill(tmp_path / "set", make)))
    intensity = data.find_intensity()
    assert intensity is not None
    assert (intensity.low, intensity.high) == pytest.approx((low, high), abs=(high - low) / 100)
    assert "brightness: 4 pictures hold" in capsys.readouterr().err
    seen = data.load(Preprocessing(1, 16, 16, intensity=intensity)).files["train"].images
    values = np.stack([cloth(i) for i in range(4)])[:, None]
    span = float(seen.max()) / 255  # where the bits hold more than the values need
    assert np.abs(seen.numpy() / 255 - values * span).max() < 0.02


def test_pictures_of_8_bits_are_taken_as_they_are_and_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PictureData.open(str(fill(tmp_path / "set", eight)))
    assert data.find_intensity() is None
    assert not capsys.readouterr().err
    with pytest.raises(DataError, match="8 bits"):
        data.find_intensity("0:200")


def test_a_hot_pixel_or_none_at_all_does_not_set_the_scale_of_floats(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set", tiff(1, "float32"), 12)
    values = cloth(0).astype(np.float32)
    values[3, 3], values[4, 4:6] = 1e6, (np.nan, np.inf)
    Image.fromarray(values).save(folder / "000.tif")
    data = PictureData.open(str(folder))
    assert data.find_intensity() == Intensity(0, 1, FLOAT)
    seen = data.load(Preprocessing(1, 16, 16, intensity=data.find_intensity())).files["train"].images[0, 0]
    assert seen[3, 3] == 255
    assert seen[4, 4:6].tolist() == [0, 255]  # what is no number is black


def test_a_picture_without_a_number_has_an_error(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set", tiff(1, "float32"), 12)
    Image.fromarray(np.full((16, 16), np.nan, np.float32)).save(folder / "000.tif")
    left_out = PictureData.open(str(folder)).load(Preprocessing(1, 16, 16)).left_out
    assert [text.split(": ")[1] for text in left_out] == ["holds no value that is a number"]


def test_percentiles_and_bounds_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = PictureData.open(str(fill(tmp_path / "set", tiff(4000, "uint16"))))
    assert data.find_intensity("100:3000.5") == Intensity(100, 3000.5, WHOLE)
    middle = data.find_intensity("p10:p90")
    assert middle is not None
    values = np.stack([cloth(i) for i in range(4)]) * 4000
    assert (middle.low, middle.high) == pytest.approx(np.percentile(values, [10, 90]), rel=0.05)
    assert "clips 2" in capsys.readouterr().err  # a fifth of the values, and the extremes


def test_whole_numbers_beside_floats_are_refused_and_8_bits_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "set", tiff(4000, "uint16"))
    eight(cloth(9), folder / "eight")
    data = PictureData.open(str(folder))
    assert data.find_intensity() == Intensity(0, 4095, WHOLE)
    seen = data.load(Preprocessing(1, 16, 16, intensity=data.find_intensity())).files["train"].images
    assert int(seen[-1].max()) == 255
    said = (
        "1 picture holds 8 bits, and black and white are set for whole numbers of more than 8 bits: 0 was taken for"
    )
    assert said in capsys.readouterr().err
    tiff(1, "float32")(cloth(8), folder / "float")
    with pytest.raises(DataError, match=r"4 pictures hold whole numbers .* and 1 floats, whose brightness cannot"):
        PictureData.open(str(folder)).find_intensity()


def test_one_picture_of_16_bits_among_many_of_8_is_said_with_a_remedy_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "set", eight, 100)
    (folder / "002.png").unlink()  # not one of those that are looked at first
    tiff(4000, "uint16")(cloth(2), folder / "002")
    data = PictureData.open(str(folder))
    assert data.find_intensity() is None
    data.load(Preprocessing(1, 16, 16))
    said = (
        "brightness: 1 picture holds whole numbers of more than 8 bits, and black and white are set for 8 bits: 0 was"
    )
    assert said in capsys.readouterr().err
    intensity = data.find_intensity("0:4095")
    assert intensity == Intensity(0, 4095, WHOLE)
    seen = data.load(Preprocessing(1, 16, 16, intensity=intensity)).files["train"].images
    assert np.abs(seen[2, 0].numpy() / 255 - cloth(2) * 4000 / 4095).max() < 0.01


@pytest.mark.parametrize("text", ["4095", "10:5", "a:b", "p1:99", "p-1:p99", "p1:p101", "nan:1", "0:1e999", ""])
def test_an_intensity_that_is_none_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError, match="intensity must be LOW:HIGH"):
        RunConfig(intensity=text)


@pytest.mark.parametrize("kind", ["uint16", "uint8"])
def test_tiffs_in_which_0_is_white_are_seen_as_others(tmp_path: Path, kind: str) -> None:
    values = cloth(0) * np.iinfo(kind).max
    folder = tmp_path / "set"
    folder.mkdir()
    for name, pixels, white_is_zero in (("a", values, False), ("b", np.iinfo(kind).max - values.astype(kind), True)):
        Image.fromarray(pixels.astype(kind)).save(folder / f"{name}.tif")
        if white_is_zero:  # which Pillow does not write
            content = (folder / f"{name}.tif").read_bytes()
            entry = np.array([262, 3], "<u2").tobytes() + np.array([1, 1], "<u4").tobytes()
            assert content.count(entry) == 1
            (folder / f"{name}.tif").write_bytes(content.replace(entry, entry[:8] + bytes(4)))
    data = PictureData.open(str(folder))
    seen = data.load(Preprocessing(1, 16, 16, intensity=data.find_intensity())).files["train"].images
    assert (seen[0].int() - seen[1].int()).abs().max() <= 1


def train(folder: Path, home: RunStore, **settings: object) -> Detector:
    asked = {"dataset": str(folder), "preset": "fast", "epochs": 1, "target_fpr": 0.2} | settings
    result = anomaly_ae.train(RunConfig.build(asked), home=home, tracking=False)
    return Detector.load(home.find_run(result.run_id).detector_folder())


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A detector trained on pictures of 12 bits in 16."""
    place = tmp_path_factory.mktemp("twelve")
    return train(fill(place / "set", tiff(4000, "uint16"), 40), RunStore.find(str(place / "mlruns")))


def test_what_was_found_is_kept_with_the_detector(twelve: Detector) -> None:
    assert twelve.preprocessing.intensity == Intensity(0, 4095, WHOLE)


@pytest.mark.parametrize(
    ("normal", "bad", "asked", "intensity"),
    [
        (eight, tiff(4000, "uint16"), None, None),
        (eight, tiff(4000, "uint16"), "0:4095", Intensity(0, 4095, WHOLE)),  # which the warning names as a remedy
        (tiff(4000, "uint16"), eight, None, Intensity(0, 4095, WHOLE)),
        (tiff(1000, "uint16"), tiff(60000, "uint16"), None, Intensity(0, 1023, WHOLE)),
        (tiff(4000, "uint16"), tiff(1, "float32"), None, Intensity(0, 4095, WHOLE)),
    ],
)
@pytest.mark.parametrize("inside", [("ok", "bad"), ("train/ok", "test/bad")])
def test_what_is_learned_from_sets_the_scale_and_what_is_measured_with_does_not(
    tmp_path: Path, normal: Make, bad: Make, asked: str | None, intensity: Intensity | None, inside: tuple[str, str]
) -> None:
    fill(tmp_path / "set" / inside[0], normal, 30)
    fill(tmp_path / "set" / inside[1], bad, 10, 50)
    if inside[0] != "ok":
        fill(tmp_path / "set/test/ok", normal, 3, 80)
    config = RunConfig.build({"dataset": str(tmp_path / "set"), "preset": "fast", "intensity": asked}).filled()
    view = View.find(config, PictureData.open(str(tmp_path / "set")))
    assert view.normal == ("ok",)
    assert view.preprocessing.intensity == intensity


def test_anomalous_pictures_of_other_size_and_colour_do_not_say_how_pictures_are_seen(tmp_path: Path) -> None:
    fill(tmp_path / "set/ok", eight, 30)
    (tmp_path / "set/bad").mkdir()
    for i in range(60):
        colours = np.random.default_rng(i).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(colours).save(tmp_path / f"set/bad/{i}.png")
    view = View.find(RunConfig(preset="fast").filled(), PictureData.open(str(tmp_path / "set")))
    assert view.preprocessing.shape == (1, 16, 16)


def test_files_pillow_images_and_arrays_are_scored_alike(twelve: Detector, tmp_path: Path) -> None:
    fill(tmp_path / "new", tiff(4000, "uint16"), 3, 100)
    rows = [row["score"] for row in twelve.score_folder(tmp_path / "new")]
    opened = [Image.open(path) for path in sorted((tmp_path / "new").iterdir())]
    arrays = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "new").iterdir())])[:, None]
    for images in (opened, arrays, arrays.astype(">u2"), arrays.astype(np.int64), torch.tensor(arrays.astype(int))):
        assert twelve.score(images).tolist() == pytest.approx(rows, rel=1e-5)
    for given in (arrays.astype(np.float32), arrays > 9):
        with pytest.raises(DataError):
            twelve.score(given)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (tiff(4000, "uint16"), None),
        (tiff(16000, "uint16"), "more than 1% of values beyond black and white"),
        (eight, "hold 8 bits, and black and white are set for whole numbers"),
        (tiff(1, "float32"), "hold floats, and black and white are set for whole numbers"),
    ],
)
def test_pictures_of_another_scale_are_said(twelve: Detector, tmp_path: Path, make: Make, said: str | None) -> None:
    fill(tmp_path / "new", make, 3, 100)
    twelve.save(tmp_path / "detector")
    result = anomaly_ae.score(tmp_path / "new", tmp_path / "detector", tmp_path / "s.csv")
    told = [text for text in result.differences if "beyond black" in text or "black and white are set for" in text]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


def test_from_python_what_is_clipped_or_of_another_kind_is_said_once(twelve: Detector, tmp_path: Path) -> None:
    fill(tmp_path / "good", tiff(4000, "uint16"), 3, 100)
    fill(tmp_path / "bright", tiff(16000, "uint16"), 3, 100)
    fill(tmp_path / "eight", eight, 3, 100)
    good, bright, eights = (
        [Image.open(file) for file in sorted((tmp_path / name).iterdir())] for name in ("good", "bright", "eight")
    )
    clipped = "3 pictures have more than 1% of values beyond black and white"
    for images, said in (
        (bright, clipped),
        (np.stack([np.asarray(image) for image in bright])[:, None], clipped),
        (eights, "3 pictures hold 8 bits, and black and white are set for whole numbers"),
    ):
        with pytest.warns(OtherBrightness, match=said) as warned:
            twelve.score(images)
        assert len(warned) == 1
        assert warned[0].filename == __file__
        assert any(said in text for text in twelve.differences(images))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twelve.score(good)
        twelve.score(np.stack([np.asarray(image) for image in good])[:, None])


def test_one_value_above_white_changes_next_to_nothing(tmp_path: Path) -> None:
    home = RunStore.find(str(tmp_path / "mlruns"))
    detector = train(fill(tmp_path / "set", tiff(1, "float32"), 40), home)
    fill(tmp_path / "new", tiff(1, "float32"), 1, 100)
    values = cloth(100).astype(np.float32)
    values[0, 8] = 1.01  # it was 1
    Image.fromarray(values).save(tmp_path / "new/hot.tif")
    plain, hot = (row["score"] for row in detector.score_folder(tmp_path / "new"))
    assert hot == pytest.approx(plain, rel=1e-4)


def test_a_dark_frame_stays_dark(tmp_path: Path) -> None:
    data = PictureData.open(str(fill(tmp_path / "set", pgm(65535))))
    seen = dataclasses.replace(Preprocessing(1, 16, 16), intensity=data.find_intensity())
    for name, share in (("dark250", 250 / 65535), ("dark600", 600 / 65535)):
        pgm(65535, share)(cloth(0), tmp_path / name)
    dark, less_dark = (
        seen.prepare(Image.open(tmp_path / f"{name}.pgm")).float().mean() for name in ("dark250", "dark600")
    )
    assert dark <= less_dark < 3


def test_other_kinds_have_their_full_range_for_a_detector_of_8_bits() -> None:
    preprocessing = Preprocessing(1, 1, 3)
    for values, kind in (([0, 0.5, 1], "float32"), ([0, 32767.5, 65535], "uint16")):
        content = io.BytesIO()
        Image.fromarray(np.array([values], kind)).save(content, "TIFF")
        with pytest.warns(OtherBrightness, match="black and white are set for 8 bits"):
            seen = preprocessing.prepare(Image.open(content))
        assert seen.flatten().tolist() == [0, 128 - (kind == "uint16"), 255]
