from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import anomaly_ae
from anomaly_ae.augmentation.transforms import flips, varied_copies
from anomaly_ae.autoencoders import Autoencoder, build_autoencoder
from anomaly_ae.autoencoders import backbone as backbones
from anomaly_ae.autoencoders.feature_conv import (
    CROP_PLACES,
    PAINTED,
    RESTORED,
    SEEN,
    SMALL,
    Whitening,
)
from anomaly_ae.autoencoders.folds import FoldAutoencoders, draw_folds
from anomaly_ae.autoencoders.inference import PERCEIVED_AT_ONCE, map_images, perceive_all
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import held_out, prepare
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.errors import UsageError
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.integrations.onnx import export_onnx
from anomaly_ae.runs.store import RunStore
from anomaly_ae.scorers import build_scorer
from anomaly_ae.storage.pixel_values import as_float
from anomaly_ae.workflows.resolve import resolve
from anomaly_ae.workflows.train import resume

SHAPE = (3, 40, 48)


def ready(**settings: object) -> Autoencoder:
    config = RunConfig.build(settings)
    network = build_autoencoder("feature-conv", SHAPE, config)
    network.begin(config)
    return network


def seeing(photos: Path, **settings: object) -> RunConfig:
    """A training on these photos."""
    usual = {"scorer": "feature-error+2*patch-knn+0.5*defect", "image_size": "40x48", "target_fpr": 0.2}
    return RunConfig.build({"dataset": str(photos), "autoencoder": "feature-conv"} | usual | settings)


def test_what_is_prepared_is_what_is_seen_whitened() -> None:
    network = ready()
    images = torch.randint(0, 256, (PERCEIVED_AT_ONCE + 3, *SHAPE), dtype=torch.uint8)
    varied, fit, validation, augment = network.prepare(images, images[:4])
    assert varied is images
    assert augment is not None
    rows = network.encoder[1](fit[:, :176].float()).permute(0, 2, 3, 1).flatten(0, 2)
    covariance = rows.T @ rows / len(rows)
    assert rows.mean(dim=0).abs().max() < 0.01
    assert (covariance - covariance.diagonal().diag()).abs().max() < 0.01
    assert 0.9 < covariance.diagonal().max() < 1.01
    assert torch.allclose(fit[:4, :224].float(), validation[:, :224].float(), atol=0.05)
    torch.testing.assert_close(augment(fit)[:, : fit.shape[1]], fit.float(), rtol=0, atol=0)  # 5×6 places are not cut
    assert augment(torch.rand(2, 401, 40, 9)).shape == (2, 577, CROP_PLACES, 9)
    with torch.inference_mode():
        direct, cached = network.eval()(images[:4].float() / 255), network(validation.float())
    for head in (SEEN, RESTORED, SMALL, PAINTED):
        assert torch.allclose(direct.heads[head], cached.heads[head], atol=0.1), head
    assert direct.reconstruction.shape == (4, *SHAPE)


def test_defects_are_planted_in_what_is_prepared_and_nothing_of_another_image() -> None:
    network, torch_state = ready(), torch.get_rng_state()
    images = torch.rand(24, *SHAPE)
    changed = torch.cat([1 - images[:1], images[1:]])
    seen, looked_at = [], list[int]()
    hook = network.encoder[0].register_forward_pre_hook(lambda _, given: looked_at.append(len(given[0])))
    for each in (images, changed):
        torch.manual_seed(1)
        seen.append(network.perceive_spoiled(each))
    hook.remove()
    torch.set_rng_state(torch_state)
    clean, small, spoiled, where = torch.split(seen[0], [176, 48, 176, 1], dim=1)
    assert torch.equal(torch.cat([clean, small], dim=1), network.perceive(images))
    assert set(where.unique().tolist()) == {0.0, 1.0}
    sound = where.amax(dim=(1, 2, 3)) == 0
    assert 0 < sound.sum() < 12
    assert (clean - spoiled).abs().amax(dim=(1, 2, 3))[~sound].min() > 0.1
    same = (clean == spoiled).flatten(1).all(dim=1)
    assert 0 < same.sum() <= sound.sum()
    assert bool(sound[same].all())
    assert sum(looked_at) == 2 * (24 + 24 - int(same.sum()))  # what was left as it is is looked at once
    assert torch.equal(seen[0][1:], seen[1][1:])
    assert not torch.equal(seen[0][0], seen[1][0])


def test_networks_of_folds_share_what_learns_nothing_and_whiten_by_their_own_images() -> None:
    torch.manual_seed(0)
    config = RunConfig(autoencoder="feature-conv", folds=2, guarantee="cross", augment="flips").filled()
    folds = build_autoencoder("feature-conv", SHAPE, config)
    assert isinstance(folds, FoldAutoencoders)
    folds.begin(config)
    assert not any(name.startswith("members.1.encoder.0") for name in folds.state_dict())
    images = torch.randint(0, 256, (6, *SHAPE), dtype=torch.uint8)
    images[draw_folds(6, 2, config.seed) == 0] //= 4
    varied = varied_copies(images, flips, folds.copies, config.seed)
    fit = folds.prepare(varied, images[:2]).fit
    assert len(fit) == 24
    for member, rows in folds.learners(len(fit)):
        own = member.encoder[1](fit[rows, :176].float())
        assert own.mean(dim=(0, 2, 3)).abs().max() < 0.01
    assert torch.equal(perceive_all(folds, varied), fit[:, :224])
    with torch.inference_mode():
        given = as_float(images)
        together = folds.eval()(given)
        assert torch.equal(folds(folds.perceive(given)).reconstruction, together.reconstruction)
        for member, outputs in zip(folds, together.members, strict=True):
            assert torch.allclose(member(given).latent, outputs.latent, atol=1e-4)


def test_no_fold_s_judge_knows_its_images_nor_varied_copies_of_them() -> None:
    config = RunConfig(autoencoder="feature-conv", folds=3, guarantee="cross", augment="flips").filled()
    images = torch.randint(0, 256, (7, *SHAPE), dtype=torch.uint8)
    new = torch.randint(0, 256, (5, *SHAPE), dtype=torch.uint8)
    drawn = draw_folds(7, 3, config.seed)
    changed = torch.where((drawn == 1)[:, None, None, None], images // 3, images)
    scores = []
    for each in (images, changed):
        torch.manual_seed(0)
        network = build_autoencoder("feature-conv", SHAPE, config)
        network.begin(config)
        prepared = network.prepare(varied_copies(each, flips, network.copies, config.seed), new[:1])
        scorer = fit_scorer(build_scorer("patch-knn", folds=3), network, each, new[:1], config, prepared)
        judges = held_out(network, scorer, ImageSet(each, torch.zeros(7, dtype=torch.int64)))
        for fold, (own, judge, part) in enumerate(judges):
            assert torch.equal(part.images, each[drawn == fold])
            scores.append(map_images(own, new, judge.score))
    deviations = [
        float((before / after - 1).abs().max()) for before, after in zip(scores[:3], scores[3:], strict=True)
    ]
    assert deviations[1] < 0.02
    assert min(deviations[0], deviations[2]) > 0.05


def test_whitening_does_not_depend_on_how_channels_are_scaled() -> None:
    maps, rows = torch.randn(600, 5, 4, 4), torch.arange(600)
    scaled = maps * torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0])[:, None, None] + 2
    one, other = Whitening(5), Whitening(5)
    one.fit(maps, rows)
    other.fit(scaled, rows)
    white = one(maps).permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(one(maps).abs(), other(scaled).abs(), atol=1e-3)  # but for the directions' signs
    assert torch.allclose(white.cov(correction=0), torch.eye(5), atol=0.05)


def test_network_and_scorer_learn_from_the_images_and_varied_copies() -> None:
    images = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    config = RunConfig(autoencoder="feature-conv", normal="0", augment="mirror", image_size=SHAPE[1:])
    made = Experiment.build(config, Preprocessing(*SHAPE), ("normal",), ("normal",))
    _, fit, validation, _ = prepare(made, images, images)
    assert (len(fit), len(validation)) == (12, 3)
    assert not torch.equal(fit[3:6], fit[:3])
    scorer = fit_scorer(build_scorer("patch-knn"), made.network, images[:1], images, config)
    assert len(scorer.state()["memory"]) == 4 * 3 * 3  # places of four copies, each of four of the feature maps'


def test_what_is_hidden_is_hidden_in_all_maps_of_a_batch() -> None:
    network = ready(dropout=0.3)
    images = torch.randint(0, 256, (4, *SHAPE), dtype=torch.uint8)
    _, fit, _, augment = network.prepare(images, images)
    assert augment is not None
    batch = augment(fit)
    hidden = batch[:, -176:] == 0
    assert torch.equal(hidden, hidden[:1].expand_as(hidden))
    assert 0.2 < hidden.float().mean() < 0.4
    blind = torch.cat([batch[:, :-176], torch.zeros(4, 176, 5, 6)], dim=1)
    with torch.inference_mode():
        latents = network.eval()(blind).latent
        assert torch.equal(latents, latents[:1].expand_as(latents))  # nothing is seen of any
        assert not torch.equal(network(batch).latent, network(fit.float()).latent)


def test_the_picture_teaches_the_features_nothing() -> None:
    network = ready().train()
    outputs = network(torch.rand(2, *SHAPE))
    outputs.heads[PAINTED].sum().backward()
    assert all(each.grad is None for each in (*network.encoder.parameters(), *network.restorer.parameters()))
    assert all(each.grad is not None for each in network.decoder.parameters())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"noise": 0.1}, "sees none with noise=0.1"),
        ({"tile": "32"}, "sees none with tile="),
        ({"objective": "mse"}, "go together alone"),
        ({"latent": 7}, "name a multiple of 9"),
        ({"image_size": "8"}, "takes images from 16×16 pixels"),
    ],
)
def test_what_it_cannot_do_is_said(settings: dict[str, object], reason: str, photos: Path, home: RunStore) -> None:
    with pytest.raises(UsageError, match=reason):
        anomaly_ae.train(seeing(photos, **settings), home=home, tracking=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty woven cloths, and a test of four more and of four with a bright scratch."""
    root = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[:40, :48]
    for place, count in (("train/good", 24), ("test/good", 6), ("test/scratched", 6)):
        (root / place).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng([len(place), i])
            cloth = 120 + 40 * np.sin(x * 0.8 + rng.uniform(0, 6)) * np.sin(y * 0.8 + rng.uniform(0, 6))
            cloth = cloth[..., None] * [1, 0.8, 0.6] + rng.normal(0, 4, (40, 48, 3))
            if "scratched" in place:
                cloth[abs(y - x - rng.integers(-8, 8)) < 2] = 240
            Image.fromarray(cloth.clip(0, 255).astype(np.uint8)).save(root / place / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def learned(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A home with one training on the cloths, of 60 steps or so."""
    home = RunStore.find(str(tmp_path_factory.mktemp("learned") / "mlruns"))
    config = seeing(photos, steps=60, folds=2, guarantee="cross")
    result = anomaly_ae.train(config, home=home, tracking=False)
    assert home.find_run(result.run_id).config.batch_size == 8
    return home


def test_scratches_are_found(learned: RunStore) -> None:
    measured = anomaly_ae.evaluate(home=learned, compare_scorers=["patch-knn", "feature-error"])
    assert measured.auroc is not None
    assert measured.auroc > 0.9
    assert all(row.auroc > 0.9 for row in measured.beside or ())


def missing() -> None:
    raise AssertionError("the packaged weights were asked for")


def test_the_detector_needs_no_weights_but_its_own(
    learned: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "_packaged", missing)
    detector = Detector.load(learned.latest().path / "detector")
    pictures = torch.randint(0, 256, (5, *SHAPE), dtype=torch.uint8)
    detector.save(tmp_path / "again")
    assert torch.equal(Detector.load(tmp_path / "again").score(pictures), detector.score(pictures))
    assert detector.anomaly_map(pictures).shape == (5, 40, 48)


@pytest.mark.slow  # makes a graph of two networks
def test_the_exported_detector_needs_no_weights_but_its_own(
    learned: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "_packaged", missing)
    exported = export_onnx(Detector.load(learned.latest().path / "detector"), tmp_path / "a.onnx")
    assert max(exported.deviations.values()) < 1e-4


@pytest.mark.parametrize(
    ("folded", "rate", "guarantee", "calibrating"),
    [(30, 0.2, "cross", 21), (15, 0.2, "marginal", 6), (15, 0.06, "cross", 21)],
    ids=["few images", "many images", "many, and a rate that those set aside could not hold"],
)
def test_few_images_are_folded_and_of_more_some_are_set_aside(
    folded: int,
    rate: float,
    guarantee: str,
    calibrating: int,
    photos: Path,
    home: RunStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("anomaly_ae.workflows.division.MOST_FOLDED", folded)
    monkeypatch.setattr("anomaly_ae.workflows.division.FEW_SET_ASIDE", 6)
    experiment, data = resolve(seeing(photos, target_fpr=rate), home)
    assert experiment.config.guarantee == guarantee
    assert len(data.images["calibration"]) == calibrating


def test_varied_images_are_trained_on_for_as_many_steps(photos: Path, home: RunStore) -> None:
    config = seeing(photos, augment="mirror", steps=18)
    assert anomaly_ae.train(config, home=home, tracking=False).epochs == 2  # of 68 images in 8 or 9 batches


def test_a_training_goes_on_where_it_was(photos: Path, home: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    config = seeing(photos, epochs=2, folds=2, guarantee="cross")
    whole = anomaly_ae.train(config, home=home, tracking=False)
    from anomaly_ae.workflows import train as workflow

    class Strike(workflow.Progress):
        def on_epoch(self, training: object, epoch: object) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workflow, "Progress", Strike)
        with pytest.raises(anomaly_ae.AnomalyAEError):
            anomaly_ae.train(config, home=home, tracking=False)
    again = resume("latest", home=home)
    assert again.run_id != whole.run_id
    assert again.final_loss == whole.final_loss
    assert again.threshold == whole.threshold
