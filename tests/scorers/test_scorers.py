import warnings
from operator import itemgetter

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from sklearn.neighbors import NearestNeighbors

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.feature_conv import RESTORED, SEEN
from anomaly_ae.autoencoders.restoring import RESTORATIONS
from anomaly_ae.detector.serialization import DTYPES
from anomaly_ae.errors import UnknownName, UsageError
from anomaly_ae.scorers import SCORERS, ImageBatches, MapScorer, build_scorer, neighbors, patches
from anomaly_ae.scorers.combination import peaks
from anomaly_ae.scorers.fold_scorer import FoldScorer, map_part, score_and_map
from anomaly_ae.scorers.surface import FeatureError, normalise_locally
from anomaly_ae.storage.schema import TensorSpec, check_tensors
from tests.scorers.conftest import batches

Batch = tuple[torch.Tensor, Outputs]


def batch(count: int, seed: int, size: int = 28, channels: int = 1, latent: int = 3) -> Batch:
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(count, channels, size, size, generator=g)
    rebuilt = (images + 0.3 * torch.randn(images.shape, generator=g)).clamp(0, 1)
    mean, log_variance = torch.randn(2, count, latent, generator=g)
    return images, Outputs(rebuilt, mean, (), {"mean": mean, "log_variance": log_variance})


def with_maps(made: Batch) -> Batch:
    """The same from a network with feature maps, one given back, a head that says where defects are, and one that
    gives four copies back.
    """
    images, outputs = made
    g = torch.Generator().manual_seed(len(images))
    sizes = [-(-images.shape[-1] // scale) for scale in (2, 4, 8)]
    features = tuple(torch.randn(len(images), 4, size, size, generator=g) for size in sizes)
    logits = torch.randn(len(images), 1, *images.shape[2:], generator=g)
    restored = features[-1] + torch.randn(features[-1].shape, generator=g)
    copies = (images.repeat(1, 4, 1, 1) + 0.1 * torch.randn(images.repeat(1, 4, 1, 1).shape, generator=g)).clamp(0, 1)
    heads = {"defect": logits, SEEN: features[-1], RESTORED: restored, RESTORATIONS: copies}
    return images, outputs._replace(features=features, heads={**outputs.heads, **heads})


def test_mse_and_mae_by_hand() -> None:
    images = torch.tensor([[[[0.0, 1.0]], [[0.5, 0.5]]]])  # one image, two channels, 1×2
    outputs = Outputs(torch.tensor([[[[0.5, 1.0]], [[0.5, 0.0]]]]), torch.zeros(1, 1))
    assert build_scorer("mse").score(images, outputs).tolist() == pytest.approx([(0.25 + 0.25) / 4])
    assert build_scorer("mae").score(images, outputs).tolist() == pytest.approx([(0.5 + 0.5) / 4])


def test_ssim_is_one_minus_the_mean_map(generator: torch.Generator) -> None:
    images, outputs = batch(1, seed=1, size=64)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    theirs = structural_similarity(images[0, 0].numpy(), outputs.reconstruction[0, 0].numpy(), **options)
    # scikit-image leaves the border out of its mean, we do not
    assert build_scorer("ssim").score(images, outputs).item() == pytest.approx(1 - theirs, abs=0.02)


def test_relative_agrees_with_scipy_s_filter() -> None:
    images, outputs = batch(2, seed=2)
    scores = build_scorer("relative").score(images, outputs)
    for image, rebuilt, score in zip(images[:, 0], outputs.reconstruction[:, 0], scores, strict=True):
        error = gaussian_filter((image - rebuilt).double().numpy(), sigma=1, mode="mirror", truncate=4)
        expected = (error**2).mean() / (float((image.double() ** 2).mean()) + 5 / 784)
        assert score.item() == pytest.approx(expected, rel=1e-4)


def test_relative_does_not_grow_with_ink() -> None:
    images, outputs = batch(1, seed=3)
    half = Outputs(outputs.reconstruction / 2, outputs.latent)
    scorer = build_scorer("relative")
    assert scorer.score(images / 2, half).item() == pytest.approx(scorer.score(images, outputs).item(), rel=0.06)


def test_large_latents_are_projected_and_their_distances_kept() -> None:
    memory, query = batch(200, seed=4, latent=3_000), batch(50, seed=5, latent=3_000)
    scorer = build_scorer("latent-knn")
    scorer.fit(batches(memory), batches(memory))
    assert scorer.state()["memory"].shape == (200, neighbors.MOST_DIMENSIONS)
    expected, _ = NearestNeighbors(n_neighbors=1).fit(memory[1].latent.numpy()).kneighbors(query[1].latent.numpy())
    np.testing.assert_allclose(scorer.score(*query).numpy(), expected[:, 0], rtol=0.2)
    other = build_scorer("latent-knn")
    other.load_state(scorer.state())
    learned = {key: TensorSpec(tuple(value.shape), DTYPES[value.dtype]) for key, value in scorer.state().items()}
    check_tensors(learned, scorer.specs(*query))
    assert torch.equal(other.score(*query), scorer.score(*query))


def test_latent_knn_agrees_with_scikit_learn() -> None:
    memory, query = batch(500, seed=4), batch(50, seed=5)
    scorer = build_scorer("latent-knn")
    scorer.fit(batches(memory), batches(memory))
    expected, _ = NearestNeighbors(n_neighbors=1).fit(memory[1].latent.numpy()).kneighbors(query[1].latent.numpy())
    np.testing.assert_allclose(scorer.score(*query).numpy(), expected[:, 0], rtol=1e-5)
    least = neighbors.SAME * memory[1].latent.norm(dim=1)
    torch.testing.assert_close(scorer.score(*memory), least)  # a remembered latent is at the least distance


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_ae.scorers.scorer.MOST_MEMORIES", 100)
    scorer = build_scorer("latent-knn")
    memory = batch(1000, seed=6)
    scorer.fit(batches(memory), batches(memory))
    assert scorer.state()["memory"].shape == (100, 3)
    assert len(scorer.state()["memory"].unique(dim=0)) == 100


def test_a_single_image_can_be_remembered_by_principal_axes() -> None:
    nearest = neighbors.PrincipalNeighbors()
    with warnings.catch_warnings(action="error"):
        nearest.learn(torch.rand(1, 40))
    assert nearest.state().keys() == {"centre", "projection", "memory"}
    assert all(bool(value.isfinite().all()) for value in nearest.state().values())


def test_a_combination_is_the_mean_of_standardised_logs() -> None:
    fit, validation, query = batch(200, seed=7), batch(60, seed=8), batch(20, seed=9)
    scorer = build_scorer("mse+latent-knn")
    scorer.fit(batches(fit), batches(validation))
    neighbour = build_scorer("latent-knn")
    neighbour.fit(batches(fit), batches(validation))
    expected = np.zeros(20)
    for part in (build_scorer("mse"), neighbour):
        normal, new = np.log(part.score(*validation).numpy()), np.log(part.score(*query).numpy())
        expected += (new - normal.mean()) / normal.std() / 2
    np.testing.assert_allclose(scorer.score(*query).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_combination_stays_finite_when_a_part_is_constant_or_zero() -> None:
    images, outputs = batch(30, seed=10)
    perfect = (images, outputs._replace(reconstruction=images))
    scorer = build_scorer("mse+latent-knn")
    scorer.fit(batches(perfect), batches(perfect))
    assert bool(torch.isfinite(scorer.score(*perfect)).all())
    assert bool(torch.isfinite(scorer.score(images, outputs)).all())


@pytest.mark.parametrize("name", [*SCORERS, "relative+latent-knn", "ssim+mae+latent-knn"])
def test_what_was_learned_can_be_carried_over(name: str) -> None:
    fit, query = with_maps(batch(40, seed=11)), with_maps(batch(10, seed=12))
    scorer, other = build_scorer(name), build_scorer(name)
    scorer.fit(batches(fit), batches(fit))
    other.load_state(scorer.state())
    learned = {key: TensorSpec(tuple(value.shape), DTYPES[value.dtype]) for key, value in scorer.state().items()}
    check_tensors(learned, scorer.specs(*query))
    assert torch.equal(other.score(*query), scorer.score(*query))


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (33, 3)])
def test_scores_and_maps_have_their_shapes_at_any_size(name: str, size: int, channels: int) -> None:
    images, outputs = with_maps(batch(6, seed=13, size=size, channels=channels))
    scorer = build_scorer(name)
    scorer.fit(batches((images, outputs)), batches((images, outputs)))
    assert scorer.score(images, outputs).shape == (6,)
    if isinstance(scorer, MapScorer):
        assert scorer.anomaly_map(images, outputs).shape == (6, size, size)


MAPPED = [name for name, entry in SCORERS.items() if issubclass(entry.build, MapScorer)]
SUMS = ["feature-error+2*patch-knn", "relative+latent-knn", "latent-knn+aligned-knn"]


@pytest.mark.parametrize("name", [*MAPPED, *SUMS])
@pytest.mark.parametrize("folds", [None, 2])
def test_score_and_map_in_one_are_bit_for_bit_those_alone(name: str, folds: int | None) -> None:
    images, outputs = with_maps(batch(20, seed=13, size=33))
    scorer = build_scorer(name, folds=folds)
    for part in scorer.parts if isinstance(scorer, FoldScorer) else [scorer]:
        part.fit(batches((images[:12], outputs.first(12))), batches((images[:5], outputs.first(5))))
    seen = outputs._replace(members=(outputs, outputs)) if folds else outputs
    mapping = map_part(scorer)
    assert mapping is not None
    scores, maps = score_and_map(scorer, images, seen)
    assert torch.equal(scores, scorer.score(images, seen))
    assert torch.equal(maps, mapping.anomaly_map(images, seen))


@pytest.mark.parametrize("name", [*SCORERS, *SUMS])
@pytest.mark.parametrize("folds", [None, 2])
def test_a_scorer_reads_reconstructions_if_and_only_if_it_says_so(name: str, folds: int | None) -> None:
    images, outputs = with_maps(batch(12, seed=13, size=33))
    scorer = build_scorer(name, folds=folds)
    for part in scorer.parts if isinstance(scorer, FoldScorer) else [scorer]:
        part.fit(batches((images, outputs)), batches((images, outputs)))
    reconstructions = outputs.reconstruction, 1 - outputs.reconstruction, images.to("meta")
    each = [outputs._replace(reconstruction=one) for one in reconstructions]
    made, other, unmade = (one._replace(members=(one, one)) if folds else one for one in each)
    scores = scorer.score(images, made)
    assert scorer.reads_reconstruction == (not torch.equal(scorer.score(images, other), scores))
    if not scorer.reads_reconstruction:
        assert torch.equal(scorer.score(images, unmade), scores)
        if mapping := map_part(scorer):
            assert torch.equal(mapping.anomaly_map(images, unmade), mapping.anomaly_map(images, made))


def test_a_score_is_the_mean_of_the_highest_share_of_the_map() -> None:
    images, outputs = batch(3, seed=20, size=10)
    heat = build_scorer("mse").anomaly_map(images, outputs).flatten(1).sort(dim=1, descending=True).values
    for share, pixels in ((0.2, 20), (0.001, 5), (1.0, 100)):
        scores = build_scorer("mse", top_fraction=share).score(images, outputs)
        assert scores.tolist() == pytest.approx(heat[:, :pixels].mean(dim=1).tolist())


def test_a_defect_head_scores_by_its_logits_and_a_network_without_one_is_refused() -> None:
    images, outputs = with_maps(batch(2, seed=21, size=32))
    logits = torch.full((2, 1, 32, 32), -8.0)
    logits[1, 0, 10:14, 20:24] = 8.0
    scorer = build_scorer("defect")
    heat = scorer.anomaly_map(images, outputs._replace(heads={"defect": logits}))
    assert divmod(int(heat[1].argmax()), 32)[0] in range(10, 14)
    assert float(heat[1].max()) == pytest.approx(8, abs=0.5)  # -log of the probability of being sound
    assert float(heat[0].max()) < 1e-3
    with pytest.raises(UsageError, match='autoencoder="repair"'):
        scorer.check(outputs._replace(heads={}))


def learned_maps(made: Batch) -> Batch:
    """The same from a network that has learned its feature maps, and has no further heads."""
    images, outputs = with_maps(made)
    return images, outputs._replace(heads={})


def test_patches_of_the_training_are_near_and_others_far() -> None:
    images, outputs = learned_maps(batch(5, seed=22, size=32))
    scorer = build_scorer("patch-knn")
    scorer.fit(batches((images, outputs)), batches((images, outputs)))
    assert len(scorer.state()["memory"]) == 5 * 8 * 8
    assert float(scorer.anomaly_map(images, outputs).max()) < 1e-2
    moved = [each.clone() for each in outputs.features]
    moved[1][0, :, 2, 6] += 20
    heat = scorer.anomaly_map(images, outputs._replace(features=tuple(moved)))
    row, column = divmod(int(heat[0].argmax()), 32)
    assert abs(row - 10) <= 7  # means over 3×3 places of 4×4 pixels
    assert abs(column - 26) <= 7
    assert float(heat[1:].max()) < 1e-2


def test_the_memory_of_patches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "MOST_PATCHES", 50)
    scorer = build_scorer("patch-knn")
    made = learned_maps(batch(20, seed=23, size=32))
    scorer.fit(batches(made, made), batches(made, made))
    assert 50 <= len(scorer.state()["memory"]) <= 50 + 40


def test_the_patches_least_like_each_other_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "MEMORIES", 3)
    images, outputs = learned_maps(batch(2, seed=24, size=32))
    plain = [torch.rand_like(each) * 0.01 for each in outputs.features]
    plain[1][0, :, :2, :2] += 5
    plain[1][1, :2, -2:, -2:] -= 5
    odd = (images, outputs._replace(features=tuple(plain)))
    scorer = build_scorer("patch-knn")
    scorer.fit(batches(odd, odd), batches(odd, odd))
    memory = scorer.state()["memory"]
    assert len(memory) == 3
    assert torch.pdist(memory).min() > 1  # one of each kind


def test_patches_of_a_backbone_are_four_places_as_one() -> None:
    images, outputs = with_maps(batch(6, seed=25, size=32))
    seen = torch.randn(6, 5, 7, 9, generator=torch.Generator().manual_seed(0))
    fitted = outputs._replace(features=(seen,))
    scorer = build_scorer("patch-knn")
    scorer.fit(batches((images[:4], fitted.first(4))), batches((images[:4], fitted.first(4))))
    new = seen[4:].numpy()
    blocks = np.array(
        [[[new[:, :, y : y + 2, x : x + 2].mean(axis=(2, 3)) for x in range(0, 9, 2)] for y in (0, 2, 4, 6)]]
    )
    rows = blocks[0].transpose(2, 0, 1, 3).reshape(2, 4 * 5, 5)  # image, place, channel
    state = {name: value.numpy() for name, value in scorer.state().items()}
    squares = ((rows - state["centre"]) / state["spread"])[:, :, None] - state["memory"]
    nearest = (squares**2).sum(axis=-1).min(axis=-1)  # image, place
    expected = np.sort(nearest)[:, -5:].mean(axis=-1)
    scores = scorer.score(images[4:], outputs._replace(features=(seen[4:],)))
    assert scores.tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_one_place_alone_may_be_remembered() -> None:
    images, outputs = with_maps(batch(3, seed=28, size=16))
    one = outputs._replace(features=(torch.randn(3, 5, 2, 2),))
    scorer = build_scorer("patch-knn")
    scorer.fit(batches((images[:1], one.first(1))), batches((images[:1], one.first(1))))
    assert len(scorer.state()["memory"]) == 1
    assert bool(scorer.score(images, one).isfinite().all())


def test_scorers_that_go_by_places_are_added_place_by_place() -> None:
    images, outputs = with_maps(batch(6, seed=26, size=48))
    seen = torch.randn(6, 4, 6, 7, generator=torch.Generator().manual_seed(0))
    heads = {SEEN: seen, RESTORED: seen * 0.8}
    outputs = outputs._replace(features=(seen,), heads=heads)
    learned = batches((images[:3], outputs.map_tensors(lambda tensor: tensor[:3])))
    parts = [build_scorer(name) for name in ("feature-error", "patch-knn")]
    both = build_scorer("feature-error + 2*patch-knn")
    validation = batches((images[3:5], outputs.map_tensors(lambda tensor: tensor[3:5])))
    for scorer in (*parts, both):
        scorer.fit(learned, validation)
    usual = [float(part.score(images[3:5], outputs.map_tensors(lambda tensor: tensor[3:5])).mean()) for part in parts]
    error, distance = (part.places(outputs) for part in parts)
    enlarged = torch.nn.functional.interpolate(distance[:, None], (6, 7), mode="bilinear")[:, 0]
    expected = peaks(error / usual[0] + 2 * enlarged / usual[1])
    assert torch.allclose(both.places(outputs), expected, rtol=1e-4)
    assert both.score(images, outputs).tolist() == pytest.approx(
        expected.flatten(1).topk(5, dim=1).values.mean(dim=1).tolist(), rel=1e-4
    )
    assert both.anomaly_map(images, outputs).shape == (6, 48, 48)
    again = build_scorer("feature-error+2*patch-knn")
    again.load_state(both.state())
    assert torch.equal(again.score(images, outputs), both.score(images, outputs))
    assert both.state().keys() == both.specs(images, outputs).keys()


def test_the_first_part_of_a_sum_by_places_says_how_many_places_decide() -> None:
    fractions = [build_scorer(name) for name in ("patch-knn+feature-error", "feature-error+2*patch-knn+0.5*defect")]
    assert [each.top_fraction for each in fractions if isinstance(each, MapScorer)] == [0.01, 0.003]


def test_a_place_is_set_off_against_what_lies_about_it() -> None:
    maps = torch.rand(2, 20, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    near, corner = maps[1, 4:11, 7:14].mean(), maps[1, :4, -4:].mean()  # three places each way, where there are any
    peaked = peaks(maps)
    assert float(peaked[1, 7, 10]) == pytest.approx(float(maps[1, 7, 10] / near.sqrt()), rel=1e-5)
    assert float(peaked[1, 0, 15]) == pytest.approx(float(maps[1, 0, 15] / corner.sqrt()), rel=1e-5)
    torch.testing.assert_close(peaks(4 * maps), 2 * peaked)  # what is unusual all over scores higher
    assert bool((peaks(torch.zeros(1, 2, 1)) == 0).all())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_errors_of_features_are_weighed_by_what_is_usual_of_each(layout: torch.memory_format) -> None:
    images, outputs = with_maps(batch(3, seed=28, size=48))
    scales = torch.logspace(-2, 2, 40)[:, None, None]
    drawn = scales * torch.randn(2, 3, 40, 6, 7, generator=torch.Generator().manual_seed(0))
    seen, restored = (each.contiguous(memory_format=layout) for each in drawn)
    outputs = outputs._replace(heads={SEEN: seen, RESTORED: restored})
    scorer = FeatureError()
    scorer.fit(batches((images, outputs)), batches((images, outputs)))
    errors = (drawn[0].double() - drawn[1].double()).square()
    expected = (errors / errors.mean(dim=(0, 2, 3), keepdim=True)).mean(dim=1)
    torch.testing.assert_close(scorer.places(outputs).double(), expected, rtol=2e-6, atol=0)
    assert torch.equal(torch.stack([seen, restored]), drawn)


def test_parts_of_a_combination_are_weighted() -> None:
    images, outputs = with_maps(batch(9, seed=27))
    made = batches((images, outputs))
    logs = []
    for name in ("mse", "ssim"):
        values = build_scorer(name).score(images, outputs).log()
        logs.append((values - values.mean()) / values.std(correction=0))
    both = build_scorer("mse+3*ssim")
    both.fit(made, made)
    assert torch.allclose(both.score(images, outputs), (logs[0] + 3 * logs[1]) / 4, atol=1e-4)
    for wrong in ("mse+0*ssim", "x*mse", "-1*mse+ssim"):
        with pytest.raises(UsageError, match="the weight of scorer"):
            build_scorer(wrong)


@pytest.mark.parametrize("name", ["mse", "mae", "ssim", "relative", "contrast", "gradient"])
def test_a_worse_reconstruction_scores_higher(name: str) -> None:
    images, outputs = batch(5, seed=14)
    worse = outputs._replace(reconstruction=1 - images)
    scorer = build_scorer(name)
    assert bool((scorer.score(images, worse) > scorer.score(images, outputs)).all())


def test_large_images_are_normalised_about_each_pixel_as_small_ones_are() -> None:
    small = torch.nn.functional.interpolate(torch.rand(1, 1, 32, 40), (256, 320), mode="bicubic").clamp(0, 1)
    large = torch.nn.functional.interpolate(small, (512, 640), mode="bilinear")
    once = torch.nn.functional.interpolate(normalise_locally(small), (512, 640), mode="bilinear")
    assert float((normalise_locally(large) - once).abs().mean()) < 0.03


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'latent-knn'"):
        build_scorer("relative+latent-nn")
    with pytest.raises(UsageError, match="part that is empty"):
        build_scorer("mse+")


@pytest.mark.parametrize("name", [name for name in SCORERS if name not in ("defect", "elbo")])
def test_the_fit_set_is_gone_through_once_and_in_what_parts_changes_nothing(name: str) -> None:
    images, outputs = with_maps(batch(60, seed=3, size=16))
    outputs = outputs._replace(features=(images.repeat(1, 2, 1, 1),))
    passes = 0

    def start() -> list[tuple[torch.Tensor, Outputs]]:
        nonlocal passes
        passes += 1
        parts = [slice(first, first + 7) for first in range(0, 60, 7)]
        return [(images[part], outputs.map_tensors(itemgetter(part))) for part in parts]

    one, other = build_scorer(name), build_scorer(name)
    whole = batches((images, outputs))
    one.fit(ImageBatches(60, start, whole.decode), whole)
    assert passes <= 1
    other.fit(batches((images, outputs)), batches((images, outputs)))
    if name != "patch-knn":  # of which each batch gives its share of the patches
        torch.testing.assert_close(one.score(images, outputs), other.score(images, outputs))
