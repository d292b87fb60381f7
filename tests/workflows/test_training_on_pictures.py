"""From a folder of pictures to verdicts and places: gray and colour, defects planted where it is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import Evaluation
from anomaly_ae.errors import DataChanged, DataMissing, UsageError
from anomaly_ae.runs.run_results import TrainResult
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows.train import resume
from tests.conftest import Cli, drawing, interrupted_at

SIZES = (44, 48, 52)
Measured = tuple[RunStore, Path, Evaluation]


def cloth(seed: int, colour: bool, defect: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A woven surface, uint8 (H, W) or (H, W, 3), and where it is defective, uint8 0 or 255."""
    rng = np.random.default_rng(seed)
    height, width = rng.choice(SIZES, 2)
    y, x = np.mgrid[:height, :width]
    weave = 125 + 30 * np.sin(x * 0.9 + rng.uniform(0, 6)) * np.sin(y * 0.9 + rng.uniform(0, 6))
    weave += rng.normal(0, 5, weave.shape)
    cy, cx = rng.uniform(14, height - 14), rng.uniform(14, width - 14)
    spot = (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(4, 6) ** 2
    scratch = (abs((y - cy) - (x - cx)) < 1.6) & (abs(y - cy) < 9)
    where = {"spot": spot, "scratch": scratch}.get(defect or "", np.zeros_like(spot))
    weave[where] = 30 if defect == "spot" else 235
    pixels = np.dstack([weave, weave * 0.8, weave * 0.6]) if colour else weave
    return pixels.clip(0, 255).astype(np.uint8), where.astype(np.uint8) * 255


def make_set(root: Path, colour: bool, train: int = 60, test: int = 12) -> Path:
    """MVTec's layout, with one file that is no picture."""
    kinds = {"train/good": (train, None), "test/good": (test, None)}
    kinds |= {f"test/{kind}": (test, kind) for kind in ("spot", "scratch")}
    for number, (place, (count, defect)) in enumerate(kinds.items()):
        for i in range(count):
            pixels, where = cloth(1000 * number + i, colour, defect)
            save(root / place / f"{i:03}.png", pixels)
            if defect:
                save(root / f"ground_truth/{defect}/{i:03}_mask.png", where)
    (root / "train/good/broken.png").write_bytes(b"not a picture")
    return root


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def train(home: RunStore, dataset: Path, **settings: object) -> TrainResult:
    config = RunConfig.build({"dataset": str(dataset), "batch_size": 8} | settings)
    return anomaly_ae.train(config, home=home, tracking=False)


@pytest.fixture(scope="module", params=["gray", "colour"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A detector of preset surface-scratch, trained for a moment, and what it came to."""
    place = tmp_path_factory.mktemp(request.param)
    home = RunStore.find(str(place / "mlruns"))
    cloths = make_set(place / "cloths", request.param == "colour")
    # so few steps of some other seeds find spots, and not yet where they are
    train(home, cloths, preset="surface-scratch", steps=80, image_size="40x48", resize_mode="pad", seed=1)
    with drawing():
        return home, cloths, anomaly_ae.evaluate(home=home, compare_scorers=["mse", "pixel-knn"])


def test_defects_are_found_and_it_is_said_where(measured: Measured) -> None:
    _, _, evaluation = measured
    assert evaluation.auroc is not None
    assert evaluation.auroc > 0.9
    assert evaluation.pixel_auroc is not None
    assert evaluation.pixel_auroc > 0.85
    assert evaluation.pro is not None
    assert evaluation.pro > 0.7
    by_class = {row.class_: row for row in evaluation.per_class}
    assert by_class["good"].pixel_auroc is None
    assert all(by_class[kind].pixel_auroc > 0.8 for kind in ("spot", "scratch"))
    assert [row.scorer for row in evaluation.beside] == ["defect", "mse", "pixel-knn"]


def test_what_was_found_is_kept_with_the_run(measured: Measured) -> None:
    home, _, evaluation = measured
    run = home.latest()
    broken = "train/good/broken.png: cannot be read as an image (is not one, or its header is damaged)"
    assert broken in run.split["left_out"]
    kept = json.loads((run.path / "evaluation/metrics.json").read_text())
    assert kept["pro"] == evaluation.pro
    assert "test/spot/003.png" in (run.path / "evaluation/scores.csv").read_text()
    assert {"defects.png", "most_anomalous.png"} <= {path.name for path in (run.path / "figures").iterdir()}
    assert run.config.normal == "good"


def test_a_file_gets_the_number_that_the_evaluation_gave(measured: Measured) -> None:
    home, cloths, _ = measured
    detector = Detector.load(home.latest().detector_folder())
    rows = {row["path"]: row for row in detector.score_folder(cloths / "test")}
    kept = (home.latest().path / "evaluation/scores.csv").read_text().splitlines()
    header, *lines = (line.split(",") for line in kept)
    for line in lines:
        told = dict(zip(header, line, strict=True))
        assert rows[told["path"].removeprefix("test/")]["score"] == pytest.approx(float(told["score"]), rel=1e-5)
    with Image.open(cloths / "test/spot/000.png") as image:
        assert detector.score(image).item() == pytest.approx(rows["spot/000.png"]["score"], rel=1e-5)


def test_gray_pictures_for_a_detector_in_colour_are_told_and_bad_files_by_name(
    measured: Measured, tmp_path: Path
) -> None:
    home, _, _ = measured
    detector = Detector.load(home.latest().detector_folder())
    pictures = [cloth(i, colour=False)[0] for i in range(4)]
    for i in range(5):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/bad {i}.png").write_bytes(b"\x89PNG")
        save(tmp_path / f"in/{i}.png", pictures[i % 4])
    result = anomaly_ae.score(tmp_path / "in", home=home, output=tmp_path / "s.csv")
    in_colour = detector.preprocessing.shape[0] == 3
    assert ("5 of 5 images have no colour, and the detector sees in colour" in result.differences) == in_colour
    told = detector.differences([Image.fromarray(picture) for picture in pictures])
    assert ("4 of 4 images have no colour, and the detector sees in colour" in told) == in_colour
    assert "5 have an error and no score: bad 0.png, bad 1.png, bad 2.png and 2 more" in str(result)


def test_heat_maps_lie_over_the_pictures_as_they_are(measured: Measured, tmp_path: Path) -> None:
    home, cloths, _ = measured
    result = anomaly_ae.score(cloths / "test/spot", home=home, output=tmp_path / "s.csv", heatmaps=tmp_path / "maps")
    assert result.anomalies >= 10
    name = next((tmp_path / "maps").iterdir()).name
    picture_file = cloths / "test/spot" / name.removesuffix(".png")
    with Image.open(tmp_path / "maps" / name) as drawn, Image.open(picture_file) as picture:
        assert drawn.width / picture.width == drawn.height / picture.height


def test_the_folder_may_have_moved_and_grown(measured: Measured, tmp_path: Path) -> None:
    home, cloths, evaluation = measured
    moved = tmp_path / "elsewhere"
    shutil.copytree(cloths, moved)
    save(moved / "train/good/0000.png", cloth(5, False)[0])
    assert anomaly_ae.evaluate(home=home, dataset=str(moved)).pixel_auroc == evaluation.pixel_auroc
    evaluations = home.latest().path / "evaluations"
    assert not list(evaluations.glob("elsewhere*"))
    (moved / "test/spot/000.png").write_bytes((moved / "test/spot/001.png").read_bytes())
    other = anomaly_ae.evaluate(home=home, dataset=str(moved))  # no longer the images recorded: measured as others
    assert other.pixel_auroc != evaluation.pixel_auroc
    (others,) = evaluations.glob("elsewhere-*")
    assert json.loads((others / "metrics.json").read_text())["pixel_auroc"] == other.pixel_auroc
    kept = json.loads((home.latest().path / "evaluation/metrics.json").read_text())
    assert kept["pixel_auroc"] == evaluation.pixel_auroc


@pytest.mark.usefixtures("figures")
def test_odd_names_of_classes_are_drawn_as_they_are(tmp_path: Path) -> None:
    home, cloths = (
        RunStore.find(str(tmp_path / "mlruns")),
        make_set(tmp_path / "cloths", colour=False, train=40, test=3),
    )
    for place in ("test", "ground_truth"):
        (cloths / place / "spot").rename(cloths / place / ("riss $\\foo$ 5_% <b> " + "lang" * 12))
    train(home, cloths, epochs=1, scorer="mse", image_size="16")
    assert len(anomaly_ae.evaluate(home=home).per_class) == 3
    assert (home.latest().path / "figures/score_by_class.png").exists()


def test_changed_or_missing_pictures_are_refused(tmp_path: Path) -> None:
    home, cloths = (
        RunStore.find(str(tmp_path / "mlruns")),
        make_set(tmp_path / "cloths", colour=False, train=30, test=4),
    )
    train(home, cloths, epochs=1, target_fpr=0.2, scorer="mse", image_size="16")
    (cloths / "test/spot/000.png").write_bytes((cloths / "test/spot/001.png").read_bytes())
    with pytest.raises(DataChanged, match=r"1 have changed, the first test/spot/000.png"):
        anomaly_ae.evaluate(home=home)
    (cloths / "test/spot/000.png").unlink()
    with pytest.raises(DataChanged, match=r"1 are gone, the first test/spot/000.png"):
        anomaly_ae.evaluate(home=home)
    shutil.rmtree(cloths)
    with pytest.raises(DataMissing, match="there is no folder"):
        anomaly_ae.evaluate(home=home)


def test_a_flat_folder_is_enough_and_is_measured_on_labelled_pictures(tmp_path: Path) -> None:
    home, cloths = RunStore.find(str(tmp_path / "mlruns")), make_set(tmp_path / "cloths", colour=False)
    train(home, cloths / "train/good", epochs=3, scorer="gradient", image_size="24")
    assert anomaly_ae.evaluate(home=home).auroc is None  # nothing but normal pictures is known of
    evaluation = anomaly_ae.evaluate(home=home, dataset=str(cloths))
    assert evaluation.auroc is not None
    assert evaluation.pixel_auroc is not None
    assert evaluation.normal == ["good"]
    train(home, cloths, epochs=1, scorer="mse", image_size="24")  # and the other way round
    assert anomaly_ae.evaluate(home=home, dataset=str(cloths / "test/good")).false_positive_rate is not None


def test_pictures_of_the_training_are_not_measured_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, cloths = (
        RunStore.find(str(tmp_path / "mlruns")),
        make_set(tmp_path / "cloths", colour=False, train=30, test=4),
    )
    for place in ("test", "ground_truth"):
        shutil.move(cloths / place, tmp_path / place)
    train(home, cloths / "train", epochs=1, target_fpr=0.2, scorer="mse", image_size="16")
    names = Detector.load(home.latest().detector_folder()).split.test.names or ()
    (cloths / "train" / names[0].decode()).unlink()  # it is no longer the set of the training
    (cloths / "train").rename(cloths / "others")
    shutil.move(tmp_path / "test/spot", cloths / "others/spot")
    evaluation = anomaly_ae.evaluate(home=home, dataset=str(cloths / "others"))
    assert evaluation.images == 4 + len(names) - 1
    assert f"left out: {30 - len(names)} pictures that the detector was made with" in capsys.readouterr().err


def test_anomalies_alone_are_measured_as_far_as_they_can_be(tmp_path: Path) -> None:
    home, cloths = (
        RunStore.find(str(tmp_path / "mlruns")),
        make_set(tmp_path / "cloths", colour=False, train=30, test=1),
    )
    shutil.rmtree(cloths / "test/good")
    shutil.rmtree(cloths / "test/scratch")
    train(home, cloths, epochs=1, target_fpr=0.2, scorer="mse", image_size="16")
    evaluation = anomaly_ae.evaluate(home=home)
    assert (evaluation.images, evaluation.auroc, evaluation.reconstruction_mse) == (1, None, None)
    assert evaluation.true_positive_rate in (0, 1)


@pytest.fixture(scope="module")
def cloths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set") / "cloths", colour=False, test=6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"augment": "flip"}, "did you mean 'flips'"),
        ({"scorer": "latent-knn", "top_fraction": 0.1}, "top_fraction is for scorers"),
        (
            {"preset": "surface-scratch", "objective": "mse"},
            "scorer defect reads what objectives repair and features teach",
        ),
        ({"scorer": "mse+restoration"}, 'scorer restoration reads .* objective is mse; name objective="restore"'),
        ({"preset": "surface-scratch", "objective": "repair+restore"}, "restore turns it; leave one"),
        ({"preset": "surface-scratch", "defects": 0}, "needs defects to repair"),
        ({"autoencoder": "repair", "latent": 12, "image_size": 32}, "a multiple of 16"),
        ({"tile": 64, "image_size": 32}, "no tiles of 64×64"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_written(
    cloths: Path, tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    home = RunStore.find(str(tmp_path / "mlruns"))
    with pytest.raises(UsageError, match=said):
        train(home, cloths, **settings)
    assert not (tmp_path / "mlruns").exists()


def test_a_folder_for_each_class_needs_to_know_which_is_normal(tmp_path: Path) -> None:
    home = RunStore.find(str(tmp_path / "mlruns"))
    for kind in ("a", "b"):
        for i in range(40):
            save(tmp_path / f"set/{kind}/{i}.png", cloth(i, False, "spot" if kind == "b" else None)[0])
    with pytest.raises(UsageError, match="normal is needed"):
        train(home, tmp_path / "set", epochs=1)
    result = train(home, tmp_path / "set", epochs=1, normal="a", scorer="mse", target_fpr=0.1, image_size="16")
    assert home.find_run(result.run_id).split["parts"]["test"]["images"] == 46
    assert anomaly_ae.evaluate(home=home).auroc is not None


@pytest.mark.parametrize("autoencoder", ["conv", "repair"])
def test_large_pictures_are_seen_in_tiles(cloths: Path, tmp_path: Path, autoencoder: str) -> None:
    home = RunStore.find(str(tmp_path / "mlruns"))
    settings = {"tile": "20", "image_size": "44x50", "autoencoder": autoencoder, "scorer": "gradient"}
    result = train(home, cloths, epochs=1, **settings)
    detector = Detector.load(home.find_run(result.run_id).detector_folder())
    images = torch.rand(3, 1, 44, 50)
    assert detector.reconstruct(images).shape == images.shape
    heat = detector.anomaly_map(images)
    assert heat is not None
    assert heat.shape == (3, 44, 50)
    assert anomaly_ae.evaluate(home=home).pixel_auroc is not None


def test_an_interrupted_training_on_planted_defects_ends_as_one_that_was_not(cloths: Path, tmp_path: Path) -> None:
    settings = {"preset": "surface-scratch", "image_size": "16", "steps": 20}
    whole, home = RunStore.find(str(tmp_path / "whole")), RunStore.find(str(tmp_path / "parts"))
    first = train(whole, cloths, **settings)
    config = RunConfig.build({"dataset": str(cloths), "batch_size": 8} | settings)
    with interrupted_at(3):
        anomaly_ae.train(config, home=home, tracking=False)
    second = resume("latest", home=home)
    weights = [
        h.find_run(r.run_id).detector_folder() / "weights.safetensors" for h, r in ((whole, first), (home, second))
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_very_long_pictures_are_said_with_what_they_cost_and_endless_sizes_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = RunStore.find(str(tmp_path / "mlruns"))
    for i in range(40):
        save(tmp_path / f"set/{i:02}.png", np.full((1200, 60), i, np.uint8))
    with pytest.raises(UsageError, match="images of 60000×60000 are too large"):
        train(home, tmp_path / "set", image_size="60000")
    train(home, tmp_path / "set", preset="fast", epochs=1, image_size="32x16", target_fpr=0.2)
    assert "100% of the pictures have other proportions than 32×16 and are stretched" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("side", "settings", "preset"),
    [
        (128, (), "surface"),
        (127, (), "default"),
        (128, ("--preset", "default"), "default"),
        (128, ("--scorer", "mse"), "default"),
    ],
)
def test_photos_get_the_preset_for_photos_unless_settings_say_otherwise(
    side: int, settings: tuple[str, ...], preset: str, tmp_path: Path, cli: Cli
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 140, side), dtype=np.uint8)
    for i, each in enumerate(pixels):
        save(tmp_path / f"photos/{i}.png", each)
    brief = ("--epochs", "1", "--target-fpr", "0.4", "--no-figures", "--no-tracking", "--json")
    ended = cli("train", "--dataset", str(tmp_path / "photos"), *settings, *brief)
    result = ended.json()
    assert json.loads(Path(result["run_folder"], "config.json").read_text())["preset"] == preset
    assert ("preset surface, for photos" in ended.err) == (preset == "surface")
    assert ("preset default, since --scorer mse is asked" in ended.err) == ("mse" in settings)
    assert result["guarantee"].startswith("cross" if preset == "surface" else "marginal")
