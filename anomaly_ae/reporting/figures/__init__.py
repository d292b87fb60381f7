"""Every picture: what training, evaluation and comparison draw, as matplotlib figures and as image grids.

The names below are loaded when they are first used, for the libraries that draw take seconds.
"""

from typing import TYPE_CHECKING

from anomaly_ae.runtime.lazy import on_first_use

if TYPE_CHECKING:
    from anomaly_ae.reporting.figures.curves import compared_losses as compared_losses
    from anomaly_ae.reporting.figures.curves import compared_rocs as compared_rocs
    from anomaly_ae.reporting.figures.curves import loss_curves as loss_curves
    from anomaly_ae.reporting.figures.curves import roc_and_precision_recall as roc_and_precision_recall
    from anomaly_ae.reporting.figures.image_grids import CONTOUR as CONTOUR
    from anomaly_ae.reporting.figures.image_grids import OVERLAY_PIXELS as OVERLAY_PIXELS
    from anomaly_ae.reporting.figures.image_grids import TRUTH as TRUTH
    from anomaly_ae.reporting.figures.image_grids import defects as defects
    from anomaly_ae.reporting.figures.image_grids import image_rows as image_rows
    from anomaly_ae.reporting.figures.image_grids import labelled_rows as labelled_rows
    from anomaly_ae.reporting.figures.image_grids import overlay as overlay
    from anomaly_ae.reporting.figures.image_grids import overlays as overlays
    from anomaly_ae.reporting.figures.latent_space import latent_map as latent_map
    from anomaly_ae.reporting.figures.predictions import detections as detections
    from anomaly_ae.reporting.figures.predictions import plot as plot
    from anomaly_ae.reporting.figures.saving import GRID_IMAGES as GRID_IMAGES
    from anomaly_ae.reporting.figures.saving import MAPPED as MAPPED
    from anomaly_ae.reporting.figures.saving import SHOWN as SHOWN
    from anomaly_ae.reporting.figures.saving import Array as Array
    from anomaly_ae.reporting.figures.saving import Drawing as Drawing
    from anomaly_ae.reporting.figures.saving import as_pixels as as_pixels
    from anomaly_ae.reporting.figures.saving import grid as grid
    from anomaly_ae.reporting.figures.saving import label as label
    from anomaly_ae.reporting.figures.saving import save_image as save_image
    from anomaly_ae.reporting.figures.saving import write_figures as write_figures
    from anomaly_ae.reporting.figures.scores import calibration as calibration
    from anomaly_ae.reporting.figures.scores import folder_histogram as folder_histogram
    from anomaly_ae.reporting.figures.scores import heat_table as heat_table
    from anomaly_ae.reporting.figures.scores import score_by_class as score_by_class
    from anomaly_ae.reporting.figures.scores import score_histogram as score_histogram
    from anomaly_ae.reporting.figures.style import distinct as distinct

_HOMES = {
    "Array": "saving",
    "CONTOUR": "image_grids",
    "GRID_IMAGES": "saving",
    "MAPPED": "saving",
    "OVERLAY_PIXELS": "image_grids",
    "SHOWN": "saving",
    "TRUTH": "image_grids",
    "as_pixels": "saving",
    "calibration": "scores",
    "compared_losses": "curves",
    "compared_rocs": "curves",
    "defects": "image_grids",
    "detections": "predictions",
    "distinct": "style",
    "folder_histogram": "scores",
    "grid": "saving",
    "heat_table": "scores",
    "image_rows": "image_grids",
    "label": "saving",
    "labelled_rows": "image_grids",
    "latent_map": "latent_space",
    "loss_curves": "curves",
    "overlay": "image_grids",
    "overlays": "image_grids",
    "plot": "predictions",
    "roc_and_precision_recall": "curves",
    "write_figures": "saving",
    "Drawing": "saving",
    "save_image": "saving",
    "score_by_class": "scores",
    "score_histogram": "scores",
}
__all__ = sorted(_HOMES)

__getattr__ = on_first_use(__name__, _HOMES)
