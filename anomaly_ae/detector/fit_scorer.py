"""What a scorer learns of the images that a network was trained on."""

import copy
import dataclasses
from collections import deque
from functools import partial

import torch
from torch import Tensor

from anomaly_ae.augmentation.transforms import build_augmentation, varied_copies
from anomaly_ae.autoencoders import Autoencoder
from anomaly_ae.autoencoders.autoencoder import Prepared
from anomaly_ae.autoencoders.inference import exact_float32, forward_batches, map_latents, perceive_all
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.runtime.torch_state import thread_map
from anomaly_ae.scorers import Scorer
from anomaly_ae.scorers.fold_scorer import FoldScorer
from anomaly_ae.scorers.scorer import ImageBatches, sample
from anomaly_ae.storage.memmap import fits_in_memory, take_rows

FOLDS_AT_ONCE = 2  # on the CPU, for each takes a copy of what it learns from
REFERENCES = 500  # images by which it is told which others are unusual


def fit_scorer(
    scorer: Scorer,
    network: Autoencoder,
    fit_images: Tensor,
    validation: Tensor,
    config: RunConfig,
    prepared: Prepared | None = None,
) -> Scorer:
    """The scorer, fitted to what a network makes of images, uint8 (N, C, H, W), varied as in its training.

    config: of that training; with `trim_training`, the fit images that score highest among the others are left out
    prepared: what `prepare` gave of the images, where it is at hand
    Raises `UsageError` when the network's outputs lack what it needs, `NotImplementedError` when the scorer could not
    be loaded again, or its scores are none.
    """
    if config.trim_training and len(fit_images) > 1:
        fit_images = take_rows(fit_images, _usual(scorer, network, fit_images, validation, config))
        prepared = None
    varied, seen, seen_validation, _ = prepared or _perceived(network, fit_images, validation, config)
    if network.perceived_shape:  # without what only the training goes by
        seen, seen_validation = (each[:, : network.perceived_shape[0]] for each in (seen, seen_validation))
    learners, parts = network.learners(len(varied)), scorer.parts if isinstance(scorer, FoldScorer) else [scorer]

    def learn(learner: tuple[Autoencoder, Tensor], part: Scorer) -> None:
        (own, rows), decoded = learner, part.reads_reconstruction
        fit_set = _batches(own, *_take(varied, seen, rows), decoded)
        _fit_one(part, own, fit_set, _batches(own, validation, seen_validation, decoded))

    pairs = [*zip(learners, parts, strict=True)]
    on_cpu = next(network.parameters()).device.type == "cpu"
    room = fits_in_memory((FOLDS_AT_ONCE, varied.nbytes + seen.nbytes))  # for what each takes of them
    with thread_map(min(len(pairs), FOLDS_AT_ONCE) if on_cpu and room else 1) as run:
        deque(run(lambda pair: learn(*pair), pairs), maxlen=0)
    return scorer


def _perceived(network: Autoencoder, fit_images: Tensor, validation: Tensor, config: RunConfig) -> Prepared:
    """What a trained network perceives of the images, varied as in its training."""
    varied = varied_copies(fit_images, build_augmentation(config.augment), network.copies, config.seed)
    return Prepared(varied, perceive_all(network, varied), perceive_all(network, validation))


def _take(images: Tensor, perceived: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Those rows of images and of what is perceived of them, with no more copies than there must be: none where the
    rows are all, and one where what is perceived are the images.
    """
    if len(rows) == len(images):
        return images, perceived
    taken = take_rows(images, rows)
    return taken, taken if perceived is images else take_rows(perceived, rows)


def _batches(network: Autoencoder, images: Tensor, perceived: Tensor, decoded: bool) -> ImageBatches:
    decode = partial(map_latents, network, shape=(images.shape[1], *images.shape[2:]))
    return ImageBatches(len(images), partial(forward_batches, network, images, perceived, decoded), decode)


def _fit_one(scorer: Scorer, network: Autoencoder, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
    with torch.inference_mode(), exact_float32(next(network.parameters()).device.type):
        images, outputs = next(iter(validation_set))
        images, outputs = images[:1], outputs.first(1)
        for part in scorer.iter_parts():
            part.check(outputs)
        scorer.fit(fit_set, validation_set)
        forgotten = scorer.state().keys() - scorer.specs(images, outputs).keys()
        shape = tuple(scorer.score(images, outputs).shape)
    if forgotten:
        raise NotImplementedError(f"the specs of {type(scorer).__name__} lack what it learns: {', '.join(forgotten)}")
    if shape != (1,):
        raise NotImplementedError(f"the scores of {type(scorer).__name__} have the shape {shape}, and not (N,)")


def _usual(scorer: Scorer, network: Autoencoder, fit_images: Tensor, validation: Tensor, config: RunConfig) -> Tensor:
    """Indices of the fit images but for the share `trim_training` of them, those with the highest scores.

    Each half is scored by what was learned from some of the other half, for nothing is novel to a memory that holds
    it; some, for what is rare must not find many of its kind there.
    """
    scores, untrimmed = torch.empty(len(fit_images)), dataclasses.replace(config, trim_training=0.0)
    for half in range(2):
        others = fit_images[1 - half :: 2]
        references = others[sample(len(others), REFERENCES)]
        judge = fit_scorer(copy.deepcopy(scorer), network, references, validation, untrimmed)
        scores[half::2] = judge.score_all(network, fit_images[half::2])
    kept = len(fit_images) - round(config.trim_training * len(fit_images))
    return scores.topk(kept, largest=False).indices.sort().values
