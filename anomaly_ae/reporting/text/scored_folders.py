"""What came of a folder."""

from anomaly_ae.detector.evaluation import FoundTogether
from anomaly_ae.escaping import counted, counted_as
from anomaly_ae.reporting.text.phrases import NamedText, discovered, moved, named_lines
from anomaly_ae.runtime.printed import as_text
from anomaly_ae.scoring.scoring_results import Encoded, ScoreResult, WatchResult


@as_text.register
def encoded(result: Encoded) -> str:
    bad = f", {result.errors:,} of which could not be read: see the column error" if result.errors else ""
    latents = counted(result.latent_size, "latent number")
    return f"{counted(result.images, 'image')}{bad}, {latents} each, in {result.output}"


@as_text.register
def scored(result: ScoreResult) -> str:
    pictures = [
        ("heat maps", _written(result.heatmaps, result.heatmaps_written, result.heatmaps_missing)),
        ("masks", _written(result.masks, result.masks_written, result.masks_missing)),
    ]
    return named_lines([*scored_rows(result), *pictures, ("report", result.report)], 16)


@as_text.register
def watched(result: WatchResult) -> str:
    rate = f"a false-alarm rate of {result.target_fpr:g} ({result.guarantee})"
    above = f"{result.anomalies:,} of {result.files - result.errors:,} are above the threshold {result.threshold:.4f}"
    late = None if result.p95_ms is None else f"95 % at most {result.p95_ms:,.0f} ms after the file was seen"
    lines = [
        ("detector", result.detector),
        ("files", f"{result.files:,} have a row now"),
        ("anomalous", f"{above}, for {rate}"),
        ("bad files", f"{result.errors:,} have an error and no score" if result.errors else None),
        ("gone", f"{result.gone:,} before they could be scored" if result.gone else None),
        ("waiting", f"{result.waiting:,} for the next time: still being written" if result.waiting else None),
        ("drift", "the last scores as a whole are not like those of the calibration" if result.drifted else None),
        ("rows", late),
        ("messages", f"{result.unsent:,} not taken yet, which the next time sends" if result.unsent else None),
        ("kept in", result.output),
        ("heat maps", _with_missing(result.heatmaps, result.heatmaps_missing)),
    ]
    return named_lines(lines, 16)


def scored_rows(result: ScoreResult) -> list[NamedText]:
    """What came of scoring, as names and texts."""
    good, drifted = result.images - result.errors, None
    if result.drift and result.drift.moved:  # anomalies alone may do it, if there are many
        drifted = f"{moved(result.drift)} one of these images scores above a calibration image"
    rate = f"a false-alarm rate of {result.target_fpr:g} ({result.guarantee})"
    above = f"{result.anomalies:,} of {good:,} are above the threshold {result.threshold:.4f}"
    speed = result.scored / max(result.seconds, 1e-3)
    seconds = f"{_duration(result.seconds)}, {f'{speed:,.0f}' if speed >= 10 else f'{speed:.2g}'} images/s"
    return [
        ("detector", result.detector),
        ("images", f"{result.images:,}{_resumed(result)}"),
        ("seen at", result.seen),
        ("score", None if result.score is None else f"{result.score:.4f}, p-value {result.p_value:.3g}"),
        ("anomalous", f"{above}, for {rate}"),
        *_discoveries(result),
        ("bad files", f"{result.errors:,} have an error and no score: {_first(result)}" if result.errors else None),
        *(("", f"{count:,} × {reason}") for reason, count in result.error_kinds.items()),
        ("skipped", f"{result.skipped:,} (no images)" if result.skipped else None),
        *(("warning", text) for text in result.differences),
        ("drift", drifted),
        ("worked on", f"{counted(result.scored, 'image')} in {seconds}"),
        ("kept in", result.output),
    ]


def unscored_rows(result: ScoreResult) -> list[NamedText]:
    """What was not scored, which the terminal has been told already."""
    left_out = [("left out", counted_as(count, what)) for what, count in sorted(result.left_out.items())]
    return [*left_out, *(("warning", text) for text in result.unread_folders)]


def _first(result: ScoreResult) -> str:
    """The names of bad files, and how many more there are."""
    more = result.errors - len(result.first_errors)
    return ", ".join(result.first_errors) + (f" and {more:,} more" if more else "")


def _written(folder: str | None, count: int, missing: int) -> str | None:
    """How many pictures were written and where, and how many were not."""
    return folder and _with_missing(f"{count:,} in {folder}", missing)


def _with_missing(written: str | None, missing: int) -> str | None:
    return written and f"{written}; {missing:,} could not be written" if missing else written


def _resumed(result: ScoreResult) -> str:
    """What had been scored before, and what is other than it was."""
    if not result.resumed:
        return ""
    counts = {"new": result.new, "changed": result.changed, "gone": result.gone}
    changes = [f"{count:,} {word}" for word, count in counts.items() if count]
    since = f"; since the job began {', '.join(changes)}" if changes else ""
    before = result.images - result.scored
    return f", {before:,} of which had been scored before{since}" if before else f", all of them now{since}"


def _discoveries(result: ScoreResult) -> list[NamedText]:
    fdr, count, fewest, needed = result.fdr, result.discoveries, result.fewest_discoveries, result.discoveries_need
    if fdr is None or count is None or fewest is None or needed is None:
        return []
    return discovered(FoundTogether(fdr, result.images - result.errors, count, fewest, needed, None, None))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
