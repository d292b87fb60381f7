"""What a training is shown by: losses, reconstructions, and images decoded from latents."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from anomaly_ae.autoencoders import Autoencoder
from anomaly_ae.autoencoders.inference import as_float, draw_latents, interpolate_latents, map_images
from anomaly_ae.detector.detector import Detector
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.reporting.figures.painter import save_figures
from anomaly_ae.reporting.figures.saving import GRID_IMAGES, SHOWN, Array, Drawing, grid
from anomaly_ae.runs.store import FIGURES, RunFolder
from anomaly_ae.training import Epoch

DRAWN_FROM = 4_096  # training images whose latents the samples are drawn after
ROWS = 4  # of samples, and of interpolations at the most


def shown_images(validation: ImageSet) -> Tensor:
    """The validation images that figures show, evenly spread."""
    return _even(validation.images, SHOWN)


def draw_training(
    history: Sequence[Epoch], detector: Detector, images: Mapping[str, ImageSet], untrained: Array
) -> dict[str, Drawing]:
    """The figures of a training, to be drawn, by name.

    untrained: what the network made of `shown_images` before training, float32 (N, C, H, W)
    """
    validation, fit = images["validation"], images["fit"].images
    some = shown_images(validation)
    original, after = as_float(some).numpy(), detector.reconstruct(some).numpy()
    pairs = [("original", original), ("before\ntraining", untrained), ("after\ntraining", after)]
    drawn = draw_latents(detector.encode(_even(fit, DRAWN_FROM)), ROWS * SHOWN, detector.config.seed)
    samples = [("", part.numpy()) for part in torch.split(detector.decode(drawn), SHOWN)]
    losses = [epoch.train_loss for epoch in history], [epoch.validation_loss for epoch in history]
    heading = "Normal validation images and their reconstructions"
    return {
        "loss_curves": Drawing.of("loss_curves", *losses),
        "reconstructions": Drawing.of("image_rows", original, after, None, (), heading),
        "before_and_after_training": Drawing.of("labelled_rows", pairs, "What training did to the reconstructions"),
        "interpolation": Drawing.of(
            "labelled_rows",
            _interpolations(detector, validation),
            "From image to image: the two themselves at the ends, decoded latents between them",
        ),
        "samples": Drawing.of(
            "labelled_rows",
            samples,
            "Decoded from latents drawn from a Gaussian fitted to those of the training images",
        ),
    }


def save_training_figures(
    run: RunFolder, detector: Detector, images: Mapping[str, ImageSet], untrained: Array
) -> None:
    """Draw the figures of a training into its run folder."""
    drawn = draw_training(run.history(), detector, images, untrained)
    save_figures(run.path / FIGURES, drawn, run.record.name)


def reconstruct(network: Autoencoder, images: Tensor) -> Array:
    """What a network makes of images now, float32 (N, C, H, W)."""
    return map_images(network, images, lambda _, outputs: outputs.reconstruction, tuple(images.shape[1:])).numpy()


def reconstruction_grid(network: Autoencoder, validation: Tensor) -> Array:
    """Some validation images above what the network makes of them now, uint8 (H, W) or (H, W, 3)."""
    some = _even(validation, GRID_IMAGES)
    return grid(as_float(some).numpy(), reconstruct(network, some))


def _interpolations(detector: Detector, images: ImageSet) -> list[tuple[str, Array]]:
    """Rows from an image of one class to one of another; of a single class, from its first image to its last."""
    classes = torch.unique(images.labels)
    firsts = torch.stack([torch.argmax((images.labels == label).int()) for label in classes])
    ends = torch.stack([firsts, firsts.roll(-1)], dim=1)[:ROWS] if len(classes) > 1 else torch.tensor([[0, -1]])
    rows = []
    for pair in ends:
        first, last = detector.encode(images.images[pair])
        between = detector.decode(interpolate_latents(first, last, SHOWN))[1:-1]
        start, end = as_float(images.images[pair])
        rows.append(("", torch.cat([start[None], between, end[None]]).numpy()))
    return rows


def _even(images: Tensor, count: int) -> Tensor:
    """At most `count` of the images, evenly spread."""
    return images[torch.linspace(0, len(images) - 1, min(count, len(images))).long()]
