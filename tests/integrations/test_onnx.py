import dataclasses
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import AUTOENCODERS
from anomaly_ae.config.run_config import CONDITIONAL, MARGINAL, TAIL, RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.datasets.splits import SPLIT_PARTS
from anomaly_ae.datasets.splitting import split_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import make_detector
from anomaly_ae.errors import ExportError, UsageError
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.scorers import SCORERS
from tests.conftest import Trained

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnx
import onnxruntime

from anomaly_ae.integrations import onnx as door

EXPORTABLE = sorted({*SCORERS} - {"aligned-knn"})  # the latter is the default, tested below
NEEDS = {"elbo": "vae", "defect": "repair", "feature-error": "feature-conv", "restoration": "skip-conv"}


def surfaces(count: int, shape: tuple[int, int, int]) -> Tensor:
    """Smooth images with some grain, black above, uint8."""
    draw = torch.Generator().manual_seed(0)
    smooth = functional.interpolate(torch.rand(count, shape[0], 4, 4, generator=draw), shape[1:], mode="bilinear")
    images = smooth * (0.8 + 0.2 * torch.rand(count, *shape, generator=draw))
    images[:, :, : shape[1] // 4] = 0
    return images.mul(255).to(torch.uint8)


def make(autoencoder: str, scorer: str, shape: tuple[int, int, int] = (1, 28, 28), **told: Any) -> Detector:
    """A detector with a network as it was drawn, which has seen some noise for its batch norm."""
    torch.manual_seed(0)
    config = RunConfig(dataset="surfaces", autoencoder=autoencoder, scorer=scorer, device="cpu", **told)
    experiment = Experiment.build(config, Preprocessing(*shape), ("good",), ("good",))
    with torch.no_grad():
        experiment.network.train()(torch.rand(16, shape[0], *(config.tile_size or shape[1:])))
    data = Dataset("surfaces", ("good",), {"train": ImageSet(surfaces(100, shape), torch.zeros(100).long())})
    split = split_dataset(data, [0], seed=0, needed=19)
    parts = {name: getattr(split, name).take(data) for name in SPLIT_PARTS}
    return make_detector(experiment, experiment.network.eval(), parts, split)


def run(file: Path, images: Tensor) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))


def assert_same(file: Path, detector: Detector, images: Tensor) -> None:
    """What the file says of images is what the detector says, but for the last bits, and bit for bit its verdicts."""
    found = run(file, images)
    np.testing.assert_allclose(found["score"], detector.score(images), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["reconstruction"], detector.reconstruct(images), rtol=0, atol=1e-5)
    heat = detector.anomaly_map(images)
    assert (heat is None) == ("heat_map" not in found)
    if heat is not None:
        np.testing.assert_allclose(found["heat_map"], heat, rtol=1e-4, atol=1e-4 * float(heat.max()))
    scores = torch.from_numpy(found["score"])
    np.testing.assert_allclose(found["p_value"], detector.p_values(scores), rtol=1e-12)
    assert torch.equal(torch.from_numpy(found["is_anomaly"]), scores > detector.threshold)


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> door.Exported:
    """The default detector, aligned-knn, of digits."""
    with redirect_stdout(io.StringIO()) as said:
        exported = door.export_onnx(trained.detector(), tmp_path_factory.mktemp("onnx") / "digits.onnx")
    assert said.getvalue() == ""
    return exported


@pytest.mark.slow  # the export of aligned-knn, which takes half a minute
@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_the_file_says_what_the_detector_says_of_any_number_of_images(
    exported: door.Exported, trained: Trained, count: int
) -> None:
    assert_same(exported.file, trained.detector(), load_dataset("digits").files["train"].images[:count])


@pytest.mark.slow  # the export of aligned-knn, which takes half a minute
def test_what_an_export_came_to(exported: door.Exported, trained: Trained) -> None:
    assert exported.inputs == {"images": "uint8 (N, 1, 8, 8)"}
    assert exported.outputs == {
        "reconstruction": "float32 (N, 1, 8, 8)",
        "score": "float32 (N)",
        "p_value": "float64 (N)",
        "is_anomaly": "bool (N)",
        "heat_map": "float32 (N, 8, 8)",
    }
    assert exported.deviations.keys() == exported.outputs.keys()
    assert max(exported.deviations.values()) <= door.TOLERANCE
    assert exported.images >= 24
    assert (exported.threshold, exported.bytes) == (trained.detector().threshold, Path(exported.file).stat().st_size)
    assert [path.name for path in Path(exported.file).parent.iterdir()] == ["digits.onnx"]


@pytest.mark.slow  # the export of aligned-knn, which takes half a minute
def test_the_file_alone_says_what_to_do_with_it(exported: door.Exported, trained: Trained) -> None:
    detector, model = trained.detector(), onnx.load(exported.file)
    onnx.checker.check_model(model, full_check=True)
    about = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert (about["threshold"], about["target_fpr"]) == (detector.threshold, 0.05)
    shape = {"channels": 1, "height": 8, "width": 8}
    assert about["preprocessing"] == shape | {"fit": "stretch", "intensity": None, "roi": None}
    assert (about["scorer"], about["normal"]) == ("aligned-knn", ["0", "1", "2"])
    assert about["detector_sha256"] == detector.digest
    assert (about["heat_level"], about["heat_peaks"]) == (detector.heat_level, detector.heat_peaks.tolist())
    assert (about["levels"], about["looked_at"]) == ({"whole": [0, 65_535], "floats": [0, 1]}, [[0, 0, 1, 1]])
    assert (about["format"], about["batch"]) == (door.METADATA_FORMAT, 16)
    assert b"/anomaly_ae/" not in Path(exported.file).read_bytes()  # no places of the machine that made it


@pytest.mark.slow  # an export of each
@pytest.mark.parametrize("scorer", EXPORTABLE)
def test_every_scorer_can_be_exported(scorer: str, tmp_path: Path) -> None:
    detector = make(NEEDS.get(scorer, "conv"), scorer)
    door.export_onnx(detector, tmp_path / "a.onnx")
    if scorer != "ssim":  # its map is rounding where an image is bright and flat
        assert_same(tmp_path / "a.onnx", detector, surfaces(5, (1, 28, 28)))


@pytest.mark.slow  # an export of each
@pytest.mark.parametrize("autoencoder", sorted({*AUTOENCODERS} - {"conv", *NEEDS.values()}))
def test_every_autoencoder_can_be_exported(autoencoder: str, tmp_path: Path) -> None:
    shape = (1, 28, 28) if autoencoder == "wide-kernel" else (1, 16, 16)
    detector = make(autoencoder, "mse", shape)
    door.export_onnx(detector, tmp_path / "a.onnx")
    assert_same(tmp_path / "a.onnx", detector, surfaces(5, shape))


@pytest.mark.slow  # an export of tiles
def test_colour_tiles_and_a_size_that_is_made_smaller(tmp_path: Path) -> None:
    shape = (3, 70, 81)
    detector = make("conv", "relative+pca", shape, tile=(32, 40))
    door.export_onnx(detector, tmp_path / "a.onnx")
    assert_same(tmp_path / "a.onnx", detector, surfaces(3, shape))


@pytest.mark.parametrize("guarantee", [MARGINAL, CONDITIONAL, TAIL])
def test_p_values_are_those_of_the_calibration(guarantee: str) -> None:
    from anomaly_ae.calibration.conformal import Calibration

    scores = torch.rand(200, generator=torch.Generator().manual_seed(0))
    calibration = Calibration(scores, 0.05, guarantee)
    asked = torch.cat([scores, torch.tensor([-1, 0, 0.5, 0.99, 1, 1.1, 5])])
    torch.testing.assert_close(
        door.p_values(calibration, asked), calibration.p_values(asked), rtol=1e-12 if guarantee == TAIL else 0, atol=0
    )
    assert door.p_values(calibration, torch.tensor([torch.nan])).isnan().all()  # a graph cannot refuse it


@pytest.mark.parametrize("guarantee", [MARGINAL, CONDITIONAL, TAIL, "manual"])
def test_p_values_of_groups_are_those_of_the_calibration(guarantee: str) -> None:
    from anomaly_ae.calibration.conformal import Calibration

    draw = torch.Generator().manual_seed(0)
    scores = torch.cat([torch.rand(200, generator=draw), 2 * torch.rand(70, generator=draw)])
    calibration = Calibration(scores, 0.05, groups=torch.tensor([0] * 200 + [1] * 70))
    manual = guarantee == "manual"
    calibration = calibration.at_threshold(0.9) if manual else calibration.at(guarantee=guarantee)
    asked = torch.cat([scores, torch.tensor([-1, 0, 0.5, 0.9, 0.99, 1, 1.1, 5])])
    torch.testing.assert_close(
        door.p_values(calibration, asked), calibration.p_values(asked), rtol=1e-12 if guarantee == TAIL else 0, atol=0
    )
    assert door.p_values(calibration, torch.tensor([torch.nan])).isnan().all()


@pytest.mark.parametrize("chosen", [None, 0.6])
def test_a_detector_with_groups_of_calibration_images_is_exported_with_them(
    chosen: float | None, tmp_path: Path
) -> None:
    detector = make("conv", "mse")
    scores = detector.calibration.scores
    groups = torch.arange(len(scores)) % 2
    scores = torch.where(groups > 0, 2 * scores, scores)
    calibration = detector.calibration.at(scores=scores, groups=groups, target_fpr=0.2)
    if chosen is not None:
        calibration = calibration.at_threshold(float(scores.quantile(chosen)))
    detector = dataclasses.replace(detector, calibration=calibration)
    exported = door.export_onnx(detector, tmp_path / "a.onnx")
    assert exported.threshold == detector.threshold
    assert_same(tmp_path / "a.onnx", detector, surfaces(60, (1, 28, 28)))
    about = {prop.key: json.loads(prop.value) for prop in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert about["calibration_groups"] == [len(group) for group in detector.calibration.by_group]


def test_a_detector_with_a_threshold_of_one_s_own_is_exported(tmp_path: Path) -> None:
    detector = make("conv", "mse")
    chosen = detector.calibration.at_threshold(float(detector.calibration.scores.median()))
    detector = dataclasses.replace(detector, calibration=chosen)
    exported = door.export_onnx(detector, tmp_path / "a.onnx")
    assert exported.threshold == detector.threshold
    assert_same(tmp_path / "a.onnx", detector, surfaces(60, (1, 28, 28)))


@pytest.mark.parametrize("chosen", [0.2, 0.9])
def test_p_values_of_a_threshold_of_one_s_own_are_those_of_the_calibration(chosen: float) -> None:
    from anomaly_ae.calibration.conformal import Calibration

    scores = torch.rand(200, generator=torch.Generator().manual_seed(0))
    calibration = Calibration(scores, 0.05).at_threshold(chosen)
    asked = torch.cat([scores, torch.tensor([-1, 0, chosen, 1.1, 5])])
    torch.testing.assert_close(door.p_values(calibration, asked), calibration.p_values(asked), rtol=0, atol=0)


def test_a_graph_of_another_detector_is_found_out() -> None:
    detector = make("conv", "mse")
    session, images = door.open_session(door.make_graph(detector)), door.trial_images(detector)
    door.check(session, detector, images)
    with torch.no_grad():
        detector.network.decoder[-2][-1].bias += 1e-3
    with pytest.raises(ExportError, match=r"deviates from the detector's by .*e-0[1-4], .* nothing was written"):
        door.check(session, detector, images)


def test_what_is_no_graph_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    detector = make("conv", "latent-knn")
    detector.scorer.learned["memory"] = torch.zeros(1).expand(2**29, 1)  # 2 GB, were they there
    with pytest.raises(UsageError, match=r"scorer latent-knn remembers has 2\.1 GB"):
        door.export_onnx(detector, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "said"), [("a.pb", r"as in detector\.onnx"), ("no/a.onnx", "there is no folder"), (".", "as in")]
)
def test_names_that_are_none_for_it(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        door.export_onnx(make("conv", "mse"), tmp_path / name)
