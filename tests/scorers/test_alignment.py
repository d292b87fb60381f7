import copy
import itertools
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.objectives.aligned import EDGE_ENERGY_FLOOR
from anomaly_ae.scorers import build_scorer
from anomaly_ae.scorers.alignment import (
    AlignedNeighbors,
    aligned_distance,
    errors_to_closest,
    full_size,
)
from anomaly_ae.scorers.edges import EdgeRows, usual_step
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


@pytest.mark.parametrize("reach", [1, 2])
def test_the_distance_is_its_definition_pixel_by_pixel(reach: int, generator: torch.Generator) -> None:
    step, shape = torch.tensor(20.0), (2, 6, 7)  # of channels, height and width
    maps = 1_200 * torch.rand(3, *shape, generator=generator).transpose(0, 1) - 600
    edges = EdgeRows.of(maps, step, reach)
    query, references = edges.take(torch.tensor([0])), edges.take(torch.tensor([[1, 2]]))
    whole = (maps / step).round().numpy().astype(int)

    def closest(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        beyond = np.pad(other, ((0, 0), (reach, reach), (reach, reach)))  # no edges are there
        best = np.full((6, 7), np.iinfo(int).max)
        for dy, dx in itertools.product(range(2 * reach + 1), repeat=2):
            best = np.minimum(best, np.abs(one - beyond[:, dy : dy + 6, dx : dx + 7]).max(axis=0))
        return best

    there, back = errors_to_closest(query, references)
    for k in range(2):
        a, b = whole[:, 0], whole[:, 1 + k]
        np.testing.assert_array_equal(edges.as_maps(there)[0, k].numpy(), closest(a, b))
        np.testing.assert_array_equal(edges.as_maps(back)[0, k].numpy(), closest(b, a))
        unit = 20 / 1_020
        size = unit**2 * np.sqrt((closest(a, b) ** 4.0).mean() + (closest(b, a) ** 4.0).mean())
        expected = size / (unit**2 * ((a**2).mean() + (b**2).mean()) + EDGE_ENERGY_FLOOR)
        assert aligned_distance(query, references)[0, k].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_many_images_are_compared_as_each_alone(channels: int, generator: torch.Generator) -> None:
    """They lie in one row, and none may reach into its neighbour."""
    maps = torch.randint(-63, 64, (2 * channels, 5, 4, 6), generator=generator).float()
    edges = EdgeRows.of(maps, torch.tensor(1.0), 2)
    near = torch.tensor([[2, 3, 4], [4, 2, 2]])
    together = errors_to_closest(edges.take(torch.arange(2)), edges.take(near))
    for n, k in itertools.product(range(2), range(3)):
        alone = errors_to_closest(edges.take(torch.tensor([n])), edges.take(near[n, k].view(1, 1)))
        for errors, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(edges.as_maps(errors)[n, k], edges.as_maps(expected)[0, 0])


def test_a_weak_defect_among_weak_edges_is_found(generator: torch.Generator) -> None:
    """By a fixed step, edges of a few levels of brightness would all be nothing."""
    faint = [(6 / 255) * torch.cat([stroke(row) for row in rows]) for rows in ((8, 9, 10, 11), (8, 10))]
    normal = faint[0] + torch.rand(4, 1, 28, 28, generator=generator) / 255
    scorer = fitted((normal * 255).round() / 255)
    good = scorer.score(*with_latents(faint[1]))
    bad = scorer.score(*with_latents(faint[1] + (3 / 255) * stroke(20)))
    assert bad.min() > 3 * good.max()


def test_one_glaring_fit_image_does_not_make_the_step_coarse(generator: torch.Generator) -> None:
    faint = torch.randint(0, 9, (40, 1, 28, 28), generator=generator, dtype=torch.uint8)
    glaring = faint.clone()
    glaring[0, :, 10:] = 255
    assert usual_step(glaring) == usual_step(faint)


def test_a_copy_of_the_scorer_works_its_edges_out_again() -> None:
    scorer = fitted(torch.cat([stroke(row) for row in (8, 9, 10)]))
    query = with_latents(stroke(12))
    expected = scorer.score(*query)
    bare = fitted(torch.cat([stroke(row) for row in (8, 9, 10)]))
    assert len(pickle.dumps(scorer)) == len(pickle.dumps(bare))
    torch.testing.assert_close(copy.deepcopy(scorer).score(*query), expected, rtol=0, atol=0)


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


def test_edges_that_two_batches_need_at_the_same_time_are_worked_out_once() -> None:
    scorer, near, times = fitted(torch.cat([stroke(row) for row in (4, 12, 20)])), torch.tensor([[0, 1]]), list[int]()

    def slowly(edges: torch.Tensor, step: torch.Tensor) -> EdgeRows:
        times.append(edges.shape[1])
        time.sleep(0.05)  # in which the other thread would begin, too
        return full_size(edges, step)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: scorer._nearby(near, slowly), range(2))
    assert times == [3]
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=0)
