"""Which values of a file are black and white. 8 bits say it themselves; of more bits and of floats the training finds
it out, once, over all its pictures. Needs NumPy alone.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from anomaly_ae.errors import DataError
from anomaly_ae.escaping import counted
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.schema import Mismatch, OneOf

EIGHT, WHOLE, FLOAT = "8 bits", "whole numbers of more than 8 bits", "floats"
KINDS = (EIGHT, WHOLE, FLOAT)
WHITE = {EIGHT: 255, WHOLE: 65_535, FLOAT: 1}  # where nothing else is known; 0 is black
BIT_DEPTHS = (8, 10, 12, 14, 16, *range(17, 32))  # of whole numbers, whatever they are kept in
NEARLY_ALL = 0.001, 0.999  # quantiles that set the range of floats, so that no hot pixel does
NOTABLE = 0.01  # share of a picture's values, beyond black and white, from which it is worth a word

Array = npt.NDArray[Any]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Intensity:
    """The values that are black and white in files of a kind, `WHOLE` or `FLOAT`, in their own units.

    In files of the other kinds 0 is black, and white is 255, 65535 (or what a PGM's header says), or 1.
    """

    low: float
    high: float
    kind: Annotated[str, OneOf((WHOLE, FLOAT))]

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise Mismatch("the intensity has black above white")

    @property
    def setting(self) -> str:
        """As `RunConfig` has it."""
        return f"{self.low!r}:{self.high!r}"

    @property
    def words(self) -> str:
        return f"{self.low:,.6g} is black and {self.high:,.6g} white"


def to_bytes(
    values: Array, low: float, high: float, within: npt.NDArray[np.bool_] | bool = True
) -> tuple[npt.NDArray[np.uint8], float]:
    """Values as uint8, `low` 0 and `high` 255, and the share of them that lay beyond, of those `within`; what is no
    number is 0.
    """
    inside = (values >= low) & (values <= high)  # false for what is no number
    scaled = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    np.clip(scaled, low, high, out=scaled)
    scaled -= low
    scaled *= 255 / (high - low)
    return np.rint(scaled, out=scaled).astype(np.uint8), 1 - float(inside.mean(where=within))


def find_intensity(kinds: list[str], samples: list[Values], requested: str | None) -> Intensity | None:
    """The intensity of a data set, of whose pictures these are the kinds and, unless they have 8 bits, the samples.

    Whole numbers: from 0 to the most that 8, 10, 12, 14, 16 … bits can hold and all their values need. Floats: to 1,
    or as whole numbers, as all but one in a thousand of their values need. Where values are below 0: from the least
    to the most of these. None for 8 bits.
    asked: LOW:HIGH, or p1:p99, percentiles of the values
    Raises `DataError` for an intensity of nothing but 8 bits, for whole numbers beside floats, and for none at all.
    """
    deep = [kind for kind in kinds if kind != EIGHT]
    if not deep:
        if requested:
            raise DataError(
                "the pictures have 8 bits, of which 0 is black and 255 white; leave "
                f"{setting('intensity', requested)} out"
            )
        return None
    if len(set(deep)) > 1:
        raise DataError(
            f"{deep.count(WHOLE):,} pictures hold {WHOLE} and {deep.count(FLOAT):,} {FLOAT}, whose brightness cannot "
            "be compared; save them alike"
        )
    values = np.stack(samples)
    if not requested:
        low, high = _range_of(deep[0], values)
    else:
        low, high = (float(bound) for bound in requested.lower().replace("p", "").split(":"))
        if requested.lower().startswith("p"):
            low, high = np.percentile(values[:, 1:-1], [low, high]).tolist()
    if not 0 < high - low < math.inf:
        what = setting("intensity", requested) if requested else "the range of the pictures' values"
        raise DataError(f"{what} comes to {low:g}:{high:g}; black must lie below white, by a finite number")
    return Intensity(low, high, deep[0])


def intensity_words(intensity: Intensity, samples: list[Values], requested: str | None) -> str:
    """One line on what was found, or set, for people."""
    values = np.stack(samples)
    beyond = float(((values < intensity.low) | (values > intensity.high)).mean())
    return (
        f"brightness: {len(samples):,} pictures hold {intensity.kind}, from {values.min():,.6g} to "
        f"{values.max():,.6g}: {intensity.words}"
        + (f", which clips {beyond:.1%} of their values" if beyond >= 0.0005 else "")
        + (f" ({setting('intensity', requested)})" if requested else f"; {setting('intensity', 'LOW:HIGH')} sets it")
    )


def intensity_differences(intensity: Intensity | None, kinds: Array, clipped: Array) -> list[str]:
    """How many pictures, of which these are the kinds, as indices in `KINDS`, and the shares of values beyond black
    and white, are of another kind than `intensity` is for, or lose values; in words, often none.
    """
    trained, words = EIGHT if intensity is None else intensity.kind, []
    for position, kind in enumerate(KINDS):
        if kind != trained and (count := int((kinds == position).sum())):
            white = "65,535, or what a PGM's header says," if kind == WHOLE else f"{WHITE[kind]}"
            words.append(
                f"{counted(count, 'picture holds', 'pictures hold')} {kind}, and black and white are set for "
                f"{trained}: 0 was taken for black and {white} for white; save them alike"
                + (f", or train with {setting('intensity', 'LOW:HIGH')}" if trained == EIGHT else "")
            )
    if count := int((clipped > NOTABLE).sum()):
        limits = f" ({intensity.words})" if intensity else ""
        words.append(
            f"{counted(count, 'picture has', 'pictures have')} more than {NOTABLE:.0%} of values beyond black and "
            f"white{limits}; these were clipped"
        )
    return words


def _range_of(kind: str, samples: Values) -> tuple[float, float]:
    least, most = float(samples.min()), float(samples.max())
    if kind == FLOAT:
        least, most = np.quantile(samples[:, 1:-1], NEARLY_ALL).tolist()
    if least < 0:
        return least, max(most, 0.0)
    if kind == FLOAT and most <= 1:
        return 0.0, 1.0
    return 0.0, next((2.0**bits - 1 for bits in BIT_DEPTHS if most <= 2**bits - 1), most)
