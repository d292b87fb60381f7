"""How well heat maps point out defects, pixel by pixel and region by region, measured against ground-truth masks."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

PRO_FPR_LIMIT = 0.3  # where the authors of PRO stop, and so what published figures are to
TOUCHING = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])  # 8 neighbours, none in another image


@dataclass(frozen=True)
class PixelRanking:
    """Quality of heat maps as rankings of pixels, free of any threshold; all in [0, 1], and all None where no pixel
    is defective or none is normal.

    pixel_auroc and pixel_average_precision are of the pixels of all images pooled, so that large defects weigh most.
    pro weighs every defect alike: the mean share of a connected region that lies above a threshold, against the FPR
    over the normal pixels of all images, as the area to 30 % FPR divided by 0.3. A perfect map has 1, chance 0.15.
    Bergmann et al. 2020, https://arxiv.org/abs/1911.02357; Bergmann et al. 2021,
    https://doi.org/10.1007/s11263-020-01400-4
    """

    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None


@dataclass(frozen=True)
class _Curve:
    """What a falling threshold lets in, (2 T + 2,) each, rising from 0, for T distinct values of defective pixels.

    After the start, where nothing is in, come two points for each of these values, the highest first: just above it
    and at it; then the end, where all is in. Elsewhere only normal pixels come in and the curve runs straight, so
    no other threshold is needed.
    """

    false: Ints  # normal pixels
    caught: Ints  # defective pixels
    overlap: Floats  # mean share of a region, to 1


def pixel_ranking(maps: Floats, masks: Bools) -> PixelRanking:
    """Measure heat maps (N, H, W), finite and higher for more anomalous, against masks (N, H, W), True where
    defective. Defective pixels that touch, be it at a corner, are one region.
    """
    if masks.all() or not masks.any():  # or there is no pixel at all
        return PixelRanking(None, None, None)
    curve = _curve(maps, masks)
    auroc = _area(curve.caught, curve.false) / curve.caught[-1] / curve.false[-1]
    caught, false = curve.caught[2::2], curve.false[2::2]  # at the threshold that first catches each defective pixel
    precision = np.diff(caught, prepend=0) @ (caught / (caught + false)) / caught[-1]
    # Left in counts of pixels: whole numbers add up without rounding, so a perfect map has 1 exactly
    limit = PRO_FPR_LIMIT * curve.false[-1]
    within = np.searchsorted(curve.false, limit, side="right")
    at_limit = np.interp(limit, curve.false, curve.overlap)
    area = _area(np.append(curve.overlap[:within], at_limit), np.append(curve.false[:within], limit))
    return PixelRanking(float(auroc), float(precision), float(area / limit))


def _curve(maps: Floats, masks: Bools) -> _Curve:
    from scipy.ndimage import label  # here, for most test images have no masks, and it takes a while

    regions = label(masks, TOUCHING)[0][masks]
    shares, values = 1 / np.bincount(regions)[regions], maps[masks]  # what share of its region each pixel is
    order = np.argsort(values)[::-1]
    falling = values[order]
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # no threshold tells pixels that tie apart
    overlap = np.append(0, np.cumsum(shares[order])[ends])
    normals = np.sort(maps[~masks])  # by value alone, several times as fast as finding the order of all pixels
    below = [np.searchsorted(normals, falling[ends], side) for side in ("right", "left")]
    return _Curve(
        false=np.concatenate([[0], len(normals) - np.stack(below, axis=1).ravel(), [len(normals)]]),
        caught=np.repeat(np.append(0, ends + 1), 2),
        overlap=np.repeat(overlap / overlap[-1], 2),  # by their sum, so that rounding leaves the end at 1
    )


def _area(heights: Floats | Ints, places: Floats | Ints) -> float:
    """Below a curve, by trapezoids."""
    return float(np.diff(places) @ (heights[1:] + heights[:-1]) / 2)
