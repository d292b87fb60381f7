"""What several texts have in common."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anomaly_ae.escaping import counted

PIXEL_FIGURES = {"pixel_auroc": "pixel AUROC", "pixel_average_precision": "pixel AP", "pro": "PRO"}


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def interval(row: Mapping[str, Any]) -> str:
    return f"{row['auroc_low']:.4f} to {row['auroc_high']:.4f}"


def unranked(result: Mapping[str, Any]) -> str:
    """Why an evaluation has no AUROC."""
    return f"no {'normal' if result['false_positive_rate'] is None else 'anomalous'} test image"


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def moved(drift: Mapping[str, Any]) -> str:
    said = "the scores as a whole have moved" if drift["moved"] else "not clearly beyond 30 to 70 %"
    low, high = drift["interval"]["low"], drift["interval"]["high"]
    return f"{said}: in {drift['effect']:.1%} of pairs (99 % interval {low:.1%} to {high:.1%})"


def discovered(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    possible, images = found["fewest_possible"], found["images"]
    if possible > images:
        needs = (
            f"a false discovery rate of {found['fdr']:g} needs {counted(found['images_needed'], 'calibration image')}"
        )
        wanted = f"none possible: {needs}"
        return [("", ""), ("discoveries", wanted)]
    wrong = found["false_discovery_share"]
    rows = [
        ("", ""),
        (
            "discoveries",
            f"{found['found']:,} of {counted(images, 'image')} at a false discovery rate of {found['fdr']:g}; "
            f"{possible:,} are the fewest possible",
        ),
    ]
    if wrong is None:
        return rows
    return [*rows, ("false among them", percent(wrong)), ("of all novel ones", percent(found["detection_rate"]))]


def p_value(row: Mapping[str, Any]) -> str:
    """That of DeLong's test, in a table."""
    return "none" if row["p_value"] is None else f"{row['p_value']:.2g}"


def no_p_values(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why DeLong's test could not be made, each reason once."""
    reasons = dict.fromkeys(reason for row in rows if (reason := row.get("no_p_value")))
    return [f"p (DeLong): {reason}" for reason in reasons]
