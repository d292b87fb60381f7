"""Every picture: what training, evaluation and comparison draw, as matplotlib figures and as image grids."""

from anomaly_ae.figures.curves import compared_losses, compared_rocs, loss_curves, roc_and_precision_recall
from anomaly_ae.figures.detections import detections, plot
from anomaly_ae.figures.latents import MAPPED, latent_map
from anomaly_ae.figures.pictures import (
    CONTOUR,
    GRID_IMAGES,
    OVERLAY_PIXELS,
    SHOWN,
    TRUTH,
    as_pixels,
    grid,
    image_rows,
    labelled_rows,
    overlay,
    overlays,
)
from anomaly_ae.figures.scores import calibration, folder_histogram, heat_table, score_by_class, score_histogram
from anomaly_ae.figures.style import Array, distinct, label, save_figures, save_image

__all__ = [
    "CONTOUR",
    "GRID_IMAGES",
    "MAPPED",
    "OVERLAY_PIXELS",
    "SHOWN",
    "TRUTH",
    "Array",
    "as_pixels",
    "calibration",
    "compared_losses",
    "compared_rocs",
    "detections",
    "distinct",
    "folder_histogram",
    "grid",
    "heat_table",
    "image_rows",
    "label",
    "labelled_rows",
    "latent_map",
    "loss_curves",
    "overlay",
    "overlays",
    "plot",
    "roc_and_precision_recall",
    "save_figures",
    "save_image",
    "score_by_class",
    "score_histogram",
]
