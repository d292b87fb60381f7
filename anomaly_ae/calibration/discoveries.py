"""Which images of a batch are anomalous at a false discovery rate."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Discoveries:
    """The images of a batch that are called anomalous at a false discovery rate.

    found:    bool (N,)
    possible: the fewest discoveries that the number of calibration images allows, N + 1 or more where none are
    needed:   the fewest calibration images with which any are possible at that false discovery rate
    """

    found: Tensor
    possible: int
    needed: int
