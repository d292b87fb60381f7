import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import anomaly_ae
from anomaly_ae import AutoencoderDetector
from anomaly_ae.detector.serialization import digest_of
from anomaly_ae.errors import DetectorDamaged, ModelNotFound, StorageError, TooFewRows
from tests.detector.test_serialization import ODD, changed, places

Array = npt.NDArray[Any]


@pytest.mark.filterwarnings("ignore::anomaly_ae.errors.TooFewRows")
@parametrize_with_checks([AutoencoderDetector(epochs=3)])
def test_scikit_learn_finds_nothing_wrong(estimator: AutoencoderDetector, check: Any) -> None:
    check(estimator)


class Digits:
    """Flat rows of 64 values from 0 to 16: 0, 1 and 2 are normal, half of them to fit."""

    def __init__(self) -> None:
        x, y = load_digits(return_X_y=True)
        normal = np.random.RandomState(0).permutation(x[y < 3])
        self.fit, self.normal, self.novel = normal[:350], normal[350:], x[y >= 3]
        self.test = np.concatenate([self.normal, self.novel])
        self.is_normal = np.arange(len(self.test)) < len(self.normal)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def fitted(digits: Digits) -> AutoencoderDetector:
    return AutoencoderDetector(random_state=0).fit(digits.fit)


def quick(**settings: Any) -> AutoencoderDetector:
    return AutoencoderDetector(**{"random_state": 0, "epochs": 2} | settings)


def pixels(digits: Digits) -> Array:
    """The rows to fit as images, uint8 (N, 8, 8)."""
    images: Array = (15 * digits.fit).astype(np.uint8).reshape(-1, 8, 8)
    return images


def test_novel_digits_are_told_apart_and_better_than_by_a_forest(digits: Digits, fitted: AutoencoderDetector) -> None:
    forest = IsolationForest(random_state=0).fit(digits.fit)
    ours, theirs = (roc_auc_score(digits.is_normal, each.decision_function(digits.test)) for each in (fitted, forest))
    assert ours > max(0.98, theirs)
    assert fitted.layout_.shape == (1, 8, 8)
    verdicts = fitted.predict(digits.test)
    assert (verdicts[digits.is_normal] == -1).mean() < 0.1
    assert (verdicts[~digits.is_normal] == -1).mean() > 0.8


def test_false_alarms_come_at_the_rate_asked_for() -> None:
    """39 of 100 rows set the threshold, so that 2 / 40 is to be expected over many draws."""
    random = np.random.RandomState(0)
    rates = [
        (AutoencoderDetector(epochs=1, random_state=i).fit(random.randn(100, 5)).predict(random.randn(500, 5)) < 0)
        for i in range(40)
    ]
    assert abs(np.mean(rates) - 0.05) < 0.02  # standard error 0.006


def test_the_sign_is_flipped_and_the_verdict_is_the_detectors(digits: Digits) -> None:
    images = pixels(digits)
    estimator = quick(target_fpr=0.2).fit(images)
    scores = estimator.detector_.score(images[:, None])
    assert np.array_equal(estimator.score_samples(images), -scores.numpy())
    assert estimator.offset_ == -estimator.detector_.threshold
    flagged = estimator.predict(images) == -1
    assert np.array_equal(flagged, (scores > estimator.detector_.threshold).numpy())
    assert 0 < flagged.sum() < len(images)


def test_images_in_any_form_get_the_same_scores(digits: Digits) -> None:
    images = pixels(digits)
    expected = quick().fit(images).score_samples(images)
    for other in (images[:, None], images[..., None], images.reshape(len(images), -1), torch.from_numpy(images)):
        assert np.array_equal(quick().fit(other).score_samples(other), expected)
    listed = list(images)
    assert np.array_equal(quick().fit(listed).score_samples(listed), expected)
    np.testing.assert_allclose(quick().fit(images / 255).score_samples(images / 255), expected, rtol=1e-4)


def test_colours_may_come_first_or_last(digits: Digits) -> None:
    last = np.stack([pixels(digits), pixels(digits)[::-1], pixels(digits)], axis=-1)
    first = last.transpose(0, 3, 1, 2)
    flat = last.reshape(len(last), -1)
    expected = quick().fit(first).score_samples(first)
    assert np.array_equal(quick().fit(last).score_samples(last), expected)
    assert np.array_equal(quick(image_shape=(8, 8, 3)).fit(flat).score_samples(flat), expected)


def test_images_of_another_shape_are_refused(digits: Digits) -> None:
    estimator = quick().fit(pixels(digits))
    with pytest.raises(ValueError, match="images of 4×16 were given, and images of 1×8×8 expected"):
        estimator.predict(pixels(digits).reshape(-1, 4, 16))
    coloured = np.stack([pixels(digits)] * 3, axis=-1)
    with pytest.raises(ValueError, match="images of 3×8×8 were given, and images of 8×8×3 expected"):
        quick().fit(coloured).predict(coloured.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match="64 values were given, and images of 1×5×5 expected"):
        quick(image_shape=(5, 5)).fit(digits.fit)


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler()])
def test_in_a_pipeline(digits: Digits, scaler: Any) -> None:
    pipeline = make_pipeline(scaler, AutoencoderDetector(random_state=0, epochs=60)).fit(digits.fit)
    assert roc_auc_score(digits.is_normal, pipeline.decision_function(digits.test)) > 0.95


def test_in_a_grid_search(digits: Digits) -> None:
    x = np.concatenate([digits.fit, digits.test])
    is_normal = np.concatenate([np.ones(len(digits.fit), bool), digits.is_normal])
    split = (np.arange(len(digits.fit)), np.arange(len(digits.fit), len(x)))
    grid = {"latent": [1, 12], "scorer": ["mse"]}
    found = GridSearchCV(quick(epochs=60), grid, scoring="roc_auc", cv=[split], refit=False).fit(x, is_normal)
    best = clone(quick(epochs=60)).set_params(**found.best_params_).fit(digits.fit)
    assert found.best_params_["latent"] == 12  # with one number little can be told apart
    assert found.best_score_ == roc_auc_score(digits.is_normal, best.decision_function(digits.test))


def test_the_seed_decides_and_nothing_else_is_touched(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    states = torch.get_rng_state(), np.random.get_state()[1]
    first, again, other = (quick(random_state=seed).fit(digits.fit).score_samples(digits.test) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("count", "rate"), [(3, 1 / 2), (20, 1 / 11), (37, 1 / 19)])
def test_with_too_few_rows_the_rate_is_the_least_possible_and_said(digits: Digits, count: int, rate: float) -> None:
    with pytest.warns(TooFewRows, match=f"needs 19 samples .* and {count} were given: it is set for a rate of"):
        estimator = quick().fit(digits.fit[:count])
    assert estimator.detector_.calibration.expected_fpr == pytest.approx(rate)
    assert estimator.target_fpr_ == pytest.approx(rate, rel=1e-3)  # rounded up, as it is printed


def test_38_rows_are_enough(digits: Digits) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = quick().fit(digits.fit[:38])
    assert estimator.target_fpr_ == 0.05
    with pytest.raises(ValueError, match="minimum of 3 is required"):
        quick().fit(digits.fit[:2])


@pytest.mark.parametrize("width", [1, 2, 9, 30, 64])
def test_the_further_outside_the_more_anomalous(width: int) -> None:
    rows = np.random.RandomState(0).randn(200, width)
    estimator = quick(scorer="mse").fit(rows)
    outside = estimator.decision_function(np.outer([8, 50, 300], np.ones(width)))
    assert 0 > outside[0] > outside[1] > outside[2]


def test_features_of_other_units_count_alike() -> None:
    """As for a forest, for which only the order within a feature matters."""
    rows, units = np.random.RandomState(0).randn(200, 6), 10.0 ** np.arange(-3, 3)
    estimator, scaled = quick().fit(rows), quick().fit(rows * units + 7)
    np.testing.assert_allclose(scaled.score_samples(rows * units + 7), estimator.score_samples(rows), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent": 0}, "latent must be from 1"),
        ({"target_fpr": 1.5}, "target_fpr must be above 0 and below 1"),
        ({"autoencoder": "con"}, "did you mean 'conv'"),
        ({"scorer": "nonsense"}, "unknown scorer"),
        ({"objective": "nonsense"}, "unknown objective"),
        ({"objective": "elbo"}, "needs a variational autoencoder"),
        ({"scorer": "elbo"}, 'take autoencoder="vae" with it'),
        ({"scorer": "defect"}, "needs a network that says where defects are"),
        ({"device": "tpu"}, "device must be one of"),
        ({"random_state": "x"}, "cannot be used to seed"),
        ({"image_shape": "8x8"}, "the shape of an image is"),
    ],
)
def test_wrong_settings_are_value_errors_when_fitted(digits: Digits, settings: Any, message: str) -> None:
    estimator = quick(**settings)
    with pytest.raises(ValueError, match=message):
        estimator.fit(digits.fit[:60])


@pytest.mark.parametrize("kind", [np.uint8, int, float])
def test_pictures_in_another_unit_are_refused(digits: Digits, kind: type) -> None:
    images = pixels(digits)
    with pytest.raises(ValueError, match="give them as in fit"):
        quick().fit(images / 255).predict(images.astype(kind))
    with pytest.raises(ValueError, match="give them as in fit"):
        quick().fit(images).predict(images / 255)
    assert quick().fit(images / 255).predict(1.5 * images / 255).min() == -1


def test_a_network_that_knows_photographs_refuses_other_channels_than_theirs() -> None:
    four = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 4), np.uint8)
    with pytest.raises(ValueError, match="with 1 or 3 channels, and these have 4"):
        AutoencoderDetector(autoencoder="feature-conv", scorer="patch-knn").fit(four)


def test_calibration_beyond_the_range_seen_in_training_is_no_error() -> None:
    for scorer in ("mse", "relative+latent-knn", "pca"):
        quick(scorer=scorer).fit(np.random.RandomState(0).standard_cauchy((80, 30)))
    quick(autoencoder="vae", scorer="elbo").fit(np.random.RandomState(0).standard_cauchy((80, 64)))


def test_saved_and_loaded_it_says_the_same(digits: Digits, fitted: AutoencoderDetector, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m")
    fitted.save(tmp_path / "m")  # over the one that was there
    loaded = AutoencoderDetector.load(tmp_path / "m", "cpu")
    assert np.array_equal(loaded.decision_function(digits.test), fitted.decision_function(digits.test))
    assert loaded.get_params() == fitted.get_params()
    assert {*vars(loaded)} == {*vars(fitted)}
    assert anomaly_ae.load(tmp_path / "m").threshold == -fitted.offset_
    assert not [path for path in (tmp_path / "m").iterdir() if path.suffix not in (".json", ".safetensors")]


def test_names_and_settings_of_numpy_are_saved_too(digits: Digits, tmp_path: Path) -> None:
    frame = pd.DataFrame(digits.fit[:, :12]).add_prefix("x")
    settings = {"latent": np.int64(3), "image_shape": (np.int64(3), 4), "random_state": np.random.RandomState(0)}
    estimator = quick(**settings).fit(frame)
    estimator.save(tmp_path / "m")
    loaded = AutoencoderDetector.load(tmp_path / "m")
    assert np.array_equal(loaded.score_samples(frame), estimator.score_samples(frame))
    assert loaded.get_params() == estimator.get_params() | {"random_state": None}
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(frame.add_prefix("y"))


def test_what_was_not_saved_by_it_is_not_loaded(fitted: AutoencoderDetector, tmp_path: Path) -> None:
    folder, file = tmp_path / "m", tmp_path / "m" / "estimator.json"
    with pytest.raises(ModelNotFound, match="there is no detector"):
        AutoencoderDetector.load(folder)
    fitted.detector_.save(folder)
    with pytest.raises(ModelNotFound, match=r"no estimator\.json"):
        AutoencoderDetector.load(folder)
    fitted.save(folder)
    about = json.loads(file.read_text())
    for broken in (about | {"detector": "another"}, {}, [], about | {"settings": {"nonsense": 1}}):
        file.write_text(json.dumps(broken))
        with pytest.raises(DetectorDamaged, match=r"estimator\.json is damaged"):
            AutoencoderDetector.load(folder)
    (folder / "mine.txt").touch()
    with pytest.raises(StorageError, match="holds other things"):
        fitted.save(folder)


@pytest.mark.filterwarnings("ignore::anomaly_ae.errors.TooFewRows")
def test_every_field_that_is_changed_is_refused_or_does_no_harm(tmp_path: Path) -> None:
    rows = np.random.RandomState(0).rand(30, 4).astype(np.float32)
    AutoencoderDetector(epochs=1, scorer="mse").fit(rows).save(tmp_path / "m")
    file, refused = tmp_path / "m" / "estimator.json", 0
    about = json.loads(file.read_text())
    del about["sha256"]
    for place in places(about):
        variants = [changed(about, place, lambda inner, key: inner.pop(key))]
        variants += [changed(about, place, lambda inner, key, odd=odd: inner.__setitem__(key, odd)) for odd in ODD]
        for variant in variants:
            file.write_text(json.dumps(variant | {"sha256": digest_of(variant)}))
            try:
                loaded = AutoencoderDetector.load(tmp_path / "m")
            except DetectorDamaged:
                refused += 1
            else:
                assert np.isfinite(loaded.score_samples(rows)).all()
    assert refused > 200


def test_what_was_not_said_suits_the_samples() -> None:
    rows = np.random.RandomState(0).rand(40, 64)
    picture = AutoencoderDetector(epochs=1, random_state=0).fit(rows).detector_.config
    assert (picture.autoencoder, picture.scorer) == ("conv", "aligned-knn")
    for width, latent in ((30, 15), (1, 1), (500, 64)):  # the network's own is narrow enough for many
        line = AutoencoderDetector(epochs=1, random_state=0).fit(np.random.RandomState(0).rand(40, width))
        config = line.detector_.config
        assert (config.autoencoder, config.scorer, config.latent) == ("multilayer", "mse+latent-knn", latent)


def test_what_was_said_stays() -> None:
    said = {"autoencoder": "vanilla", "scorer": "mae", "latent": 40, "objective": "ssim"}
    for width in (64, 30):
        rows = np.random.RandomState(0).rand(40, width)
        config = (
            AutoencoderDetector(epochs=1, random_state=0, image_shape=(1, width), **said).fit(rows).detector_.config
        )
        assert {name: getattr(config, name) for name in said} == said
    repaired = AutoencoderDetector(autoencoder="repair", epochs=1, random_state=0)
    assert repaired.fit(np.random.RandomState(0).rand(40, 256)).detector_.config.objective == "repair"  # its own


@pytest.mark.parametrize("width", [64, 30])
def test_the_threshold_is_set_by_samples_that_serve_for_nothing_else(width: int) -> None:
    rows = np.random.RandomState(0).randn(100, width)
    one = AutoencoderDetector(epochs=1, random_state=0).fit(rows)
    parts = [getattr(one.detector_.split, part).indices for part in ("fit", "validation", "calibration")]
    assert torch.cat(parts).sort().values.tolist() == list(range(100))
    seen = rows[torch.cat(parts[:2]).numpy()]
    assert np.array_equal(one.scale_.low, seen.min(axis=0) if width == 30 else [seen.min()])
    altered = rows.copy()
    altered[parts[2].numpy()] *= 100
    other = AutoencoderDetector(epochs=1, random_state=0).fit(altered)
    for name, weights in one.detector_.network.state_dict().items():
        assert torch.equal(weights, other.detector_.network.state_dict()[name])
    learned = other.detector_.scorer.state()
    assert all(torch.equal(value, learned[name]) for name, value in one.detector_.scorer.state().items())
    assert other.detector_.threshold > one.detector_.threshold


def test_pictures_are_resized_for_networks_of_one_size_and_features_are_not() -> None:
    rows = np.random.RandomState(0).rand(20, 64)
    quick = {"epochs": 1, "target_fpr": 0.2, "random_state": 0}
    pictures = AutoencoderDetector(autoencoder="vanilla", **quick).fit(rows)
    assert pictures.detector_.preprocessing.shape == (1, 28, 28)
    features = AutoencoderDetector(image_shape=(4, 16), **quick).fit(rows)
    assert features.detector_.preprocessing.shape == (1, 4, 16)
