import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from anomaly_ae.objectives.aligned import sobel
from anomaly_ae.scorers.edges import LEVEL_PARTS, EdgeRows, _weights, brightness, half
from anomaly_ae.storage.pixel_values import as_float


@pytest.mark.parametrize("channels", [1, 3])
def test_edges_are_scipy_s_sobel(channels: int, generator: torch.Generator) -> None:
    images = torch.randint(0, 256, (2, channels, 9, 12), generator=generator).float()
    maps = sobel(images)
    assert maps.shape == (2 * channels, 2, 9, 12)
    for channel, axis in itertools.product(range(channels), (0, 1)):
        expected = ndimage.sobel(images[1, channel].double().numpy(), axis=axis, mode="constant")
        np.testing.assert_array_equal(maps[axis * channels + channel, 1].numpy(), expected)


def test_half_the_size_has_the_means_of_neighbours() -> None:
    maps = torch.arange(35.0).view(5, 7)
    torch.testing.assert_close(half(maps), maps[:4, :6].view(2, 2, 3, 2).mean(dim=(1, 3)))


@pytest.mark.parametrize("size", [(28, 28), (32, 40), (33, 47), (64, 96), (200, 131)])
def test_what_is_compared_is_as_with_float64(size: tuple[int, int], generator: torch.Generator) -> None:
    """Else an edge between two steps would be one on one machine, and the other on another."""
    levels = torch.randint(0, 256, (2, 3, *size), generator=generator, dtype=torch.uint8)
    shrunk = brightness(as_float(levels), 32)
    assert min(shrunk.shape[-2:]) == min(32, *size)
    expected = levels.double()
    for axis in (-2, -1) if shrunk.shape[-2:] != size else ():
        weights = _weights(levels.shape[axis], shrunk.shape[axis]).double()
        expected = torch.tensordot(expected, weights, dims=([axis], [1])).movedim(-1, axis)
        expected = (expected * LEVEL_PARTS).round() / LEVEL_PARTS
    assert torch.equal(shrunk.double(), expected)


def test_shrunk_images_have_the_means_of_what_they_cover(generator: torch.Generator) -> None:
    images = as_float(torch.randint(0, 256, (1, 1, 96, 128), generator=generator, dtype=torch.uint8))
    means = 255 * torch.nn.functional.avg_pool2d(images, 3)[..., : 128 // 3]
    shrunk = brightness(images, 32)
    assert shrunk.shape == (1, 1, 32, 43)
    torch.testing.assert_close(shrunk[..., :1], means[..., :1], rtol=0, atol=2)
    torch.testing.assert_close(shrunk.mean(), 255 * images.mean(), rtol=0, atol=0.1)
    flat = brightness(torch.full((1, 1, 100, 77), 0.4), 32)
    torch.testing.assert_close(flat, torch.full_like(flat, 102), rtol=0, atol=0.1)


def test_edges_beyond_the_strongest_are_cut_off_and_rows_end_in_nothing() -> None:
    maps = torch.full((2, 1, 3, 4), 700.0)
    edges = EdgeRows.of(maps, torch.tensor(10.0), reach=2)
    lines = edges.values.view(2, 1, 5, 6)
    assert bool((lines[..., :3, :4] == 63).all())
    assert int((lines != 0).sum()) == 2 * 3 * 4
    assert edges.energy.item() == pytest.approx((63 * 10 / 1_020) ** 2)
