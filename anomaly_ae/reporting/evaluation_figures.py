"""What an evaluation is shown by: curves, histograms, and the images that say most."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anomaly_ae.autoencoders.inference import as_float
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import Evaluation
from anomaly_ae.detector.measuring import Mapped, class_names, novelty
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.sources import shown
from anomaly_ae.reporting import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_MAPPED = 3  # latents that a plane can be laid through


def draw_evaluation(
    detector: Detector, test: ImageSet, scores: Tensor, evaluation: Evaluation, mapped: Mapped | None = None
) -> "dict[str, Figure]":
    """The figures of an evaluation, by name."""
    novel, values = novelty(detector, test), scores.numpy()
    names, threshold = [figures.label(name) for name in class_names(detector, test)], detector.threshold
    at_threshold = evaluation.false_positive_rate, evaluation.true_positive_rate, evaluation.precision
    order = scores.argsort(descending=True, stable=True)
    some = torch.linspace(0, len(test) - 1, min(len(test), figures.MAPPED)).long()
    latents = detector.encode(test.images[some]).numpy()
    curves = {}
    if len(some) >= FEWEST_MAPPED:
        curves["latent_map"] = figures.latent_map(latents, [names[i] for i in some.tolist()], novel[some.numpy()])
    if evaluation.auroc is not None and evaluation.average_precision is not None:
        areas = evaluation.auroc, evaluation.average_precision
        curves["roc_and_precision_recall"] = figures.roc_and_precision_recall(values, novel, *areas, at_threshold)
    if mapped is not None and bool(mapped.masks.any()):
        curves["defects"] = _defects(detector, test, mapped)
    return {
        "score_histogram": figures.score_histogram(values, novel, threshold, evaluation.target_fpr),
        "score_by_class": figures.score_by_class(values, names, novel, threshold),
        "most_anomalous": _extremes(detector, test, scores, order, "The most anomalous test images"),
        "least_anomalous": _extremes(detector, test, scores, order.flip(0), "The least anomalous test images"),
    } | (curves | _mistakes(detector, test, scores, order, torch.from_numpy(novel)))


def _mistakes(
    detector: Detector, test: ImageSet, scores: Tensor, order: Tensor, novel: Tensor
) -> "dict[str, Figure]":
    """The normal images that come nearest to an alarm or raise one, and the novel ones nearest to being missed."""
    alarms = scores > detector.threshold
    wrong, missed = int((alarms & ~novel).sum()), int((~alarms & novel).sum())
    normal_first, novel_last = order[~novel[order]], order.flip(0)[novel[order.flip(0)]]
    headings = {
        "false_alarms": (normal_first, f"Normal test images that score highest: {wrong:,} are false alarms"),
        "missed": (novel_last, f"Novel test images that score lowest: {missed:,} are missed"),
    }
    return {
        name: _extremes(detector, test, scores, chosen, heading)
        for name, (chosen, heading) in headings.items()
        if len(chosen)
    }


def _extremes(detector: Detector, test: ImageSet, scores: Tensor, order: Tensor, heading: str) -> "Figure":
    """The first images of an order, with the name of its file, if it is one, class and score above each."""
    chosen = test.take(order[: figures.SHOWN])
    titles = [
        f"{figures.label(name, 14)}\nscore {score:.2f}"
        for name, score in zip(class_names(detector, chosen), scores[order].tolist(), strict=False)
    ]
    if chosen.names:
        files = [figures.label(shown(name).rpartition("/")[2], 15) for name in chosen.names]
        titles = [f"{file}\n{title}" for file, title in zip(files, titles, strict=True)]
    return figures.detections(detector, chosen.images, titles, heading)


def _defects(detector: Detector, test: ImageSet, mapped: Mapped) -> "Figure":
    """Some images of every class with masks, with heat map, contour and the true outline."""
    names, level, rows = class_names(detector, test), detector.heat_level, []
    defective = mapped.masks.flatten(1).any(dim=1)
    for name in detector.classes:
        of_class = torch.tensor([names[i] == name for i in mapped.positions.tolist()]) & defective
        if of_class.any():
            among = torch.nonzero(of_class).flatten()
            some = among[torch.linspace(0, len(among) - 1, min(figures.SHOWN, len(among))).long()]
            images = as_float(test.images[mapped.positions[some]]).numpy()
            masks = list(mapped.masks[some].numpy())
            rows += [
                (figures.label(name), images),
                ("found", figures.overlays(images, mapped.maps[some].numpy(), level, masks)),
            ]
    return figures.labelled_rows(rows, "Heat maps of defects; outlined what is defective (green) and found (cyan)")
