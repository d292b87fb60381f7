"""What several texts have in common."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from anomaly_ae.detector.evaluation import FoundTogether
from anomaly_ae.escaping import counted

if TYPE_CHECKING:
    from anomaly_ae.calibration.drift import Drift

PIXEL_FIGURES = {"pixel_auroc": "pixel AUROC", "pixel_average_precision": "pixel AP", "pro": "PRO"}


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{low:.4f} to {high:.4f}"


def unranked(false_positive_rate: float | None) -> str:
    """Why an evaluation has no AUROC."""
    return f"no {'normal' if false_positive_rate is None else 'anomalous'} test image"


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def moved(drift: "Drift") -> str:
    said = "the scores as a whole have moved" if drift.moved else "not clearly beyond 30 to 70 %"
    interval = drift.interval
    return f"{said}: in {drift.effect:.1%} of pairs (99 % interval {interval.low:.1%} to {interval.high:.1%})"


def discovered(found: FoundTogether) -> list[tuple[str, str]]:
    rate = f"a false discovery rate of {found.fdr:g}"
    if found.fewest_possible > found.images:
        needs = f"{rate} needs {counted(found.images_needed, 'calibration image')}"
        return [("", ""), ("discoveries", f"none possible: {needs}")]
    rows = [
        ("", ""),
        (
            "discoveries",
            f"{found.found:,} of {counted(found.images, 'image')} at {rate}; "
            f"{found.fewest_possible:,} are the fewest possible",
        ),
    ]
    if found.false_discovery_share is None:
        return rows
    wrong = percent(found.false_discovery_share)
    return [*rows, ("false among them", wrong), ("of all novel ones", percent(found.detection_rate))]


def p_value(value: float | None) -> str:
    """That of DeLong's test, in a table."""
    return "none" if value is None else f"{value:.2g}"


def no_p_values(reasons: Iterable[str | None]) -> list[str]:
    """Why DeLong's test could not be made, each reason once."""
    return [f"p (DeLong): {reason}" for reason in dict.fromkeys(reasons) if reason]
