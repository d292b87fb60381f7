"""`examples/score_onnx.py` says of files what the detector says of them, or that it does not read them."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ae.detector import regions
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DataError
from anomaly_ae.images import decode as tool
from anomaly_ae.images.file_kinds import IMAGE_ENDINGS
from anomaly_ae.images.folder_words import JUNK, junk, split_path
from anomaly_ae.images.intensity import FLOAT, WHOLE, Intensity
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.roi import RegionOfInterest
from examples import score_onnx as runner
from tests.conftest import Ended, Trained, clean_environment
from tests.images.test_decode import bomb, damaged, encoded
from tests.images.test_deep import TWELVE, VALUES, plain_ppm, png, ppm, tiff
from tests.images.test_modes import CASES, COLOUR, content, photo
from tests.integrations.test_onnx import door, make

SCRIPT = Path(runner.__file__)
JPEG = encoded(photo(512), "JPEG", quality=90)
FRAMES = {"save_all": True, "append_images": [COLOUR.transpose(Image.Transpose.ROTATE_180)]}
FEW_NUMBERS = np.where(VALUES[..., :1] < 0.5, np.nan, VALUES[..., :1] * 2).astype(np.float32)


def turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[tool.ORIENTATION] = orientation
    return encoded(COLOUR, kind, exif=exif)


GOOD = {
    **{name: content(name) for name in CASES if name != "LAB.tif"},
    **{f"turned {i}.{kind}": turned(kind, i) for kind in ("JPEG", "TIFF") for i in (0, 2, 3, 5, 6, 8, 9)},
    "large.jpg": JPEG,
    "rubbish behind it.png": encoded(COLOUR) + b"rubbish",
    "broken remark.jpg": encoded(COLOUR, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
    "animated.gif": encoded(COLOUR, "GIF", **FRAMES),
    "animated.webp": encoded(COLOUR, "WEBP", **FRAMES),
    "thin.png": encoded(COLOUR.resize((700, 2))),
    "one.png": encoded(COLOUR.resize((1, 1))),
    "not all are numbers.tif": tiff(FEW_NUMBERS),
    "with a sign.tif": tiff((VALUES[..., :1] * 120 - 50).astype("i2")),
    "white is zero.tif": tiff(TWELVE[..., :1], zero=0),
    "high bytes first.tif": tiff(TWELVE[..., :1], ">", packed=True),
    "low bytes first.pfm": b"Pf\n7 5\n-1.0\n" + VALUES[..., 0].astype("<f4").tobytes(),
    "text.ppm": b"P3\n2 1\n255\n1 2 3 4 5 6",
    "bits.pbm": b"P1\n4 2\n1 0 1 0 0 1 0 1\n",
    "7 bits.pgm": b"P5\n2 1\n100\n\x10\x60",
    "ä b\nc'\"\\.PNG": encoded(COLOUR),
    os.fsdecode(b"caf\xe9.jfif"): encoded(COLOUR, "JPEG"),
}
BAD = {
    "empty.png": b"",
    "zeros.bmp": bytes(1000),
    "nonsense.jpg": b"nonsense",
    "cut.jpg": JPEG[: len(JPEG) // 2],
    "cut.tif": encoded(COLOUR, "TIFF")[:700],
    "cut.webp": encoded(COLOUR, "WEBP")[:90],
    "damaged.png": damaged(encoded(photo(64))),
    "bomb.png": bomb(100_000, 100_000),
    "a pixel too wide.png": bomb(8193, 8192),
    "no data.png": bomb(8192, 8192),
    "no numbers.tif": tiff(np.full_like(FEW_NUMBERS, np.nan)),
    "postscript.png": b"%!PS-Adobe-3.0 EPSF\n",
    "colour.pfm": b"PF\n1 1\n-1\n" + bytes(12),
    "planes.tif": tiff(TWELVE[..., :3], planes=2),
}
REFUSED = {
    "16 bits in colour.png": png(TWELVE[..., :3]),
    "16 bits and transparent.png": png(TWELVE[..., 2:]),
    "16 bits in colour.tif": tiff(TWELVE[..., :3], ">", packed=True),
    "16 bits in colour.ppm": ppm(TWELVE[..., :3], 65535),
    "12 bits in colour.ppm": ppm(TWELVE[..., :3], 4095),
    "12 bits in text.ppm": plain_ppm(TWELVE[..., :3], 4095),
    "12 bits.pgm": b"P5\n7 5\n4095\n" + TWELVE[..., 0].astype(">u2").tobytes(),
    "high bytes first.pfm": b"Pf\n7 5\n1.0\n" + VALUES[..., 0].astype(">f4").tobytes(),
    **{f"{kind}.tif": tiff((VALUES[..., :1] * 120).astype(kind)) for kind in ("f2", "f8", "i1", "i8", "u4", "u8")},
    **{f"{kind} high bytes first.tif": tiff(VALUES[..., :1].astype(kind), ">") for kind in ("f4", "i4")},
}
NOT_LISTED = {"called.txt": encoded(COLOUR), "elsewhere/b.png": encoded(COLOUR)}  # the latter behind a link
DISC = RegionOfInterest.of_mask(np.hypot(*np.ogrid[-9.5:10.5, -9.5:10.5]) < 9)
CORNER = RegionOfInterest(((0.31, 0.12, 0.5, 0.7),))
SEEN = (
    Preprocessing(1, 9, 12),
    Preprocessing(3, 20, 11, tool.PAD, Intensity(0, 4095, WHOLE)),
    Preprocessing(3, 12, 16, tool.CROP, Intensity(-1, 1.5, FLOAT)),
    Preprocessing(1, 30, 30, tool.STRETCH, None, CORNER),
    Preprocessing(3, 14, 9, tool.PAD, None, DISC),
    Preprocessing(1, 40, 33, tool.CROP, Intensity(0, 1000, WHOLE), DISC),
)


@pytest.fixture(scope="module")
def small() -> Detector:
    return make("conv", "mse", (1, 16, 16))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them, and with what is no picture."""
    beside = tmp_path_factory.mktemp("pictures")
    folder = beside / "all"
    hidden = {".hidden.png": b"", "@eaDir/a.png": b"", "heat maps/a.png": b"", "notes.txt": b"none"}
    nested = {"heat_map/z.png": encoded(COLOUR), "deeper/a.png": encoded(COLOUR), "a.b/c.png": encoded(COLOUR)}
    for name, data in (GOOD | BAD | REFUSED | NOT_LISTED | hidden | nested).items():
        path = (beside if name.startswith("elsewhere") else folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(3 * 2**30)
    os.mkfifo(folder / "pipe.png")
    for name, target in {"dead.png": "nowhere", "self.png": "self.png", "elsewhere": beside / "elsewhere"}.items():
        (folder / name).symlink_to(target)
    return folder


def run(*arguments: str | Path, python: str | Path = sys.executable) -> Ended:
    command = [python, SCRIPT, *arguments]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=200, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def rows_of(ended: Ended) -> dict[str, dict[str, Any]]:
    assert ended.code == 0, ended.err
    return {row["path"]: row for row in map(json.loads, ended.out.splitlines())}


def told(detector: Detector, preprocessing: Preprocessing) -> SimpleNamespace:
    """What the metadata would say of a detector that sees pictures so."""
    said = door.metadata(dataclasses.replace(detector, preprocessing=preprocessing))
    facts = {name: json.loads(text) for name, text in said.items()}
    return SimpleNamespace(**facts, **facts["preprocessing"])


def assert_same_regions(found: str | None, expected: str | None) -> None:
    if found is None or expected is None:
        assert found is expected
        return
    pairs = zip(regions.read_regions(found), regions.read_regions(expected), strict=True)
    for one, other in pairs:
        assert one.box == pytest.approx(other.box, rel=1e-5, abs=1e-12)
        assert (one.area, one.peak, one.p) == pytest.approx((other.area, other.peak, other.p), rel=1e-5)
        assert one.more == other.more


def assert_same_rows(detector: Detector, pictures: Path, folder: Path, file: Path | None = None) -> None:
    """file: the detector's export, where it has been made"""
    if file is None:
        door.export_onnx(detector, file := folder / "a.onnx")
    found, expected = (
        rows_of(run(file, pictures)),
        {row["path"]: row for row in detector.score_folder(pictures)},
    )
    assert expected.keys() - found.keys() == NOT_LISTED.keys()
    assert [*found] == [path for path in expected if path in found]
    for path, row in found.items():
        other = expected[path]
        assert ("error" in row) == (path in REFUSED or other["error"] is not None), path
        if "error" in row:
            assert row.keys() == {"path", "error"}
            continue
        assert (row["score"], row["threshold"]) == pytest.approx((other["score"], other["threshold"]), rel=1e-5), path
        if not torch.isclose(detector.calibration.scores, torch.tensor(other["score"]), rtol=1e-5).any():
            # at a calibration score, of which the threshold is one, the last digit decides on which side it is
            assert (row["is_anomaly"], row["p_value"]) == (other["is_anomaly"], pytest.approx(other["p_value"])), path
        assert_same_regions(row["regions"], other["regions"])


def test_it_is_short_and_has_the_limits_and_names_of_the_tool() -> None:
    assert len(SCRIPT.read_text().splitlines()) < 150
    assert (runner.LARGEST_FILE, runner.LARGEST_PICTURE) == (tool.LARGEST_FILE, tool.LARGEST_PICTURE)
    assert (runner.FORMATS, runner.MOST_REGIONS) == (tool.FILE_FORMATS, regions.MOST_REGIONS)
    assert runner.TURNS == tool.TURNS
    for ending in IMAGE_ENDINGS:
        assert runner.NAME.search(b"a/b" + ending.upper())
        assert not runner.NAME.search(b"a/b" + ending + b"x")
    for name in (*JUNK, "heat_map", "thumbnail", "recycle", "x.overlay", ".cache", "overlays2"):
        for path in (f"{name}/b.png", f"a\\{name.upper()}/b.png", f"a/{name}", f"a/x{name}/b"):
            left_out = runner.LEFT_OUT.search(path.encode()) is not None
            assert left_out == bool(junk(split_path(path.encode()))), path


@pytest.mark.parametrize("preprocessing", SEEN)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_seen_of_a_file_is_what_the_tool_sees(
    preprocessing: Preprocessing, small: Detector, tmp_path: Path
) -> None:
    about, path = told(small, preprocessing), tmp_path / "a"
    for name, data in (GOOD | BAD | REFUSED).items():
        path.write_bytes(data)
        pixels, size, error = runner.decode(bytes(path), about)
        assert bool(error) == (name not in GOOD), (name, error)
        if name in BAD:
            with pytest.raises(DataError):
                tool.decode(data, preprocessing.target)
            continue
        seen = tool.decode(data, preprocessing.target)
        if name in GOOD:
            assert size == (seen.width, seen.height), name
            np.testing.assert_array_equal(pixels, seen.pixels, name)


@pytest.mark.parametrize("preprocessing", SEEN)
@pytest.mark.parametrize("size", [(40, 30), (7, 9), (2, 300), (1, 1)])
def test_regions_are_those_of_the_tool(preprocessing: Preprocessing, size: tuple[int, int], small: Detector) -> None:
    draw = np.random.default_rng(0)
    peaks = np.sort(draw.random(20, np.float32))
    about = told(dataclasses.replace(small, heat_level=0.5, heat_peaks=torch.from_numpy(peaks)), preprocessing)
    for share in (0.02, 0.2, 0.5, 0.9):
        heat = draw.random(preprocessing.shape[1:], np.float32) * (draw.random(preprocessing.shape[1:]) < share)
        finder = regions.RegionFinder(0.5, peaks, preprocessing.target)
        expected = regions.regions_text(finder.find(heat[None], [size])[0])
        assert_same_regions(runner.regions(heat, size, about), expected)


Maker = Callable[[], Detector]
KINDS: dict[str, tuple[Maker, dict[str, Any]]] = {
    "tiles in colour, padded": (
        lambda: make("conv", "relative", (3, 40, 51), tile=24),
        {"resize_mode": tool.PAD, "intensity": Intensity(0, 4095, WHOLE)},
    ),
    "a disc, cropped": (lambda: make("conv", "mse", (1, 16, 16)), {"resize_mode": tool.CROP, "roi": DISC}),
    "without a map": (lambda: make("conv", "latent-knn", (1, 16, 16)), {"intensity": Intensity(0, 1, FLOAT)}),
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] if "tiles" in kind else []) for kind in KINDS],  # an export of tiles
)
def test_rows_are_those_of_the_tool(kind: str, pictures: Path, tmp_path: Path) -> None:
    made, changes = KINDS[kind]
    detector = made()
    preprocessing = dataclasses.replace(detector.preprocessing, **changes)
    assert_same_rows(dataclasses.replace(detector, preprocessing=preprocessing), pictures, tmp_path)


@pytest.fixture(scope="module")
def digits(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of the default detector, which takes half a minute."""
    file = tmp_path_factory.mktemp("default") / "digits.onnx"
    door.export_onnx(trained.detector(), file)
    return file


@pytest.mark.slow  # an export of each
def test_rows_of_trained_detectors_are_those_of_the_tool(
    pictures: Path, trained: Trained, digits: Path, tmp_path: Path
) -> None:
    assert_same_rows(trained.detector(), pictures, tmp_path, digits)
    assert_same_rows(make("feature-conv", "patch-knn", (3, 40, 48)), pictures, tmp_path)


@pytest.fixture(scope="module")
def exported(small: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "small.onnx"
    door.export_onnx(small, file)
    return file


def test_files_can_be_named(exported: Path, pictures: Path) -> None:
    names = [pictures / name for name in ("one.png", "large.jpg", "empty.png", "pipe.png", "gone.png", "deeper")]
    rows = rows_of(run(exported, *names))
    assert [*rows] == sorted(map(str, names))
    assert {Path(path).name for path, row in rows.items() if "score" in row} == {"one.png", "large.jpg"}


def test_what_cannot_be_is_said_in_a_line_and_with_the_exit_code(
    exported: Path, pictures: Path, tmp_path: Path
) -> None:
    assert run().code == run(exported).code == 2
    assert "score_onnx.py detector.onnx FOLDER" in run().err
    (tmp_path / "none").mkdir()
    (tmp_path / "other.onnx").write_bytes(b"nonsense")
    for detector, place, said in (
        (exported, tmp_path / "none", "there is no image in "),
        (exported, tmp_path / "gone", "there is no image in "),
        (tmp_path / "gone.onnx", pictures, "gone.onnx"),
        (tmp_path / "other.onnx", pictures, "other.onnx"),
    ):
        ended = run(detector, place)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith("error: ")
        assert said in ended.err
        assert len(ended.err.splitlines()) == 1


def test_a_file_of_another_format_is_refused(exported: Path, pictures: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(exported)
    (mark,) = (each for each in model.metadata_props if each.key == "format")
    mark.value = "2"
    onnx.save(model, tmp_path / "a.onnx")
    ended = run(tmp_path / "a.onnx", pictures)
    assert (ended.code, ended.out) == (1, "")
    assert "a.onnx is not from this version of anomaly-ae; export it again" in ended.err


@pytest.mark.slow
def test_in_an_environment_of_its_own_it_is_light_and_starts_at_once(digits: Path, tmp_path: Path) -> None:
    """Needs a package index, as any installation does."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encoded(COLOUR))
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "onnxruntime",
        "numpy",
        "pillow",
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=230)
    files = [path for path in (tmp_path / "venv").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < 300e6
    assert b"ModuleNotFoundError" in subprocess.run([python, "-c", "import torch"], capture_output=True).stderr

    command, seconds = [python, "-P", SCRIPT, digits, tmp_path / "in"], []
    for _ in range(4):  # the first of which compiles what is imported
        before = children_seconds()
        row = json.loads(subprocess.run(command, env=clean_environment(), capture_output=True, check=True).stdout)
        seconds.append(children_seconds() - before)
        assert row["path"] == "a.png"
        assert row["score"] >= 0
    assert min(seconds[1:]) < 1.5


def children_seconds() -> float:
    """Of a processor, used by all processes of ours that have ended: a machine that is busy adds none to them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
