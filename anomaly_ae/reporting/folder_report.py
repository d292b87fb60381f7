"""The page that shows what was scored."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomaly_ae.images.sources import shown
from anomaly_ae.reporting import figures
from anomaly_ae.reporting.html import PICTURES, SIDE, Report, picture_address
from anomaly_ae.runtime.messages import logger
from anomaly_ae.scoring.job import Job, Scores
from anomaly_ae.scoring.previews import load_previews
from anomaly_ae.storage.atomic import write_text


def write_report(job: Job, scores: Scores, facts: list[tuple[str, str]], path: Path) -> None:
    """Write the page about a job."""
    good = np.flatnonzero(scores.good)
    order = good[np.argsort(-scores.values[good], kind="stable")]
    calibration = job.calibration
    histogram = figures.folder_histogram(
        scores.values[order], calibration.scores.numpy(), calibration.threshold, calibration.target_fpr
    )
    errors = [(shown(scores.listing.paths[i]), text) for i, text in scores.bad]
    logger.info(f"drawing the {min(PICTURES, len(order)):,} most anomalous images for {path}")
    pictures = _pictures(job, scores, order[:PICTURES])
    title = f"Scores of {shown(os.fsencode(Path(job.source.name).name))}"
    report = Report(title, facts, histogram, pictures, _rows(job, scores, order), errors)
    write_text(path, report.to_html())


def _rows(job: Job, scores: Scores, order: Any) -> Iterator[tuple[str, float, float, bool]]:
    p_values = job.calibration.p_values(torch.from_numpy(scores.values[order])).tolist()
    for i, p in zip(order.tolist(), p_values, strict=True):
        score = float(scores.values[i])
        yield shown(scores.listing.paths[i]), float(f"{score:.6g}"), p, bool(scores.anomalous[i])


def _pictures(job: Job, scores: Scores, order: Any) -> Iterator[Mapping[str, Any]]:
    rows = dict(zip(order.tolist(), _rows(job, scores, order), strict=True))
    for look in load_previews(job.detector, job.source, scores.listing, order, SIDE, job.workers):
        named = dict(zip(("path", "score", "p_value", "is_anomaly"), rows[look.position], strict=True))
        drawn = {
            "picture": picture_address(look.picture),
            "rebuilt": picture_address(figures.as_pixels(look.rebuilt)),
        }
        if look.heat is not None:
            over = figures.overlay(look.picture, look.heat, SIDE, job.detector.heat_level)
            drawn["heat"] = picture_address(over)
        yield named | drawn
