"""Scores and thresholds as float32 numbers, so that a verdict agrees with the p-value wherever they are compared."""

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.metrics.ranking import require_numbers


def float32_below(value: float, strictly: bool = False) -> float:
    """The largest float32 that is at most a value, or lies below it."""
    nearest = np.float32(value)
    is_low = float(nearest) < value if strictly else float(nearest) <= value
    return float(nearest if is_low else np.nextafter(nearest, np.float32(-np.inf)))


def as_single(scores: Tensor) -> Tensor:
    """Scores (N,) as float32 on the CPU; one that lies between two such numbers counts as the upper, so that it is
    above a threshold, which is one of them, whenever its p-value says so. Raises `DataError` for NaN.
    """
    exact_scores = scores.cpu()
    require_numbers(exact_scores)
    values = exact_scores.float()
    return torch.where(values < exact_scores, values.nextafter(torch.tensor(torch.inf)), values).contiguous()
