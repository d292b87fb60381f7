"""What comes of a detector's work on a folder, as `--json` prints it and people read it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anomaly_ae.runtime.printed import Printed

if TYPE_CHECKING:
    from anomaly_ae.calibration.drift import Drift  # which needs torch


@dataclass(frozen=True)
class ScoreResult(Printed):
    """What came of scoring.

    `new`, `changed` and `gone` are files, since the job that is resumed began. `score` and `p_value` are of the
    image, where there is but one that has a score.

    Attributes:
        detector: what it was trained on, its autoencoder and its scorer
        seen: at what size, and whether in gray, it sees the images, and what size they have
        images: image files, each a row of the output
        scored: files that were worked on now; the others had been before
        anomalies: images above the threshold
        errors: images that have no score
        skipped: files that are no images
        error_kinds: the most frequent reasons, each with how many files it stands for
        first_errors: the paths of the first of these files
        left_out: what people may take for pictures that were to be scored, by what it is
        unread_folders: those that could not be looked into, with the reason
        differences: how the images look unlike those of the training
        drift: whether the scores as a whole have moved from those of the calibration
        discoveries: at `fdr`
        fewest_discoveries: that are possible
        discoveries_need: the fewest calibration images for any
        heatmaps_written: heat maps, one of each anomalous image
        heatmaps_missing: heat maps that could not be written
        masks_written: masks, one of each anomalous image with regions
        masks_missing: masks that could not be written
    """

    detector: str
    seen: str | None
    images: int
    scored: int
    anomalies: int
    errors: int
    skipped: int
    seconds: float
    images_per_second: float
    output: str
    threshold: float
    target_fpr: float
    guarantee: str
    error_kinds: dict[str, int]
    first_errors: list[str]
    left_out: dict[str, int]
    unread_folders: list[str]
    resumed: bool
    new: int
    changed: int
    gone: int
    differences: list[str]
    drift: "Drift | None"
    fdr: float | None
    discoveries: int | None
    fewest_discoveries: int | None
    discoveries_need: int | None
    heatmaps: str | None
    heatmaps_written: int
    heatmaps_missing: int
    masks: str | None
    masks_written: int
    masks_missing: int
    report: str | None
    score: float | None
    p_value: float | None


@dataclass(frozen=True)
class WatchResult(Printed):
    """What came of watching a folder, since it began this time.

    files:       that got a row; errors: those of them that have no score
    anomalies:   images above the threshold
    gone:        files that went before they could be scored; waiting: those that were still being written
    drifted:     whether the last scores as a whole are not like those of the calibration
    p95_ms:      from when a file is seen to its row, milliseconds that 95 % of the last files took at the most
    heatmaps_missing: heat maps that could not be written
    unsent:      messages that wait for the next time
    interrupted: whether it was told to end
    """

    detector: str
    files: int
    anomalies: int
    errors: int
    gone: int
    waiting: int
    threshold: float
    target_fpr: float
    guarantee: str
    drifted: bool
    p95_ms: float | None
    seconds: float
    output: str
    heatmaps: str | None
    heatmaps_missing: int
    unsent: int
    interrupted: bool


@dataclass(frozen=True)
class Encoded(Printed):
    """What became of a folder: image files, those that could not be read, and the Parquet file."""

    images: int
    errors: int
    latent_size: int
    output: str
