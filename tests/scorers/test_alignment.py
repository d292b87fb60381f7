import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers import build_scorer
from anomaly_ae.scorers.alignment import EDGE_ENERGY_FLOOR, AlignedNeighbors, aligned_distance, edges
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
def test_edges_are_scipy_s_sobel(channels: int, generator: torch.Generator) -> None:
    images = torch.rand(2, 3, channels, 9, 12, generator=generator)
    maps = edges(images)
    assert maps.shape == (2 * channels, 9, 12, 2, 3)
    one = images[1, 2].double().numpy()
    for channel, axis in itertools.product(range(channels), (0, 1)):
        expected = sobel(one[channel], axis=axis, mode="constant") / 4
        np.testing.assert_allclose(maps[axis * channels + channel, :, :, 1, 2].numpy(), expected, atol=1e-6)


def test_bytes_and_floats_have_the_same_edges(generator: torch.Generator) -> None:
    images = torch.randint(0, 256, (2, 1, 1, 8, 8), generator=generator, dtype=torch.uint8)
    torch.testing.assert_close(edges(images), edges(images.float() / 255))


@pytest.mark.parametrize("reach", [1, 2])
def test_the_distance_is_its_definition_pixel_by_pixel(reach: int, generator: torch.Generator) -> None:
    ours, theirs = torch.rand(2, 6, 7, 1, 1, generator=generator), torch.rand(2, 6, 7, 1, 2, generator=generator)

    def closest(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        best = np.full((6, 7), np.inf)
        for y, x, dy, dx in itertools.product(range(6), range(7), *[range(-reach, reach + 1)] * 2):
            if 0 <= y + dy < 6 and 0 <= x + dx < 7:
                best[y, x] = min(best[y, x], ((one[:, y, x] - other[:, y + dy, x + dx]) ** 2).sum())
        return best

    for k in range(2):
        a, b = ours[..., 0, 0].double().numpy(), theirs[..., 0, k].double().numpy()
        size = np.sqrt((closest(a, b) ** 2).mean() + (closest(b, a) ** 2).mean())
        expected = size / ((a**2).mean() + (b**2).mean() + EDGE_ENERGY_FLOOR)
        assert aligned_distance(ours, theirs, reach)[0, k].item() == pytest.approx(expected, rel=1e-5)


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
