import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers import build_scorer
from anomaly_ae.scorers.alignment import EDGE_ENERGY_FLOOR, AlignedNeighbors, Edges, compare, reaches, steps
from tests.scorers.conftest import batches

Batch = tuple[torch.Tensor, Outputs]


def stroke(row: int, size: int = 28, length: int = 16) -> torch.Tensor:
    """A bright horizontal bar, uint8 levels in [0, 1], (1, 1, size, size)."""
    image = torch.zeros(1, 1, size, size)
    image[..., row : row + 3, 6 : 6 + length] = 1
    return image


def with_latents(images: torch.Tensor, seed: int = 0) -> Batch:
    latents = torch.randn(len(images), 3, generator=torch.Generator().manual_seed(seed))
    return images, Outputs(images, latents)


def fitted(images: torch.Tensor) -> AlignedNeighbors:
    scorer, batch = AlignedNeighbors(), with_latents(images)
    scorer.fit(batches(batch), batches(batch))
    return scorer


@pytest.mark.parametrize("channels", [1, 3])
def test_edges_are_scipy_s_sobel_in_whole_steps(channels: int, generator: torch.Generator) -> None:
    images = torch.randint(0, 256, (2, channels, 9, 12), generator=generator, dtype=torch.uint8)
    full, half = Edges.of(images)
    reach, less = reaches(images)
    assert full.shape == (2, 2 * channels, 9 + reach, 12 + reach)
    assert half.shape == (2, 2 * channels, 4 + less, 6 + less)
    assert not full[:, :, 9:].any()
    assert not full[..., 12:].any()
    for channel, axis in itertools.product(range(channels), (0, 1)):
        exact = scipy.ndimage.sobel(images[1, channel].double().numpy(), axis=axis, mode="constant")
        place = 1, axis * channels + channel
        np.testing.assert_allclose(full[place][:9, :12], exact * steps(channels) / 1020, atol=0.5001)
        mean = exact[:8].reshape(4, 2, 6, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(half[place][:4, :6], mean * steps(channels) / 1020, atol=0.5001)


@pytest.mark.parametrize("channels", range(1, 12))
def test_squared_distances_fit_into_sixteen_bits_and_no_more_steps_would(channels: int) -> None:
    def largest(count: int) -> int:
        return 2 * channels * (2 * count) ** 2

    assert largest(steps(channels)) <= torch.iinfo(torch.int16).max < largest(steps(channels) + 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reach", [1, 2, 3])
def test_the_distance_is_its_definition_pixel_by_pixel(channels: int, reach: int, generator: torch.Generator) -> None:
    most, size = steps(channels), (6, 7)
    maps = torch.randint(-most, most + 1, (6, 2 * channels, *size), generator=generator, dtype=torch.int8)
    maps[0, :, 2:4, 2:5] = 0
    padded = functional.pad(maps, (0, reach, 0, reach))
    query, reference = padded[:2], padded[2:].unflatten(0, (2, 2))  # type: ignore[no-untyped-call]

    def closest(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        best = np.full(size, np.inf)
        for y, x, dy, dx in itertools.product(*map(range, size), *[range(-reach, reach + 1)] * 2):
            if dy**2 + dx**2 <= reach**2:
                is_inside = 0 <= y + dy < size[0] and 0 <= x + dx < size[1]
                there = other[:, y + dy, x + dx] if is_inside else 0
                best[y, x] = min(best[y, x], ((one[:, y, x] - there) ** 2).sum())
        return best

    compared = compare(query, reference, reach)
    for n, k in itertools.product(range(2), range(2)):
        a, b = (each.double().numpy() for each in (maps[n], maps[2 + 2 * n + k]))
        there, back = closest(a, b), closest(b, a)
        assert compared.forward[n, k].tolist() == there.tolist()
        assert compared.backward[n, k].tolist() == back.tolist()
        rms = np.sqrt((there**2).mean() + (back**2).mean()) / most**2
        expected = rms / (((a**2).mean() + (b**2).mean()) / most**2 + EDGE_ENERGY_FLOOR)
        assert compared.distances[n, k].item() == pytest.approx(expected, rel=1e-5)


def test_a_graph_compares_to_the_same_numbers(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(40, 1, 28, 28, generator=generator)
    scorer, queries = fitted(images[:30]), with_latents(images[30:])
    scores, heat = scorer.score_and_map(*queries)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    in_graph, map_in_graph = scorer.score_and_map(*queries)
    assert torch.equal(in_graph, scores)
    assert torch.equal(map_in_graph, heat)


def test_scores_are_the_same_for_one_image_and_for_many(generator: torch.Generator) -> None:
    images = torch.rand(70, 1, 28, 28, generator=generator)
    scorer, queries = fitted(images[:50]), with_latents(images[50:])
    together = scorer.score(*queries)
    alone = [
        scorer.score(images[50 + i : 51 + i], queries[1].map_tensors(lambda t, i=i: t[i : i + 1])) for i in range(20)
    ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-6, atol=0)


def test_a_stroke_moved_a_little_is_near_and_a_stroke_too_many_is_far() -> None:
    normal = torch.cat([stroke(row) for row in (8, 9, 10)])
    scorer = fitted(normal)
    moved = scorer.score(*with_latents(stroke(11)))
    more = scorer.score(*with_latents((stroke(9) + stroke(20)).clamp(0, 1)))
    missing = scorer.score(*with_latents(stroke(9, length=5)))
    assert moved.item() < 0.1 * min(more.item(), missing.item())


def test_the_heat_map_points_at_what_is_too_many() -> None:
    scorer = fitted(torch.cat([stroke(row) for row in (8, 9, 10)]))
    heat = scorer.anomaly_map(*with_latents((stroke(9) + stroke(20)).clamp(0, 1)))[0]
    assert heat[18:25].sum() > 20 * heat[:16].sum()


def test_only_so_many_images_are_remembered_and_large_ones_are_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_ae.scorers.scorer.MOST_MEMORIES", 10)
    scorer = fitted(torch.rand(25, 1, 64, 96))
    assert scorer.state()["images"].shape == (10, 1, 32, 48)
    assert scorer.state()["images"].dtype == torch.uint8
    assert len(scorer.state()["features.memory"]) == 10
    assert scorer.anomaly_map(*with_latents(torch.rand(3, 1, 64, 96))).shape == (3, 64, 96)


def test_the_candidates_come_from_the_encoder_s_features(generator: torch.Generator) -> None:
    """Of more images than are compared, those near by features are; the copy among them is found."""
    images = torch.rand(200, 1, 12, 12, generator=generator)
    features = torch.randn(200, 4, 3, 3, generator=generator)
    memory = (images, Outputs(images, torch.zeros(200, 2), (features,)))
    scorer = build_scorer("aligned-knn")
    scorer.fit(batches(memory), batches(memory))
    query = (images[:5], Outputs(images[:5], torch.zeros(5, 2), (features[:5],)))
    far = (images[:5], Outputs(images[:5], torch.zeros(5, 2), (-features[:5],)))
    assert bool((scorer.score(*query) < scorer.score(*far)).all())
