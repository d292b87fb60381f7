import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.errors import DataError, DetectorDamaged, ModelNotFound, StorageError, UsageError
from anomaly_ae.scorers import build_scorer
from tests.conftest import Trained


def images() -> torch.Tensor:
    return load_dataset("digits").files["train"].images


@pytest.fixture
def copy(trained: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.run.path / "detector", tmp_path / "copy"))


def test_after_loading_it_says_what_it_said_before_saving(trained: Trained, tmp_path: Path) -> None:
    one = trained.detector()
    one.save(tmp_path / "saved")
    other = Detector.load(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["detector.json", "weights.safetensors"]
    assert torch.equal(one.score(images()), other.score(images()))
    assert one.threshold == other.threshold
    assert (one.config, one.normal) == (other.config, other.normal)
    assert one.split.summary() == other.split.summary()
    assert torch.equal(one.p_values(one.score(images())), other.p_values(other.score(images())))


def test_uint8_and_float_images_score_the_same(trained: Trained) -> None:
    detector = trained.detector()
    assert torch.equal(detector.score(images()[:50]), detector.score(images()[:50].float().div(255)))


@pytest.mark.parametrize("count", [1, 3, 256, 300])
def test_a_score_hardly_depends_on_how_many_images_come_with_it(trained: Trained, count: int) -> None:
    detector = trained.detector()
    torch.testing.assert_close(detector.score(images()[:count]), detector.score(images())[:count], rtol=1e-5, atol=0)


def test_one_image_costs_about_one_image(trained: Trained) -> None:
    detector, seen = trained.detector(), list[int]()
    detector.network.encoder[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    for count in (1, 3, 20, 300):
        detector.score(images()[:count])
    assert seen == [1, 4, 16, 4, 256, 64]


def test_the_caller_s_autocast_changes_nothing(trained: Trained) -> None:
    detector = trained.detector()
    expected = detector.score(images()[:50])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(detector.score(images()[:50]), expected)


def test_shapes_and_ranges(trained: Trained) -> None:
    detector, some = trained.detector(), images()[:5]
    rebuilt, heat = detector.reconstruct(some), detector.anomaly_map(some)
    assert heat is not None
    assert torch.equal(heat, detector.heat_map(some))  # the name that it had before
    assert (detector.score(some).shape, detector.predict(some).dtype) == ((5,), torch.bool)
    assert (rebuilt.shape, heat.shape, detector.encode(some).shape) == ((5, 1, 8, 8), (5, 8, 8), (5, 12))
    assert 0 <= float(rebuilt.min()) <= float(rebuilt.max()) <= 1
    assert torch.equal(detector.predict(some), detector.score(some) > detector.threshold)


def test_no_images_give_no_scores(trained: Trained) -> None:
    nothing = torch.zeros(0, 1, 8, 8, dtype=torch.uint8)
    assert trained.detector().score(nothing).shape == (0,)
    assert trained.detector().reconstruct(nothing).shape == (0, 1, 8, 8)


def test_other_images_are_refused(trained: Trained) -> None:
    with pytest.raises(DataError, match="N×1×8×8"):
        trained.detector().score(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("file", ["detector.json", "weights.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_error(copy: Path, file: str, share: float) -> None:
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DetectorDamaged) as caught:
        Detector.load(copy)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_flipped_bit_is_noticed(copy: Path) -> None:
    content = bytearray((copy / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(content)
    with pytest.raises(DetectorDamaged, match="truncated or was changed"):
        Detector.load(copy)


def test_a_changed_setting_is_noticed(copy: Path) -> None:
    about = json.loads((copy / "detector.json").read_text())
    about["calibration"]["target_fpr"] = 0.5
    (copy / "detector.json").write_text(json.dumps(about))
    with pytest.raises(DetectorDamaged, match="was changed after it was saved"):
        Detector.load(copy)


@pytest.mark.parametrize("content", ["[]", "null", '"text"', "{}", '{"format": 1}', "\x00"])
def test_json_that_is_no_detector(copy: Path, content: str) -> None:
    (copy / "detector.json").write_text(content)
    with pytest.raises(DetectorDamaged):
        Detector.load(copy)


def test_a_later_format_asks_for_a_later_version(copy: Path) -> None:
    (copy / "detector.json").write_text('{"format": 99}')
    with pytest.raises(DetectorDamaged, match="install a later anomaly-ae"):
        Detector.load(copy)


def test_half_a_detector_and_none(copy: Path, tmp_path: Path) -> None:
    (copy / "weights.safetensors").unlink()
    with pytest.raises(DetectorDamaged, match=r"lacks weights\.safetensors"):
        Detector.load(copy)
    with pytest.raises(ModelNotFound, match=r"no detector\.json"):
        Detector.load(tmp_path / "nowhere")


def test_saving_replaces_a_detector_and_nothing_else(trained: Trained, copy: Path, tmp_path: Path) -> None:
    trained.detector().save(copy)
    mine = tmp_path / "mine"
    mine.mkdir()
    trained.detector().save(mine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "mine"]
    (copy / "photos").mkdir()
    (copy / "photos" / "a.png").write_bytes(b"precious")
    with pytest.raises(StorageError, match="holds other things than a detector"):
        trained.detector().save(copy)
    assert (copy / "photos" / "a.png").read_bytes() == b"precious"


def test_an_absent_device_is_wrong_use(copy: Path) -> None:
    if not torch.backends.mps.is_available():
        with pytest.raises(UsageError, match="no device 'mps'"):
            Detector.load(copy, device="mps")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_scores(trained: Trained) -> None:
    folder = trained.run.path / "detector"
    here, there = Detector.load(folder, "cpu"), Detector.load(folder, "cuda")
    torch.testing.assert_close(there.score(images()), here.score(images()), rtol=1e-4, atol=1e-4)


def test_a_trimmed_scorer_has_not_seen_what_scored_highest(trained: Trained) -> None:
    detector = trained.detector()
    digits = load_dataset("digits").files["train"]
    fit, validation = (digits.images[getattr(detector.split, part).indices] for part in ("fit", "validation"))
    noise = torch.randint(0, 256, (10, *fit.shape[1:]), dtype=torch.uint8)
    smuggled = torch.cat([fit, noise])
    for trimmed, left_out in ((0.0, 0), (0.05, round(0.05 * len(smuggled)))):
        config = dataclasses.replace(detector.config, trim_training=trimmed)
        scorer = fit_scorer(build_scorer("pixel-knn"), detector.network, smuggled, validation, config)
        memory = scorer.state()["memory"]
        assert len(memory) == len(smuggled) - left_out
        nearest = torch.cdist(noise.flatten(1).float() / 255, memory).amin(dim=1)
        assert bool((nearest > 0.5).all() if trimmed else (nearest < 0.01).all())
