import numpy as np
import pytest
import torch

from anomaly_ae.datasets.feature_rows import FARTHEST, RowLayout, Scale
from anomaly_ae.errors import DataError


@pytest.mark.parametrize(
    ("given", "shape", "channels_last"),
    [
        ((64,), (1, 8, 8), False),
        ((30,), (1, 1, 30), False),
        ((1,), (1, 1, 1), False),
        ((5, 7), (1, 5, 7), False),
        ((3, 32, 20), (3, 32, 20), False),
        ((32, 20, 3), (3, 32, 20), True),
        ((28, 28, 1), (1, 28, 28), False),  # one channel lies the same either way
        ((3, 20, 3), (3, 20, 3), False),  # first, as in PyTorch, where it could be either
        ((7, 32, 32), (7, 32, 32), False),
    ],
)
def test_layouts(given: tuple[int, ...], shape: tuple[int, int, int], channels_last: bool) -> None:
    assert RowLayout.of(given) == RowLayout(shape, channels_last)


@pytest.mark.parametrize("given", [(1, 2, 3, 4), (0, 8), (8.0, 8.0), "8x8", ()])
def test_what_is_no_shape_is_refused(given: object) -> None:
    with pytest.raises(DataError, match="the shape of an image is"):
        RowLayout.of(given)


def test_rows_become_images_in_their_order() -> None:
    images = np.arange(2 * 6 * 5 * 3).reshape(2, 6, 5, 3)  # H×W×C
    assert np.array_equal(RowLayout.of((6, 5, 3)).images(images.reshape(2, -1)), images.transpose(0, 3, 1, 2))
    assert np.array_equal(RowLayout.of((3, 6, 5)).images(images.reshape(2, -1)), images.reshape(2, 3, 6, 5))


@pytest.mark.parametrize(("shape", "picture"), [((1, 8, 8), True), ((1, 7, 90), False), ((1, 1, 100), False)])
def test_pictures_have_eight_pixels_a_side(shape: tuple[int, int, int], picture: bool) -> None:
    assert RowLayout(shape).is_picture == picture


def test_features_are_scaled_each_by_itself_and_pixels_all_alike() -> None:
    rows = np.array([[0.0, 10, 5], [4, 20, 5]])
    new = np.array([[2.0, 30, 6], [-4, 10, 5]])
    assert Scale.of(rows, picture=False).apply(new).tolist() == [[0.5, 2, 1], [-1, 0, 0]]
    np.testing.assert_allclose(Scale.of(rows, picture=True).apply(new), new / 20)


def test_pictures_in_0_to_1_and_bytes_are_taken_as_they_are() -> None:
    floats, pixels = np.array([[0.25, 0.5]]), np.array([[3, 200]], np.uint8)
    assert Scale.of(floats, picture=True).apply(floats).tolist() == floats.tolist()
    for picture in (True, False):
        kept = Scale.of(pixels, picture).apply(pixels)
        assert kept.dtype == np.uint8
        assert kept.tolist() == pixels.tolist()
        assert np.allclose(Scale.of(pixels, picture).apply(pixels.astype(np.int64)), pixels / 255)


def test_units_other_than_those_to_fit_are_refused() -> None:
    floats, pixels = np.array([[0.25, 0.5]]), np.array([[3, 200]], np.uint8)
    with pytest.raises(DataError, match=r"float64 up to 0.5, and those to fit had values from 0 to 255"):
        Scale.of(pixels, picture=True).apply(floats)
    with pytest.raises(DataError, match=r"uint8 up to 200, and those to fit had values from 0 to 1"):
        Scale.of(floats, picture=True).apply(pixels)


def test_unusual_pictures_are_taken_for_no_other_unit() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.random((20, 64))
    unit = Scale.of(pictures, picture=True)
    hot = pictures.copy()
    hot[:, 3] = 100.0
    assert unit.apply(hot[:1]).max() == unit.apply(hot).max() == 100
    assert unit.apply(np.full((1, 64), 2.0)).max() == 2
    assert unit.apply(rng.integers(0, 4, (5, 64)).astype(float)).max() == 3
    for other in (np.floor(17 * pictures).clip(0, 16), 255 * pictures, np.floor(255 * pictures)):
        for count in (1, 20):
            with pytest.raises(DataError, match="give them as in fit"):
                unit.apply(other[:count])


def test_values_far_outside_stay_finite_and_in_order() -> None:
    scale = Scale.of(np.array([[0.0], [2.0]]), picture=False)
    assert scale.apply(np.array([[4.0], [-2e300], [1e300]])).tolist() == [[2], [-FARTHEST], [FARTHEST]]
    assert torch.from_numpy(scale.apply(np.array([[1.0]]))).dtype == torch.float32
