"""What came of a folder."""

from typing import TYPE_CHECKING

from anomaly_ae.detector.evaluation import FoundTogether
from anomaly_ae.escaping import counted, counted_as
from anomaly_ae.reporting.text.phrases import discovered, moved
from anomaly_ae.runtime.printed import as_text
from anomaly_ae.scoring.scoring_results import Encoded, ScoreResult

if TYPE_CHECKING:
    from anomaly_ae.calibration.drift import Drift


@as_text.register
def encoded(result: Encoded) -> str:
    bad = f", {result.errors:,} of which could not be read: see the column error" if result.errors else ""
    latents = counted(result.latent_size, "latent number")
    return f"{counted(result.images, 'image')}{bad}, {latents} each, in {result.output}"


@as_text.register
def scored(result: ScoreResult) -> str:
    missing = f"; {result.heatmaps_missing:,} could not be written" if result.heatmaps_missing else ""
    places = [("heat maps", f"{result.heatmaps}{missing}")] if result.heatmaps else []
    places += [("report", result.report)] if result.report else []
    return "\n".join(f"{name:<16}{text}" for name, text in [*scored_rows(result), *places])


def scored_rows(result: ScoreResult) -> list[tuple[str, str]]:
    """What came of scoring, as names and texts."""
    good = result.images - result.errors
    rate = f"{result.images_per_second:,.0f} images/s"
    were = counted(result.scored, "image")
    return [
        ("detector", result.detector),
        ("images", f"{result.images:,}{_resumed(result)}"),
        *([("seen at", result.seen)] if result.seen else []),
        *([] if result.score is None else [("score", f"{result.score:.4f}, p-value {result.p_value:.3g}")]),
        (
            "anomalous",
            f"{result.anomalies:,} of {good:,} are above the threshold {result.threshold:.4f}, "
            f"for a false-alarm rate of {result.target_fpr:g} ({result.guarantee})",
        ),
        *_found(result),
        *([("bad files", f"{result.errors:,} have an error and no score")] if result.errors else []),
        *(("", f"{count:,} × {reason}") for reason, count in result.error_kinds.items()),
        *([("skipped", f"{result.skipped:,} (no images)")] if result.skipped else []),
        *(("warning", text) for text in result.differences),
        *_shifted(result.drift),
        ("worked on", f"{were} in {_duration(result.seconds)}, {rate}"),
        ("kept in", result.output),
    ]


def unscored_rows(result: ScoreResult) -> list[tuple[str, str]]:
    """What was not scored, which the terminal has been told already."""
    left_out = [("left out", counted_as(count, what)) for what, count in sorted(result.left_out.items())]
    return [*left_out, *(("warning", text) for text in result.unread_folders)]


def _resumed(result: ScoreResult) -> str:
    """What had been scored before, and what is other than it was."""
    if not result.resumed:
        return ""
    counts = {"new": result.new, "changed": result.changed, "gone": result.gone}
    changes = [f"{count:,} {word}" for word, count in counts.items() if count]
    said = f"; since the job began {', '.join(changes)}" if changes else ""
    before = result.images - result.scored
    return f", {before:,} of which had been scored before{said}" if before else f", all of them now{said}"


def _found(result: ScoreResult) -> list[tuple[str, str]]:
    fdr, found, fewest, needed = result.fdr, result.discoveries, result.fewest_discoveries, result.discoveries_need
    if fdr is None or found is None or fewest is None or needed is None:
        return []
    whole = FoundTogether(fdr, result.images - result.errors, found, fewest, needed, None, None)
    return [row for row in discovered(whole) if row != ("", "")]


def _shifted(drift: "Drift | None") -> list[tuple[str, str]]:
    """A word where scores have moved; anomalies alone may do it, if there are many."""
    if drift is None or not drift.moved:
        return []
    return [("drift", f"{moved(drift)} one of these images scores above a calibration image")]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
