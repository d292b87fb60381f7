"""Which normal pictures a detector has not been made with."""

import torch
from torch import Tensor

from anomaly_ae.datasets.catalogue import open_data
from anomaly_ae.datasets.copies import one_of_each
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import AnomalyAEError, one_line
from anomaly_ae.runtime.messages import logger

MADE_WITH = "fit", "validation", "calibration"  # parts of a split


def new_normals(detector: Detector, images: Tensor, unseen: Tensor) -> Tensor:
    """Those of `unseen`, int64 (N,), positions of normal images (M, C, H, W) at the detector's size, that are no
    copies, equal or saved anew, of each other and of those that it was made with, as far as these are still where
    they were. What is left out is said, and what cannot be looked for.

    Raises `DataError` where all are copies of what it was made with.
    """
    return one_of_each(images, unseen, known=_made_with(detector))


def _made_with(detector: Detector) -> Tensor | None:
    """The pictures of files that a detector was made with, (K, C, H, W), if they are there as they were."""
    name = detector.config.dataset
    if detector.split.fit.names is None:
        return None  # no files, and equal ones are known by their hashes
    try:
        data = open_data(name)
        return torch.cat([detector.take(part, data).images for part in MADE_WITH])
    except AnomalyAEError as error:
        logger.info(
            f"copies that were saved anew of pictures that the detector was made with are not looked for: "
            f"{one_line(error)}"
        )
        return None
