import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ae.autoencoders.inference import map_images
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.datasets.catalogue import open_data
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.regions import MOST_REGIONS, Heat, Region, RegionFinder, read_regions, regions_text
from anomaly_ae.errors import DataDamaged, UsageError
from anomaly_ae.images.decode import CROP, PAD, STRETCH, Target, put_mask_back
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.scorers import build_scorer
from tests.conftest import Trained

PEAKS = np.array([0.5, 1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], np.float32)  # of nine calibration images
ORIENTATION = 0x0112


def finder(resize_mode: str = STRETCH, side: int = 8, roi: RegionOfInterest | None = None) -> RegionFinder:
    return RegionFinder(1.0, PEAKS, Target((1, side, side), resize_mode, roi=roi))


def heat(*parts: tuple[int, int, float], shape: tuple[int, int] = (8, 8)) -> Heat:
    """A map with values at rows and columns, 1, the level, elsewhere."""
    made = np.ones(shape, np.float32)
    for row, column, value in parts:
        made[row, column] = value
    return made


def test_parts_that_touch_at_a_corner_are_one_region_and_the_highest_peak_comes_first() -> None:
    corner = [(1, 1, 2.0), (2, 2, 1.5)]
    apart = [(7, 5, 6.5), (7, 6, 1.25), (7, 7, 1.25)]
    found = finder().find(heat(*corner, *apart)[None], [(80, 40)])[0]
    assert found == [
        Region((0.625, 0.875, 0.375, 0.125), 3 / 64, 6.5, (1 + 1) / 10),  # 7 alone is at least 6.5
        Region((0.125, 0.125, 0.25, 0.25), 2 / 64, 2.0, (1 + 7) / 10),  # both of 2, and five above
    ]


def test_a_map_that_nowhere_exceeds_the_level_has_no_region() -> None:
    assert finder().find(np.stack([heat(), heat((0, 0, 1.01)), heat()]), [(8, 8)] * 3) == [
        [],
        [Region((0.0, 0.0, 0.125, 0.125), 1 / 64, 1.01, 0.8)],
        [],
    ]
    assert finder().find(np.zeros((0, 8, 8), np.float32), []) == []


def test_boxes_of_a_padded_picture_leave_out_what_was_added() -> None:
    # 200×100 lies in rows 2 to 5 of 8×8
    seen = [(row, column, 9.0) for row in (2, 3) for column in (4, 5)]
    made = heat((0, 0, 8.0), (1, 4, 8.0), *seen)
    assert finder(PAD).find(made[None], [(200, 100)])[0] == [Region((0.5, 0.0, 0.25, 0.5), 4 / 32, 9.0, 0.1)]
    mask = put_mask_back(made > 1, (200, 100), Target((1, *made.shape), PAD))
    assert mask[:50, 100:150].all()
    assert mask.sum() == 50 * 50
    assert finder(PAD).find(heat((0, 0, 8.0))[None], [(200, 100)])[0] == []


def test_boxes_of_a_cropped_picture_are_shares_of_all_of_it() -> None:
    # of 200×100 the columns 50 to 149 are seen in 8×8
    made = heat(*((row, column, 3.0) for row in range(4, 8) for column in (0, 1)))
    assert finder(CROP).find(made[None], [(200, 100)])[0] == [Region((0.25, 0.5, 0.125, 0.5), 8 / 64 / 2, 3.0, 0.6)]
    mask = put_mask_back(made > 1, (200, 100), Target((1, *made.shape), CROP))
    assert mask[50:, 50:75].all()
    assert mask.sum() == 50 * 25


def test_what_is_not_looked_at_is_no_region() -> None:
    # of 32×32 two corners are looked at, which the box around them, all of it, sees in pixels of 4×4
    corners = RegionOfInterest(((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)))
    made = heat((0, 0, 4.0), (3, 3, 2.0), (3, 4, 9.0), (7, 0, 9.0), (4, 4, 3.0))
    found = finder(roi=corners).find(made[None], [(32, 32)])[0]
    assert [(region.peak, region.box) for region in found] == [
        (4.0, (0.0, 0.0, 0.125, 0.125)),
        (3.0, (0.375, 0.375, 0.25, 0.25)),
    ]


def test_boxes_are_shares_of_the_whole_picture_where_a_part_is_looked_at() -> None:
    made = heat((0, 0, 4.0), (7, 7, 3.0))
    found = finder(roi=RegionOfInterest(((0.5, 0.25, 0.25, 0.5),))).find(made[None], [(64, 64)])[0]
    assert [(region.box, region.area) for region in found] == [
        ((0.5, 0.25, 0.03125, 0.0625), 0.00195312),
        ((0.71875, 0.6875, 0.03125, 0.0625), 0.00195312),
    ]


def test_a_mask_of_a_smaller_picture_loses_no_region() -> None:
    made = heat((0, 0, 2.0), (5, 6, 2.0), (7, 7, 2.0), shape=(8, 8))
    assert np.argwhere(put_mask_back(made > 1, (2, 4), Target((1, *made.shape)))).tolist() == [[0, 0], [2, 1], [3, 1]]


def test_of_many_regions_the_highest_are_kept_and_the_others_counted() -> None:
    parts = [(2 * (i // 6), 2 * (i % 6), 2.0 + i) for i in range(25)]
    found = finder(side=12).find(heat(*parts, shape=(12, 12))[None], [(12, 12)])[0]
    assert [region.peak for region in found] == [26.0 - i for i in range(MOST_REGIONS)]
    assert [region.more for region in found] == [0] * (MOST_REGIONS - 1) + [5]
    written = json.loads(regions_text(found))
    assert [each.get("more") for each in written] == [None] * (MOST_REGIONS - 1) + [5]


def test_regions_are_read_as_they_were_written() -> None:
    regions = [Region((0.1, 0.2, 0.3, 0.4), 0.05, 3.25, 0.01), Region((0.0, 0.0, 1.0, 1.0), 1.0, 2.0, 0.5, more=3)]
    text = '[{"box": [0.1, 0.2, 0.3, 0.4], "area": 0.05, "peak": 3.25, "p": 0.01}, '
    assert regions_text(regions).startswith(text)
    assert read_regions(regions_text(regions)) == regions
    assert (regions_text([]), read_regions("[]"), read_regions(None)) == ("[]", [], [])


@pytest.mark.parametrize("text", ["{", "[1]", '[{"box": [1]}]', "7", '[{"box": [1, 2, 3, 4], "other": 1}]', "[{}]"])
def test_a_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DataDamaged, match="regions cannot be read"):
        read_regions(text)


def test_the_peaks_are_those_of_the_calibration_images_and_the_level_is_one_of_them(trained: Trained) -> None:
    detector = trained.detector()
    maps = detector.anomaly_map(detector.take("calibration", open_data("digits")).images)
    assert maps is not None
    assert detector.heat_peaks is not None
    torch.testing.assert_close(detector.heat_peaks, maps.amax(dim=(1, 2)).sort().values, rtol=1e-5, atol=1e-7)
    allowed = int(0.05 * (len(maps) + 1))
    assert int((detector.heat_peaks > detector.heat_level).sum()) == allowed - 1


def test_scores_with_maps_are_bit_for_bit_those_without(trained: Trained) -> None:
    detector, images = trained.detector(), load_dataset("digits").files["train"].images[:300]
    scores, maps = detector.score_and_map(images)
    assert scores.numpy().tobytes() == map_images(detector.network, images, detector.scorer.score).numpy().tobytes()
    alone = detector.anomaly_map(images)
    assert maps is not None
    assert alone is not None
    assert maps.numpy().tobytes() == alone.numpy().tobytes()


def test_regions_of_images_are_where_their_maps_are_high(trained: Trained) -> None:
    detector, images = trained.detector(), load_dataset("digits").files["train"].images[:60]
    found, maps = detector.regions(images), detector.anomaly_map(images)
    assert maps is not None
    assert detector.heat_level is not None
    above = maps > detector.heat_level
    assert [bool(regions) for regions in found] == above.flatten(1).any(dim=1).tolist()
    assert 0 < sum(map(bool, found)) < 60
    for regions, odd, heat in zip(found, above, maps, strict=True):
        assert sum(region.area for region in regions) == pytest.approx(float(odd.float().mean()), rel=1e-5)
        for region in regions:
            x, y, width, height = (round(8 * share) for share in region.box)
            assert float(heat[y : y + height, x : x + width].max()) >= np.float32(region.peak)


def test_regions_of_a_picture_that_lies_on_its_side_are_of_what_is_seen(trained: Trained) -> None:
    detector = replace(trained.detector(), preprocessing=replace(trained.detector().preprocessing, resize_mode=PAD))
    pixels = np.zeros((16, 32), np.uint8)
    pixels[4:12, 4:12] = load_dataset("digits").files["train"].images[4, 0].numpy()
    upright, turned = Image.fromarray(pixels), Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ORIENTATION] = 6  # to be turned by 90° clockwise
    expected = detector.regions(torch.from_numpy(pixels)[None, None])
    assert expected[0]
    assert detector.regions([upright, turned]) == expected * 2


def test_a_scorer_without_a_map_has_no_regions(trained: Trained) -> None:
    detector: Detector = replace(trained.detector(), scorer=build_scorer("latent-knn"))
    with pytest.raises(UsageError, match="no heat map"):
        detector.regions(torch.zeros(1, 1, 8, 8))
