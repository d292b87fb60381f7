"""What is shown of a scored folder: heat maps of its anomalous images as files, and a page to look through it.

What draws is loaded when it is needed, for scoring alone is not to wait for it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import StorageError, UsageError, one_line
from anomaly_ae.escaping import counted, shown
from anomaly_ae.images.decode import put_mask_back
from anomaly_ae.reporting.figures.saving import as_pixels, save_image
from anomaly_ae.reporting.html import fill, picture_address, script_json, svg
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import display
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scoring.job import Job, Scores
from anomaly_ae.scoring.previews import Preview, load_previews
from anomaly_ae.storage.atomic import sha256, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERLAY_SIDE, REPORT_SIDE = 512, 160  # pixels of a picture at the most
LONGEST_OVERLAY_NAME = 200  # bytes
WISHES = {"heatmaps": "heat maps", "masks": "masks"}  # settings that ask for pictures, and what these are called
Save = Callable[[Detector, Preview, bytes, Path], bool]  # of a file of that path, to a folder; whether there is any
PICTURES = 500  # images in the report, the most anomalous
PAGE_BYTES = {"pictures": 18_000_000, "rows": 8_000_000, "errors": 2_000_000}  # 30 MB in all


def check_overlays(job: Job, folder: Path, wish: str = "heatmaps") -> None:
    """Raise `UsageError` when the scorer has no heat map, or the pictures would become images of the next job.

    wish: the setting that asks for them
    """
    if job.detector.map_scorer is None:
        raise UsageError(
            f"the scorer {job.detector.config.scorer} has no heat map; score without {setting(wish)}, or with "
            "a detector whose scorer has one, as aligned-knn and relative have"
        )
    if Path(job.source.name).is_dir() and folder.resolve().is_relative_to(Path(job.source.name)):
        raise UsageError(
            f"{folder} lies in the folder of images; {WISHES[wish]} go elsewhere, or they were scored next"
        )


@dataclass(frozen=True)
class PicturesWritten:
    """How many pictures were written, and how many are missing, since they could not be written or their images are
    gone or damaged by now.
    """

    count: int
    missing: int


def write_overlays(job: Job, scores: Scores, folder: Path) -> PicturesWritten:
    """Write a picture for each anomalous image, called as that is, with .png at the end; what is missing is said.

    The colours go from none to the largest value in the image, or to the detector's heat level if that is more; what
    lies above that has a contour, and each region a box.
    """
    return _write_each(job, scores, folder, save_overlay, WISHES["heatmaps"])


def write_masks(job: Job, scores: Scores, folder: Path) -> PicturesWritten:
    """The same with a mask for each anomalous image that has regions, of its size: 255 in them, 0 elsewhere."""
    return _write_each(job, scores, folder, save_mask, WISHES["masks"])


def _write_each(job: Job, scores: Scores, folder: Path, save: Save, what: str) -> PicturesWritten:
    indices, seen, written, reasons = scores.anomalous.nonzero()[0], 0, 0, list[str]()
    previews = load_previews(job.detector, job.source, scores.listing, indices, OVERLAY_SIDE, job.workers)
    with display(len(indices)) as progress:
        for preview in previews:
            try:
                written += save(job.detector, preview, scores.listing.paths[preview.position], folder)
                seen += 1
            except StorageError as error:  # of one odd name, or of all where the disk is full
                reasons.append(one_line(error))
            progress.advance(1, f"{written:,} {what} of {len(indices):,} anomalous images")
    if lost := len(indices) - seen:
        first = f"; the first {reasons[0]}" if reasons else "; their images are gone or damaged by now"
        logger.info(f"{lost:,} {what} of {len(indices):,} anomalous images could not be written{first}")
    return PicturesWritten(written, lost)


def save_overlay(detector: Detector, preview: Preview, path: bytes, folder: Path) -> bool:
    """Write the picture of a file of that path, if it has heat; whether it has. Raises `StorageError`."""
    from anomaly_ae.reporting.figures.image_grids import overlay

    if preview.heat is None:
        return False
    boxes = [region.box for region in preview.regions]
    picture = overlay(preview.picture, preview.heat, level=detector.heat_level, boxes=boxes)
    save_image(folder / os.fsdecode(overlay_name(path)), picture)
    return True


def save_mask(detector: Detector, preview: Preview, path: bytes, folder: Path) -> bool:
    """Write the mask of a file of that path, if it has regions; whether it has. Raises `StorageError`."""
    if not preview.regions or preview.above is None:
        return False
    mask = put_mask_back(preview.above, preview.size, detector.preprocessing.target)
    save_image(folder / os.fsdecode(overlay_name(path)), 255 * mask.astype(np.uint8))
    return True


def overlay_name(path: bytes) -> bytes:
    """Where the overlay of a file lies: as the file does, but never above the folder. A name that is changed, since
    it leads elsewhere or is too long, gets a digest at its end, so that it is like no other.
    """
    parts = [part[:LONGEST_OVERLAY_NAME] for part in path.split(b"/") if part not in (b"", b".", b"..")]
    kept = b"/".join(parts)
    return kept + (b".png" if kept == path else b"-" + sha256(path)[:16].encode() + b".png")


def write_report(job: Job, scores: Scores, facts: Sequence[tuple[str, str | None]], path: Path) -> None:
    """Write the page about a job."""
    from anomaly_ae.reporting.figures.distributions import folder_histogram

    good = np.flatnonzero(scores.good)
    order = good[np.argsort(-scores.values[good], kind="stable")]
    calibration = job.calibration
    histogram = folder_histogram(
        scores.values[order], calibration.scores.numpy(), calibration.threshold, calibration.target_fpr
    )
    errors = [(shown(scores.listing.paths[i]), text) for i, text in scores.bad]
    drawn = counted(len(order), "image") if len(order) <= PICTURES else f"the {PICTURES:,} most anomalous images"
    logger.info(f"drawing {drawn} for {path}")
    pictures = _pictures(job, scores, order[:PICTURES])
    title = f"Scores of {shown(os.fsencode(Path(job.source.name).name))}"
    write_text(path, report_page(title, facts, histogram, pictures, _rows(job, scores, order), errors))


def report_page(
    title: str,
    facts: Sequence[tuple[str, str | None]],
    histogram: "Figure",
    pictures: Iterable[Mapping[str, Any]],
    rows: Iterable[Sequence[Any]],
    errors: Iterable[Sequence[str]],
) -> str:
    """The page; of pictures, rows and errors as many as fit into 30 MB, and it says how many do not.

    facts:    lines of name and text, without those that have no text
    pictures: of the most anomalous images, in order: path, score, p_value, is_anomaly, and `picture`, `rebuilt` and,
              unless the scorer has none, `heat`, as `picture_address` makes them
    rows:     of all images that have a score, the most anomalous first: path, score, p_value, is_anomaly
    errors:   of the others: path, error
    """
    lists = {"pictures": pictures, "rows": rows, "errors": errors}
    data = {name: _fit(items, PAGE_BYTES[name]) for name, items in lists.items()}
    return fill("report.html", title=title, facts=facts, histogram=svg(histogram), data=script_json(data))


def _fit(items: Iterable[Any], most: int) -> dict[str, Any]:
    """As many items as fit into so many bytes, and how many there are."""
    kept, size, rest = list[Any](), 0, iter(items)
    for item in rest:
        size += len(script_json(item)) + 1
        if size > most:
            return {"items": kept, "total": len(kept) + 1 + sum(1 for _ in rest)}
        kept.append(item)
    return {"items": kept, "total": len(kept)}


def _rows(job: Job, scores: Scores, order: Any) -> Iterator[tuple[str, float, float, bool]]:
    p_values = job.calibration.p_values(torch.from_numpy(scores.values[order])).tolist()
    for i, p in zip(order.tolist(), p_values, strict=True):
        score = float(scores.values[i])
        yield shown(scores.listing.paths[i]), float(f"{score:.6g}"), p, bool(scores.anomalous[i])


def _pictures(job: Job, scores: Scores, order: Any) -> Iterator[Mapping[str, Any]]:
    from anomaly_ae.reporting.figures.image_grids import overlay

    rows = dict(zip(order.tolist(), _rows(job, scores, order), strict=True))
    for preview in load_previews(job.detector, job.source, scores.listing, order, REPORT_SIDE, job.workers):
        row = dict(zip(("path", "score", "p_value", "is_anomaly"), rows[preview.position], strict=True))
        row["picture"] = picture_address(preview.picture)
        row["rebuilt"] = picture_address(as_pixels(preview.rebuilt))
        if preview.heat is not None:
            over = overlay(preview.picture, preview.heat, REPORT_SIDE, job.detector.heat_level)
            row["heat"] = picture_address(over)
        yield row
