"""Measuring a detector on labelled test images."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.inference import map_jointly
from anomaly_ae.calibration.odd import odd_normals
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import CLASS_AUROC, ClassRow, ErrorRow, Evaluation, FoundTogether, ScorerRow
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.detector.missed import find_missed
from anomaly_ae.detector.outputs import MSE, DetectorOutputs
from anomaly_ae.errors import UsageError
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.preprocessing import Preprocessed
from anomaly_ae.metrics.pixels import PixelRanking, pixel_ranking
from anomaly_ae.metrics.ranking import Bools, Floats, compare_auroc, ranking, require_numbers, verdicts
from anomaly_ae.runtime.printed import Columns
from anomaly_ae.scorers import SCORERS, build_scorer
from anomaly_ae.scorers.reconstruction import SquaredError
from anomaly_ae.scorers.scorer import sample
from anomaly_ae.storage.memmap import take_rows

MOST_MAP_PIXELS = 2**28  # of the heat maps that are measured against masks


@dataclass(frozen=True, eq=False)
class Mapped:
    """Test images whose defects are known to the pixel.

    indices:   among the test images, int64 (M,): those with a mask, and the normal ones
    maps:      their heat maps, float32 (M, H, W)
    masks:     their defective pixels, bool (M, H, W)
    """

    indices: Tensor
    maps: Tensor
    masks: Tensor


def map_defects(outputs: DetectorOutputs, test: ImageSet, masks: Tensor, is_labelled: Tensor) -> Mapped | None:
    """The heat maps of test images with masks, bool (N, H, W), where `is_labelled`, bool (N,), and of normal ones.

    They are evenly chosen if they are too many for the memory. None when the scorer has no heat map.
    """
    indices = torch.nonzero(is_labelled | torch.from_numpy(~novelty(outputs.detector, test))).flatten()
    most = max(1, MOST_MAP_PIXELS // masks[0].numel())
    indices = indices[torch.linspace(0, len(indices) - 1, min(most, len(indices))).long()]
    maps = outputs.anomaly_map(indices)
    return None if maps is None else Mapped(indices, maps, masks[indices])


def measure(outputs: DetectorOutputs, test: ImageSet, run_id: str | None, mapped: Mapped | None = None) -> Evaluation:
    """Measure what a detector makes of the labelled test images, and heat maps where defects are known."""
    detector, scores, errors = outputs.detector, outputs.scores, outputs.errors
    novel, values = novelty(detector, test), scores.numpy()
    require_numbers(values)
    alarms = (scores > detector.threshold).numpy()
    odd = odd_normals(detector.calibration)
    evaluation = Evaluation(
        run_id=run_id,
        dataset=detector.config.dataset,
        normal=list(detector.normal),
        scorer=str(detector.config.scorer),
        images=len(test),
        reconstruction_mse=None if novel.all() else float(errors[MSE][~novel].mean(dtype=float)),
        **_ranked(values, novel),
        threshold=detector.threshold,
        target_fpr=detector.calibration.target_fpr,
        calibration=detector.calibration.method,
        **dataclasses.asdict(verdicts(alarms, novel)),
        drift=detector.drift(scores[torch.from_numpy(~novel)]),
        **_measure_pixels(mapped, np.ones_like(novel)),
        per_class=[
            _measure_class(name, name not in detector.normal, values, alarms, novel, chosen, mapped)
            for label, name in enumerate(detector.classes)
            for chosen in [(test.labels == label).numpy()]
        ],
        threshold_warning=odd.about if odd else None,
        odd_normals=odd,
        calibration_images=0 if detector.calibration.chosen is not None else len(detector.calibration.scores),
        reconstruction_errors=_rank_errors(detector, {**errors, str(detector.config.scorer): values}, novel),
    )
    missed = find_missed(detector, evaluation, scores[torch.from_numpy(novel)])
    return dataclasses.replace(evaluation, missed=missed)


def _rank_errors(detector: Detector, scores: dict[str, Floats], novel: Bools) -> list[ErrorRow]:
    """How well each ranks, the detector's own first; nothing where there is nothing to rank."""
    if not novel.any() or novel.all():
        return []
    rankings = {name: ranking(scores[name], novel) for name in dict.fromkeys([str(detector.config.scorer), *scores])}
    together = "its parts together"
    return [
        ErrorRow(
            *(name, ranked.auroc, ranked.auroc_ci.low, ranked.auroc_ci.high),
            about=SCORERS[name].about if name in SCORERS else together,
        )
        for name, ranked in rankings.items()
    ]


def _ranked(values: Floats, novel: Bools) -> dict[str, Any]:
    """The figures of the ranking, by the names of `Evaluation`; None where there is nothing to rank."""
    names = ("auroc", "average_precision", "fpr_at_95_tpr", "partial_auroc")
    if not novel.any() or novel.all():
        return dict.fromkeys((*names, "auroc_ci", "auroc_ci_method"))
    ranked = ranking(values, novel)
    interval = ranked.auroc_ci
    return {name: getattr(ranked, name) for name in names} | {
        "auroc_ci": [interval.low, interval.high],
        "auroc_ci_method": interval.method,
    }


def _measure_pixels(mapped: Mapped | None, chosen: Bools) -> dict[str, Any]:
    """The figures of the heat maps of chosen test images, bool (N,), by the names of `Evaluation`."""
    if mapped is None:
        return dataclasses.asdict(PixelRanking(None, None, None))
    is_chosen = torch.from_numpy(chosen)[mapped.indices]
    return dataclasses.asdict(pixel_ranking(mapped.maps[is_chosen].numpy(), mapped.masks[is_chosen].numpy()))


def measure_discoveries(detector: Detector, test: ImageSet, scores: Tensor, fdr: float) -> FoundTogether:
    """What can be found in the test images together at a false discovery rate, and the share that is found wrongly.

    Raises `CalibrationError` unless the calibration is `marginal`.
    """
    novel, discoveries = novelty(detector, test), detector.discoveries(scores, fdr)
    is_found = discoveries.found.numpy()
    return FoundTogether(
        fdr=fdr,
        images=len(test),
        found=int(is_found.sum()),
        fewest_possible=discoveries.possible,
        images_needed=discoveries.needed,
        false_discovery_share=float((is_found & ~novel).sum() / is_found.sum()) if is_found.any() else None,
        detection_rate=verdicts(is_found, novel).true_positive_rate,
    )


def measure_scorers(
    detector: Detector,
    names: Sequence[str],
    trained_on: dict[str, ImageSet],
    test: ImageSet,
    scores: Tensor,
    mapped: Mapped | None = None,
) -> list[ScorerRow]:
    """Other scorers on the detector's network and the same test images: a row for each, the detector's own first.

    trained_on: its fit and validation images
    scores:     those of the detector, float32 (N,)
    Raises `UsageError` where a scorer does not suit the network, or all test images are normal.
    """
    novel, reference = novelty(detector, test), scores.numpy()
    if not novel.any() or novel.all():
        raise UsageError("scorers are compared by their AUROC, which takes normal and novel test images")
    everything = np.ones(len(test), bool)
    pixels = {} if mapped is None else _measure_pixels(mapped, everything)
    rows = [_scorer_row(detector, test, str(detector.config.scorer), reference, reference, None, pixels)]
    for name in names:
        started = time.perf_counter()
        both = trained_on["fit"].images, trained_on["validation"].images
        unfitted = build_scorer(name, folds=detector.config.folds)
        scorer = fit_scorer(unfitted, detector.network, *both, detector.config)
        values = scorer.score_all(detector.network, test.images).numpy()
        seconds = time.perf_counter() - started
        if mapped is not None:
            other = dataclasses.replace(detector, scorer=scorer)
            maps = other.anomaly_map(Preprocessed(test.images[mapped.indices]))
            pixels = _measure_pixels(None if maps is None else dataclasses.replace(mapped, maps=maps), everything)
        rows.append(_scorer_row(detector, test, name, values, reference, seconds, pixels))
    return rows


def _scorer_row(
    detector: Detector,
    test: ImageSet,
    name: str,
    scores: Floats,
    reference: Floats,
    seconds: float | None,
    pixels: Mapping[str, Any],
) -> ScorerRow:
    novel = novelty(detector, test)
    ranked, compared = ranking(scores, novel), compare_auroc(scores, reference, novel)
    classes = {
        f"{CLASS_AUROC}{name}": ranking(scores[against], chosen[against]).auroc
        for label, name in enumerate(detector.classes)
        if (chosen := (test.labels == label).numpy() & novel).any() and (against := chosen | ~novel).any()
    }
    return ScorerRow(
        scorer=name,
        auroc=ranked.auroc,
        auroc_low=ranked.auroc_ci.low,
        auroc_high=ranked.auroc_ci.high,
        fpr_at_95_tpr=ranked.fpr_at_95_tpr,
        difference=compared.difference,
        p_value=compared.p_value,
        no_p_value=compared.interval.method if compared.p_value is None else None,
        by_class=Columns(classes),
        seconds=seconds,
        pixels=Columns(pixels),
    )


def reconstruction_mse(detector: Detector, images: Tensor) -> float:
    """Mean squared reconstruction error of images (N, C, H, W), taken in [0, 1]."""
    errors = SquaredError().score_all(detector.network, images)
    return float(errors.double().mean())


def sample_latents(detector: Detector, images: Tensor, most: int) -> Tensor:
    """The latents, float32 (M, D), of at most so many of the images (N, C, H, W), evenly spread."""
    return detector.encode(Preprocessed(take_rows(images, sample(len(images), most))))


def mse_and_latents(detector: Detector, images: Tensor, most: int) -> tuple[float, Tensor]:
    """`reconstruction_mse` and `sample_latents`, in one pass where the sample is all."""
    if len(images) > most:
        return reconstruction_mse(detector, images), sample_latents(detector, images, most)

    def read(batch: Tensor, outputs: Outputs) -> list[Tensor]:
        return [SquaredError().score(batch, outputs), outputs.latent]

    errors, latents = map_jointly(detector.network, images, read)
    return float(errors.double().mean()), latents


def _measure_class(
    name: str,
    is_novel: bool,
    scores: Floats,
    alarms: Bools,
    novel: Bools,
    chosen: Bools,
    mapped: Mapped | None,
) -> ClassRow:
    """A row of the table by class."""
    alarm_rate = float(alarms[chosen].mean()) if chosen.any() else None
    can_be_ranked = is_novel and chosen.any() and not novel.all()
    ranked = ranking(scores[chosen | ~novel], chosen[chosen | ~novel]) if can_be_ranked else None
    return ClassRow(
        class_=name,
        role="novel" if is_novel else "normal",
        images=int(chosen.sum()),
        auroc=ranked.auroc if ranked else None,
        auroc_low=ranked.auroc_ci.low if ranked else None,
        auroc_high=ranked.auroc_ci.high if ranked else None,
        detection_rate=alarm_rate if is_novel else None,
        false_alarm_rate=None if is_novel else alarm_rate,
        **_measure_pixels(mapped, (chosen | ~novel) & chosen.any()),
    )


def novelty(detector: Detector, images: ImageSet) -> Bools:
    """Whether each image is of a class that is not normal, bool (N,)."""
    return ~np.isin(images.labels.numpy(), detector.normal_indices)


def class_names(detector: Detector, images: ImageSet) -> list[str]:
    """The class of each image, by name."""
    return [detector.classes[label] for label in images.labels.tolist()]
