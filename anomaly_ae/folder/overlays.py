"""Heat maps of anomalous images, each over its picture, as files."""

import hashlib
import os
from pathlib import Path

from anomaly_ae import figures
from anomaly_ae.errors import UsageError
from anomaly_ae.folder.job import Job, Scores
from anomaly_ae.folder.pictures import look_again
from anomaly_ae.progress import display

SIDE = 512  # pixels of a picture at the most
LONGEST = 240  # bytes of a file's name


def check_overlays(job: Job, folder: Path) -> None:
    """Raise `UsageError` when the scorer has no heat map, or the pictures would become images of the next job."""
    if job.detector.map_scorer is None:
        raise UsageError(
            f"the scorer {job.detector.recipe.scorer} has no heat map; score without --heatmaps, or with a detector "
            "whose scorer has one, as aligned-knn and relative have"
        )
    if Path(job.source.name).is_dir() and folder.resolve().is_relative_to(Path(job.source.name)):
        raise UsageError(f"{folder} lies in the folder of images; heat maps go elsewhere, or they were scored next")


def write_overlays(job: Job, scores: Scores, folder: Path) -> int:
    """Write a picture for each anomalous image, called as that is, with .png at the end; how many there are.

    The colours go from none to the largest value in the image.
    """
    positions, written = scores.anomalous.nonzero()[0], 0
    with display(len(positions)) as progress:
        for look in look_again(job.detector, job.source, scores.listing, positions, SIDE, job.workers):
            assert look.heat is not None  # `check_overlays` has seen to it
            place = folder / os.fsdecode(overlay_name(scores.listing.paths[look.position]))
            figures.save_image(place, figures.overlay(look.picture, look.heat))
            written += 1
            progress.advance(1, f"{written:,} of {len(positions):,} heat maps")
    return written


def overlay_name(path: bytes) -> bytes:
    """Where the overlay of a file lies: as the file does, but never above the folder, nor under too long a name."""
    *folders, name = [part for part in path.split(b"/") if part not in (b"", b".", b"..")]
    if len(name) > LONGEST:
        name = name[: LONGEST - 17] + b"-" + hashlib.sha256(name).hexdigest()[:16].encode()
    return b"/".join([*folders, name + b".png"])
