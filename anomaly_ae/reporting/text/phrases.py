"""What several texts have in common."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from anomaly_ae.detector.evaluation import FoundTogether
from anomaly_ae.escaping import counted
from anomaly_ae.runtime.tables import columns

if TYPE_CHECKING:
    from anomaly_ae.calibration.drift import Drift

PIXEL_FIGURES = {"pixel_auroc": "pixel AUROC", "pixel_average_precision": "pixel AP", "pro": "PRO"}
NUMBER_COLUMNS = {  # columns that are set to the right
    *("AUROC", "FPR@95TPR", "difference", "p (DeLong)", "false alarms", "detected", "seconds"),
    *("encoder", "decoder", "parameters", *PIXEL_FIGURES.values()),
}
NamedText = tuple[str, str | None]  # with None, it is left out


def named_lines(rows: Iterable[NamedText], width: int) -> str:
    """Texts, each behind its name."""
    return "\n".join(f"{name:<{width}}{text}".rstrip() for name, text in rows if text is not None)


def table(rows: Sequence[Mapping[str, str]], numbers: Collection[str] = NUMBER_COLUMNS) -> str:
    """Rows of text by their headings, those of numbers set to the right."""
    heads = list(rows[0])
    right = [i for i, head in enumerate(heads) if head in numbers]
    return "\n".join(columns([heads, *(list(row.values()) for row in rows)], right))


def figure(value: float | None, form: str = ".4f") -> str:
    """A number in that form of `format`, and nothing where there is none."""
    return "" if value is None else format(value, form)


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{low:.4f} to {high:.4f}"


def unranked(false_positive_rate: float | None) -> str:
    """Why an evaluation has no AUROC."""
    return f"no {'normal' if false_positive_rate is None else 'anomalous'} test image"


def moved(drift: "Drift") -> str:
    verdict = "the scores as a whole have moved" if drift.moved else "none to be sure of"
    interval = f"{drift.interval.low:.1%} to {drift.interval.high:.1%}"
    beyond = ", but not so of each group" if drift.side else ", and not all of it beyond 30 to 70 %"
    beyond = "" if drift.moved else beyond
    return f"{verdict}: in {drift.effect:.1%} of pairs (99 % interval {interval}{beyond})"


def discovered(discoveries: FoundTogether) -> list[NamedText]:
    rate = f"a false discovery rate of {discoveries.fdr:g}"
    if discoveries.fewest_possible > discoveries.images:
        needs = f"{rate} needs {counted(discoveries.images_needed, 'calibration image')}"
        return [("discoveries", f"none possible: {needs}")]
    count = f"{discoveries.found:,} of {counted(discoveries.images, 'image')} at {rate}"
    rows: list[NamedText] = [("discoveries", f"{count}; {discoveries.fewest_possible:,} are the fewest possible")]
    if discoveries.false_discovery_share is not None:
        rows.append(("false among them", figure(discoveries.false_discovery_share, ".2%")))
        rows.append(("of all novel ones", figure(discoveries.detection_rate, ".2%")))
    return rows


def p_value(value: float | None) -> str:
    """That of DeLong's test, in a table."""
    return "none" if value is None else f"{value:.2g}"


def no_p_values(reasons: Iterable[str | None]) -> list[str]:
    """Why DeLong's test could not be made, each reason once."""
    return [f"p (DeLong): {reason}" for reason in dict.fromkeys(reasons) if reason]
