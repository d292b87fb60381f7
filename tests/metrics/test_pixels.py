import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label
from sklearn.metrics import average_precision_score, roc_auc_score

from anomaly_ae.metrics.pixels import PixelRanking, pixel_ranking

UNDEFINED = PixelRanking(None, None, None)


def heat(seed: int, levels: int, shape: tuple[int, int, int] = (4, 12, 9)) -> tuple[np.ndarray, np.ndarray]:
    """Maps of so many levels, thus with ties, and masks with regions of many sizes, the last image without any."""
    rng = np.random.default_rng(seed)
    masks = rng.random(shape) < 0.15
    masks[0, 2:6, 3:8] = True
    masks[-1] = False
    return np.floor(levels * (rng.random(shape) + 0.3 * masks)).astype(np.float32), masks


def pro_by_thresholds(maps: np.ndarray, masks: np.ndarray) -> float:
    """The definition, threshold by threshold and region by region."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        called, overlaps = maps >= threshold, []
        for image, mask in zip(called, masks, strict=True):
            regions = label(mask, connectivity=2)
            overlaps += [image[regions == number].mean() for number in range(1, regions.max() + 1)]
        points.append((called[~masks].mean(), np.mean(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x0 < 0.3 < x1:
            x1, y1 = 0.3, y0 + (y1 - y0) * (0.3 - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2 if x1 <= 0.3 else 0
    return area / 0.3


@pytest.mark.parametrize("levels", [1, 2, 7, 100, 1_000_000])
@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_scikit_learn_and_with_the_definition_of_pro(seed: int, levels: int) -> None:
    maps, masks = heat(seed, levels)
    ranked = pixel_ranking(maps, masks)
    assert ranked.pixel_auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), rel=1e-12)
    expected = average_precision_score(masks.ravel(), maps.ravel())
    assert ranked.pixel_average_precision == pytest.approx(expected, rel=1e-12)
    assert ranked.pro == pytest.approx(pro_by_thresholds(maps, masks), rel=1e-12)


def test_a_perfect_map_has_one_and_its_reverse_nothing() -> None:
    _, masks = heat(0, 1)
    assert pixel_ranking(masks.astype(np.float32), masks) == PixelRanking(1.0, 1.0, 1.0)
    reverse = pixel_ranking(-masks.astype(np.float32), masks)
    assert (reverse.pixel_auroc, reverse.pro) == (0.0, 0.0)
    assert reverse.pixel_average_precision == pytest.approx(masks.mean())


def test_a_constant_map_is_chance() -> None:
    """All pixels come in at once: the curve is the diagonal, whose area to 0.3 is 0.3² / 2."""
    _, masks = heat(0, 1)
    ranked = pixel_ranking(np.full(masks.shape, 5.0), masks)
    assert ranked.pixel_auroc == 0.5
    assert ranked.pixel_average_precision == pytest.approx(masks.mean())
    assert ranked.pro == pytest.approx(0.3**2 / 2 / 0.3)


def test_a_region_weighs_the_same_whatever_its_size() -> None:
    """Of two regions, of one pixel and of 25, either is found before all else and the other after all else."""
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 0, 0] = masks[1, :5, :5] = True
    for found in range(2):
        maps = np.zeros(masks.shape)
        maps[masks] = -1
        maps[found][masks[found]] = 1
        ranked = pixel_ranking(maps, masks)
        assert ranked.pro == pytest.approx(0.5)
        assert ranked.pixel_auroc == pytest.approx([1 / 26, 25 / 26][found])


def test_the_area_ends_inside_a_step() -> None:
    """Of ten normal pixels two are above half of the defect and two tie with it: FPR 0.2 to 0.4, PRO 0 to 0.5."""
    maps = np.array([[[9, 9, 8, 8, 0, 0, 0, 0, 0, 0, 8, -1]]], float)
    masks = np.arange(12).reshape(1, 1, 12) >= 10
    at_limit = 0.25
    assert pixel_ranking(maps, masks).pro == pytest.approx((0.3 - 0.2) * at_limit / 2 / 0.3)


def first_found(*defective: tuple[int, int, int]) -> float | None:
    """PRO of a map that finds the first of these pixels alone: its share of its region over the number of regions."""
    masks = np.zeros((2, 5, 5), bool)
    masks[tuple(np.transpose(defective))] = True
    maps = -masks.astype(float)
    maps[defective[0]] = 1
    return pixel_ranking(maps, masks).pro


def test_regions_touch_at_corners_but_not_across_images() -> None:
    assert first_found((0, 0, 0), (0, 0, 1), (0, 4, 4)) == pytest.approx(1 / 2 / 2)
    assert first_found((0, 0, 1), (0, 1, 0), (0, 4, 4)) == pytest.approx(1 / 2 / 2)
    assert first_found((0, 0, 0), (0, 0, 2), (0, 4, 4)) == pytest.approx(1 / 3)
    assert first_found((0, 0, 0), (1, 0, 0), (1, 0, 1)) == pytest.approx(1 / 2)


@pytest.mark.parametrize("masks", [np.zeros((2, 3, 3), bool), np.ones((2, 3, 3), bool), np.zeros((0, 3, 3), bool)])
def test_without_a_defective_or_a_normal_pixel_nothing_is_measured(masks: np.ndarray) -> None:
    assert pixel_ranking(np.zeros(masks.shape), masks) == UNDEFINED


@given(seed=st.integers(0, 1000), levels=st.integers(1, 50))
@settings(max_examples=50)
def test_the_order_of_pixels_alone_counts(seed: int, levels: int) -> None:
    """Neither a rising function of the maps nor the order or the orientation of the images changes a figure."""
    maps, masks = heat(seed, levels)
    original = pixel_ranking(maps, masks)
    rising = pixel_ranking(np.exp(maps.astype(float) / levels) - 3, masks)
    turned = pixel_ranking(maps[::-1].transpose(0, 2, 1), masks[::-1].transpose(0, 2, 1))
    for other in (rising, turned):
        for name in ("pixel_auroc", "pixel_average_precision", "pro"):
            assert getattr(other, name) == pytest.approx(getattr(original, name), rel=1e-12)
