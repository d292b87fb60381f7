"""Heat maps of anomalous images, each over its picture, as files."""

import os
from pathlib import Path

from anomaly_ae.errors import StorageError, UsageError, one_line
from anomaly_ae.reporting import figures
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import display
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scoring.job import Job, Scores
from anomaly_ae.scoring.previews import load_previews
from anomaly_ae.storage.atomic import sha256

SIDE = 512  # pixels of a picture at the most
LONGEST = 200  # bytes of a name


def check_overlays(job: Job, folder: Path) -> None:
    """Raise `UsageError` when the scorer has no heat map, or the pictures would become images of the next job."""
    if job.detector.map_scorer is None:
        raise UsageError(
            f"the scorer {job.detector.config.scorer} has no heat map; score without {setting('heatmaps')}, or with "
            "a detector whose scorer has one, as aligned-knn and relative have"
        )
    if Path(job.source.name).is_dir() and folder.resolve().is_relative_to(Path(job.source.name)):
        raise UsageError(f"{folder} lies in the folder of images; heat maps go elsewhere, or they were scored next")


def write_overlays(job: Job, scores: Scores, folder: Path) -> int:
    """Write a picture for each anomalous image, called as that is, with .png at the end; how many are missing then,
    since they could not be written or their images are gone or damaged by now, which is said.

    The colours go from none to the largest value in the image, or to the detector's heat level if that is more; what
    lies above that has a contour.
    """
    positions, done, reasons = scores.anomalous.nonzero()[0], 0, list[str]()
    looks = load_previews(job.detector, job.source, scores.listing, positions, SIDE, job.workers)
    maps = ((look, look.heat) for look in looks if look.heat is not None)
    with display(len(positions)) as progress:
        for look, heat in maps:
            place = folder / os.fsdecode(overlay_name(scores.listing.paths[look.position]))
            try:
                figures.save_image(place, figures.overlay(look.picture, heat, level=job.detector.heat_level))
                done += 1
            except StorageError as error:  # of one odd name, or of all where the disk is full
                reasons.append(one_line(error))
            progress.advance(1, f"{done:,} of {len(positions):,} heat maps")
    if lost := len(positions) - done:
        first = f"; the first {reasons[0]}" if reasons else "; their images are gone or damaged by now"
        logger.info(f"{lost:,} of {len(positions):,} heat maps could not be written{first}")
    return lost


def overlay_name(path: bytes) -> bytes:
    """Where the overlay of a file lies: as the file does, but never above the folder. A name that is changed, since
    it leads elsewhere or is too long, gets a digest at its end, so that it is like no other.
    """
    parts = [part[:LONGEST] for part in path.split(b"/") if part not in (b"", b".", b"..")]
    kept = b"/".join(parts)
    return kept + (b".png" if kept == path else b"-" + sha256(path)[:16].encode() + b".png")
