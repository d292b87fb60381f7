"""What an evaluation is shown by: curves, histograms, and the images that say most."""

import torch
from torch import Tensor

from anomaly_ae.autoencoders.inference import as_float
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import Evaluation
from anomaly_ae.detector.measuring import Mapped, class_names, novelty
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.sources import shown
from anomaly_ae.reporting.figures.saving import MAPPED, SHOWN, Drawing, label

FEWEST_MAPPED = 3  # latents that a plane can be laid through


def draw_evaluation(
    detector: Detector, test: ImageSet, scores: Tensor, evaluation: Evaluation, mapped: Mapped | None = None
) -> dict[str, Drawing]:
    """The figures of an evaluation, to be drawn, by name."""
    novel, values = novelty(detector, test), scores.numpy()
    names, threshold = [label(name) for name in class_names(detector, test)], detector.threshold
    at_threshold = evaluation.false_positive_rate, evaluation.true_positive_rate, evaluation.precision
    order = scores.argsort(descending=True, stable=True)
    some = torch.linspace(0, len(test) - 1, min(len(test), MAPPED)).long()
    latents = detector.encode(test.images[some]).numpy()
    curves = {}
    if len(some) >= FEWEST_MAPPED:
        curves["latent_map"] = Drawing.of(
            "latent_map", latents, [names[i] for i in some.tolist()], novel[some.numpy()]
        )
    if evaluation.auroc is not None and evaluation.average_precision is not None:
        areas = evaluation.auroc, evaluation.average_precision
        curves["roc_and_precision_recall"] = Drawing.of(
            "roc_and_precision_recall", values, novel, *areas, at_threshold
        )
    if mapped is not None and bool(mapped.masks.any()):
        curves["defects"] = _defects(detector, test, mapped)
    return {
        "score_histogram": Drawing.of("score_histogram", values, novel, threshold, evaluation.target_fpr),
        "score_by_class": Drawing.of("score_by_class", values, names, novel, threshold),
        "most_anomalous": _extremes(detector, test, scores, order, "The most anomalous test images"),
        "least_anomalous": _extremes(detector, test, scores, order.flip(0), "The least anomalous test images"),
    } | (curves | _mistakes(detector, test, scores, order, torch.from_numpy(novel)))


def _mistakes(detector: Detector, test: ImageSet, scores: Tensor, order: Tensor, novel: Tensor) -> dict[str, Drawing]:
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


def _extremes(detector: Detector, test: ImageSet, scores: Tensor, order: Tensor, heading: str) -> Drawing:
    """The first images of an order, with the name of its file, if it is one, class and score above each."""
    chosen = test.take(order[:SHOWN])
    titles = [
        f"{label(name, 14)}\nscore {score:.2f}"
        for name, score in zip(class_names(detector, chosen), scores[order].tolist(), strict=False)
    ]
    if chosen.names:
        files = [label(shown(name).rpartition("/")[2], 15) for name in chosen.names]
        titles = [f"{file}\n{title}" for file, title in zip(files, titles, strict=True)]
    rebuilt, heat = detector.reconstruct(chosen.images).numpy(), detector.anomaly_map(chosen.images)
    maps = None if heat is None else heat.numpy()
    images = as_float(chosen.images).numpy()
    return Drawing.of("image_rows", images, rebuilt, maps, titles, heading, detector.heat_level)


def _defects(detector: Detector, test: ImageSet, mapped: Mapped) -> Drawing:
    """Some images of every class with masks, with heat map, contour and the true outline."""
    names, classes = class_names(detector, test), []
    defective = mapped.masks.flatten(1).any(dim=1)
    for name in detector.classes:
        of_class = torch.tensor([names[i] == name for i in mapped.positions.tolist()]) & defective
        if of_class.any():
            among = torch.nonzero(of_class).flatten()
            some = among[torch.linspace(0, len(among) - 1, min(SHOWN, len(among))).long()]
            images = as_float(test.images[mapped.positions[some]]).numpy()
            classes.append((label(name), images, mapped.maps[some].numpy(), mapped.masks[some].numpy()))
    heading = "Heat maps of defects; outlined what is defective (green) and found (cyan)"
    return Drawing.of("defects", classes, detector.heat_level, heading)
