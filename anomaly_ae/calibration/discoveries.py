"""The anomalies of a batch at a false discovery rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch import Tensor

from anomaly_ae.calibration.rates import exact, images_needed


@dataclass(frozen=True)
class Discoveries:
    """The images of a batch that are called anomalous at a false discovery rate.

    Attributes:
        found: bool (N,)
        possible: the fewest discoveries that the number of calibration images allows, N + 1 or more where none are
        needed: the fewest calibration images with which any are possible at that false discovery rate
    """

    found: Tensor
    possible: int
    needed: int


def find_discoveries(p_values: Tensor, fdr: float, sizes: Sequence[int]) -> Discoveries:
    """Which images of a batch can be called anomalous together, so that the expected share of normal ones among them
    is at most `fdr`, in (0, 1).

    p_values: marginal, float64 (N,), the largest over groups of calibration images of these sizes

    Benjamini and Hochberg 1995, https://doi.org/10.1111/j.2517-6161.1995.tb02031.x, which holds for conformal
    p-values that share a calibration set: Bates et al. 2023, https://doi.org/10.1214/22-AOS2244. The i lowest
    p-values, up to p, are discoveries if p · N ≤ fdr · i, reckoned exactly. So N images have N / (fdr · (n + 1))
    discoveries or none.

    It holds for the largest over groups as well. Of a normal image and the calibration scores of its group let it be
    known which values they have, and not which is the image's, nor how it ranks among them; and all else. The higher
    it ranks, the lower are its own p-value u, the largest p ≥ u, and those of all others, and so the more are
    discoveries, R. It is a wrong one if p ≤ fdr · R / N, and then u is at most the largest u* for which u* ≤
    fdr · R(u*) / N, where R is no less than R(u*). So E[1{wrong} / R] ≤ P(u ≤ u*) / R(u*) ≤ fdr / N.
    """
    batch, rate = len(p_values), exact(fdr)
    steps, counts = np.unique(p_values.numpy(), return_counts=True)
    # each step is a float that was rounded from (1 + c) / (n + 1)
    exact_steps = [Fraction(step).limit_denominator(1 + max(sizes)) for step in steps.tolist()]
    as_low = zip(steps.tolist(), exact_steps, counts.cumsum().tolist(), strict=True)
    highest = max((step for step, fraction, i in as_low if fraction * batch <= rate * i), default=0.0)
    possible = max(1, math.ceil(batch / (rate * (min(sizes) + 1))))
    return Discoveries(p_values <= highest, possible, images_needed(fdr))
