"""What a training, an evaluation and a detector's work on a few images are shown by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.autoencoders import Autoencoder
from anomaly_ae.autoencoders.inference import draw_latents, forward_batches, interpolate_latents, perceive_all
from anomaly_ae.calibration.odd import odd_counts
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import Evaluation
from anomaly_ae.detector.fit import calibration_images, held_out
from anomaly_ae.detector.measuring import Mapped, class_names, novelty
from anomaly_ae.detector.outputs import DetectorOutputs
from anomaly_ae.errors import DataError
from anomaly_ae.escaping import counted, shown
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.preprocessing import Images, Preprocessed
from anomaly_ae.reporting.figures.painter import save_figures
from anomaly_ae.reporting.figures.saving import GRID_IMAGES, SHOWN, Array, Drawing, grid, label, plain
from anomaly_ae.runs.run_folder import FIGURES, RunFolder
from anomaly_ae.storage.pixel_values import as_float
from anomaly_ae.training import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_FROM = 4_096  # training images whose latents the samples are drawn after
SAMPLE_ROWS = 4  # of samples, and of interpolations at the most
USUAL_BESIDE = 3  # images beside odd ones
FEWEST_MAPPED, MAPPED = 3, 1_000  # latents that a plane can be laid through, and in a map at most


def shown_images(validation: ImageSet) -> Tensor:
    """The validation images that figures show, evenly spread."""
    return validation.images[_spread(len(validation), SHOWN)]


def _spread(count: int, most: int) -> Tensor:
    """At most so many indices of as many things as there are, evenly spread."""
    return torch.linspace(0, count - 1, min(most, count)).long()


def draw_training(
    history: Sequence[Epoch], detector: Detector, images: Mapping[str, ImageSet], untrained: Array
) -> dict[str, Drawing]:
    """The figures of a training but for `draw_samples`, to be drawn, by name.

    untrained: what the network made of `shown_images` before training, float32 (N, C, H, W)
    """
    validation = images["validation"]
    examples = shown_images(validation)
    original, after = as_float(examples).numpy(), detector.reconstruct(Preprocessed(examples)).numpy()
    pairs = [("original", original), ("before\ntraining", untrained), ("after\ntraining", after)]
    losses = [epoch.train_loss for epoch in history], [epoch.validation_loss for epoch in history]
    drawn = draw_odd_normals(detector, calibration_images(images, detector)) | {
        "loss_curves": Drawing.of("curves.loss_curves", *losses),
        "reconstructions": Drawing.of(
            "image_grids.image_rows",
            *(original, after, None, (), "Normal validation images and their reconstructions"),
        ),
        "before_and_after_training": _rows(pairs, "What training did to the reconstructions"),
    }
    if len(validation) > 1:  # there is another one to go to
        heading = "From image to image: the two themselves at the ends, decoded latents between them"
        drawn["interpolation"] = _rows(_interpolations(detector, validation), heading)
    return drawn


def draw_samples(detector: Detector, latents: Tensor) -> dict[str, Drawing]:
    """What the decoder makes of latents that are drawn as those of training images, float32 (M, D), may be."""
    drawn = draw_latents(latents, SAMPLE_ROWS * SHOWN, detector.config.seed)
    samples = [("", part.numpy()) for part in torch.split(detector.decode(drawn), SHOWN)]
    heading = "Decoded from latents drawn from a Gaussian fitted to those of the training images"
    return {"samples": _rows(samples, heading)}


def draw_odd_normals(detector: Detector, calibrating: Sequence[ImageSet]) -> dict[str, Drawing]:
    """The images of the calibration that look odd, beside usual ones; nothing where none does.

    calibrating: the images of each of its groups
    """
    calibration, counts = detector.calibration, odd_counts(detector.calibration)
    if not any(counts):
        return {}
    alone = [(detector.network, detector.scorer, images) for images in calibrating]
    judged = held_out(*alone[0]) if calibration.folds else alone
    scores = torch.cat([scorer.score_all(network, part.images) for network, scorer, part in judged])
    ordered = reduce(ImageSet.joined, [part for *_, part in judged])
    orders = [
        rows[scores[rows].argsort(descending=True, stable=True)]
        for rows in torch.split(torch.arange(len(scores)), [len(group) for group in calibration.by_group])
    ]
    odd = torch.cat([order[:count] for order, count in zip(orders, counts, strict=True)])
    odd = odd[scores[odd].argsort(descending=True, stable=True)]
    images, count = ordered.images, min(len(odd), SHOWN - USUAL_BESIDE)
    usual = orders[0][(len(orders[0]) - USUAL_BESIDE) // 2 :][:USUAL_BESIDE]
    chosen = torch.cat([odd[:count], usual])
    looks = ["odd"] * count + ["usual"] * USUAL_BESIDE
    titles = [f"{look}\nscore {score:.4g}" for look, score in zip(looks, scores[chosen].tolist(), strict=True)]
    shown_of = f" (the first {count} of {len(odd):,})" if count < len(odd) else ""
    heading = f"Normal images that look odd{shown_of}, and {USUAL_BESIDE} usual ones on the right"
    titles = _below_files(titles, chosen, ordered.names)
    return {"odd_normals": _detections(detector, images[chosen], titles, heading)}


def _below_files(titles: Sequence[str], chosen: Tensor, names: Sequence[bytes] | None) -> list[str]:
    """Titles of images below the names of their files, if they come from any."""
    if names is None:
        return list(titles)
    files = [label(shown(names[i]).rpartition("/")[2], 14) for i in chosen.tolist()]
    return [f"{file}\n{title}" for file, title in zip(files, titles, strict=True)]


def _rows(rows: Sequence[tuple[str, Array]], heading: str) -> Drawing:
    return Drawing.of("image_grids.labelled_rows", rows, heading)


def _interpolations(detector: Detector, images: ImageSet) -> list[tuple[str, Array]]:
    """Rows from an image of one class to one of another; of a single class, from its first image to its last."""
    firsts = first_of_each_class(images)
    ends = torch.stack([firsts, firsts.roll(-1)], dim=1)[:SAMPLE_ROWS] if len(firsts) > 1 else torch.tensor([[0, -1]])
    rows = []
    for pair in ends:
        first, last = detector.encode(Preprocessed(images.images[pair]))
        between = detector.decode(interpolate_latents(first, last, SHOWN))[1:-1]
        start, end = as_float(images.images[pair])
        rows.append(("", torch.cat([start[None], between, end[None]]).numpy()))
    return rows


def first_of_each_class(images: ImageSet) -> Tensor:
    """The index of the first image of each class, (classes,)."""
    return torch.from_numpy(np.unique(images.labels.numpy(), return_index=True)[1])


def save_training_figures(
    run: RunFolder, detector: Detector, images: Mapping[str, ImageSet], untrained: Array
) -> None:
    """Draw the figures of a training, see `draw_training`, into its run folder."""
    drawn = draw_training(run.history(), detector, images, untrained)
    save_figures(run.path / FIGURES, drawn, run.record.name)


def save_samples(run: RunFolder, detector: Detector, latents: Tensor) -> None:
    """Draw `draw_samples` into a run folder."""
    save_figures(run.path / FIGURES, draw_samples(detector, latents), run.record.name)


def reconstruct(network: Autoencoder, images: Tensor, perceived: Tensor | None = None) -> Array:
    """What a network makes of images now, float32 (N, C, H, W).

    perceived: what `perceive_all` gave of them, where it is at hand
    """
    parts = [outputs.reconstruction.cpu() for _, outputs in forward_batches(network, images, perceived)]
    return torch.cat(parts).numpy()


class ReconstructionGrid:
    """Some validation images above what a network makes of them, again and again while it is trained."""

    def __init__(self, network: Autoencoder, validation: Tensor) -> None:
        self.network, self.examples = network, validation[_spread(len(validation), GRID_IMAGES)]
        self.perceived = perceive_all(network, self.examples)  # once, for the training does not change it

    def draw(self) -> Array:
        """The grid as it is now, uint8 (H, W) or (H, W, 3)."""
        return grid(as_float(self.examples).numpy(), reconstruct(self.network, self.examples, self.perceived))


def draw_evaluation(
    outputs: DetectorOutputs, test: ImageSet, evaluation: Evaluation, mapped: Mapped | None = None
) -> dict[str, Drawing]:
    """The figures of an evaluation, to be drawn, by name."""
    detector = outputs.detector
    novel, values = novelty(detector, test), outputs.scores.numpy()
    names, threshold = [label(name) for name in class_names(detector, test)], detector.threshold
    drawn = {
        "score_histogram": Drawing.of(
            "distributions.score_histogram", values, novel, threshold, evaluation.target_fpr
        ),
        "score_by_class": Drawing.of("distributions.score_by_class", values, names, novel, threshold),
    }
    chosen = _spread(len(test), MAPPED)
    if len(chosen) >= FEWEST_MAPPED:
        latents = outputs.encode(chosen).numpy()
        mapped_names = [names[i] for i in chosen.tolist()]
        drawn["latent_map"] = Drawing.of("distributions.latent_map", latents, mapped_names, novel[chosen.numpy()])
    if evaluation.auroc is not None and evaluation.average_precision is not None:
        areas = evaluation.auroc, evaluation.average_precision
        at_threshold = evaluation.false_positive_rate, evaluation.true_positive_rate, evaluation.precision
        drawn["roc_and_precision_recall"] = Drawing.of(
            "curves.roc_and_precision_recall", values, novel, *areas, at_threshold
        )
    if mapped is not None and bool(mapped.masks.any()):
        drawn["defects"] = _defects(detector, test, mapped)
    return drawn | _extremes(outputs, test, torch.from_numpy(novel))


def _extremes(outputs: DetectorOutputs, test: ImageSet, novel: Tensor) -> dict[str, Drawing]:
    """The images that score highest and lowest, the normal ones that come nearest to an alarm or raise one, and the
    novel ones nearest to being missed, with the name of its file, if it is one, class and score above each.
    """
    detector, scores = outputs.detector, outputs.scores
    alarms, order = scores > detector.threshold, scores.argsort(descending=True, stable=True)
    wrong, missed = int((alarms & ~novel).sum()), int((~alarms & novel).sum())
    normal_first, novel_last = order[~novel[order]], order.flip(0)[novel[order.flip(0)]]
    orders = {
        "most_anomalous": (order, "The most anomalous test images"),
        "least_anomalous": (order.flip(0), "The least anomalous test images"),
        "false_alarms": (normal_first, f"Normal test images that score highest: {counted(wrong, 'false alarm')}"),
        "missed": (novel_last, f"Novel test images that score lowest: {missed:,} missed"),
    }
    chosen = {name: (rows[:SHOWN], heading) for name, (rows, heading) in orders.items() if len(rows)}
    shown_once, positions = torch.unique(torch.cat([rows for rows, _ in chosen.values()]), return_inverse=True)
    taken = test.take(shown_once)
    seen = _Seen.of(detector, taken.images, *outputs.reconstruct_and_map(shown_once))
    titles = [
        f"{label(name, 14)}\nscore {score:.2f}"
        for name, score in zip(class_names(detector, taken), scores[shown_once].tolist(), strict=True)
    ]
    titles = _below_files(titles, shown_once, test.names)
    parts = torch.split(positions, [len(rows) for rows, _ in chosen.values()])
    return {
        name: seen.drawing(at, [titles[i] for i in at.tolist()], heading)
        for (name, (_, heading)), at in zip(chosen.items(), parts, strict=True)
    }


@dataclass(frozen=True)
class _Seen:
    """Images, (N, C, H, W), their reconstructions, heat maps, if there are any, and how hot is too much."""

    images: Array
    rebuilt: Array
    maps: Array | None
    level: float | None

    @classmethod
    def of(cls, detector: Detector, images: Tensor, rebuilt: Tensor, heat: Tensor | None) -> "_Seen":
        """Images of a detector's size, uint8 or float in [0, 1], with what its `reconstruct_and_map` gave of them."""
        maps = None if heat is None else heat.numpy()
        return cls(as_float(images).numpy(), rebuilt.numpy(), maps, detector.heat_level)

    def drawing(self, at: Tensor, titles: Sequence[str], heading: str) -> Drawing:
        """Those at the positions `at`, with what the detector makes of them below, a few words above each."""
        rows = at.numpy()
        maps = None if self.maps is None else self.maps[rows]
        return Drawing.of(
            "image_grids.image_rows", self.images[rows], self.rebuilt[rows], maps, titles, heading, self.level
        )


def _detections(detector: Detector, images: Tensor, titles: Sequence[str], heading: str) -> Drawing:
    """Images at the detector's size, (N, C, H, W), and below them what it makes of them, a few words above each."""
    seen = _Seen.of(detector, images, *detector.reconstruct_and_map(Preprocessed(images)))
    return seen.drawing(torch.arange(len(images)), titles, heading)


def _defects(detector: Detector, test: ImageSet, mapped: Mapped) -> Drawing:
    """Some images of every class with masks, with heat map, contour and the true outline."""
    names, classes = class_names(detector, test), []
    defective = mapped.masks.flatten(1).any(dim=1)
    for name in detector.classes:
        of_class = torch.tensor([names[i] == name for i in mapped.indices.tolist()]) & defective
        if of_class.any():
            indices = torch.nonzero(of_class).flatten()
            chosen = indices[_spread(len(indices), SHOWN)]
            images = as_float(test.images[mapped.indices[chosen]]).numpy()
            classes.append((label(name), images, mapped.maps[chosen].numpy(), mapped.masks[chosen].numpy()))
    heading = "Heat maps of defects; outlined what is defective (green) and found (cyan)"
    return Drawing.of("image_grids.defects", classes, detector.heat_level, heading)


def plot(detector: Detector, images: Images) -> "Figure":
    """Draw the first images, at most 10, with reconstruction, error, heat map, score, p-value and verdict.

    Args:
        detector: what judges them
        images: what `Detector.score` takes, (N, C, H, W)

    Raises:
        DataError: they are no images, or none

    Examples:
        >>> import anomaly_ae
        >>> from sklearn.datasets import load_digits
        >>> images = load_digits().images[:10, None] / 16
        >>> figure = anomaly_ae.plot(anomaly_ae.load("latest"), images)  # of Matplotlib
        >>> figure.savefig("digits.png")
    """
    prepared = detector.preprocessing.prepare(images)
    if not len(prepared):
        raise DataError("there is no image to draw among these")
    first = prepared[:SHOWN]
    scores = detector.score(Preprocessed(first))
    titles = [
        f"score {score:.4g}\np {p:.2g}\n{'anomalous' if score > detector.threshold else 'normal'}"
        for score, p in zip(scores.tolist(), detector.p_values(scores).tolist(), strict=True)
    ]
    count = f", the first {len(first)} of {len(prepared):,} images" if len(first) < len(prepared) else ""
    heading = f"{plain(detector.name)}, threshold {detector.threshold:.4g}{count}"
    return _detections(detector, first, titles, heading).draw()
