"""What a detector makes of images: each with its reconstruction, error, heat map and score."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from anomaly_ae.autoencoders.inference import as_float
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DataError
from anomaly_ae.images.preprocessing import Images
from anomaly_ae.reporting.figures.image_grids import image_rows
from anomaly_ae.reporting.figures.saving import SHOWN, plain


def plot(detector: Detector, images: Images) -> Figure:
    """The first images, at most 10, with reconstruction, error, heat map, score, p-value and verdict.

    images: what `Detector.score` takes
    Raises `DataError` when they are no images, or none.
    """
    prepared = detector.preprocessing.prepare(images)
    if not len(prepared):
        raise DataError("there is no image to draw among these")
    some = prepared[:SHOWN]
    scores = detector.score(some)
    titles = [
        f"score {score:.4g}\np {p:.2g}\n{'anomalous' if score > detector.threshold else 'normal'}"
        for score, p in zip(scores.tolist(), detector.p_values(scores).tolist(), strict=True)
    ]
    count = f", the first {len(some)} of {len(prepared):,} images" if len(some) < len(prepared) else ""
    heading = f"{plain(detector.name)}, threshold {detector.threshold:.4g}{count}"
    return detections(detector, some, titles, heading)


def detections(detector: Detector, images: Tensor, titles: Sequence[str], heading: str) -> Figure:
    """Images at the detector's size, (N, C, H, W), and below them what it makes of them, a few words above each."""
    rebuilt, heat = detector.reconstruct(images).numpy(), detector.anomaly_map(images)
    maps = None if heat is None else heat.numpy()
    return image_rows(as_float(images).numpy(), rebuilt, maps, titles, heading, detector.heat_level)
