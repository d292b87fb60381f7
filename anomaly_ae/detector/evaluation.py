"""Measuring a detector on labelled test images: the figures, the tables and the pictures."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.inference import as_float, map_images
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.fit import fit_scorer
from anomaly_ae.errors import UsageError
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.sources import shown
from anomaly_ae.metrics.pixels import PixelRanking, pixel_ranking
from anomaly_ae.metrics.ranking import Bools, Floats, compare_auroc, ranking, require_numbers, verdicts
from anomaly_ae.reporting import figures, text
from anomaly_ae.scorers import SCORERS, build_scorer
from anomaly_ae.scorers.reconstruction import SquaredError
from anomaly_ae.storage.atomic import write_csv, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MSE = "mse"
PLAIN = (MSE, "relative")  # reconstruction errors without learning, to see what the scorer adds to them
FEWEST_MAPPED = 3  # latents that a plane can be laid through
MOST_PIXELS = 2**28  # of the heat maps that are measured against masks


@dataclass(frozen=True)
class Evaluation(text.Printed):
    """What was measured on the test images; rates and areas in [0, 1], None where undefined.

    reconstruction_mse: mean squared reconstruction error of the normal test images, in [0, 1]
    calibration: the guarantee in words
    drift: how the scores of the normal test images lie to those of the calibration, see `Drift`; None if too few
    pixel_auroc, pixel_average_precision, pro: of the heat maps against masks of the defects, see `PixelRanking`; None
    without masks or heat map; in `per_class` of the class and all normal test images
    per_class: a row for each class, be it without test images: its AUROC against all normal test images and its
    detection rate if it is novel, its false-alarm rate if it is normal
    calibration_images: how many set the threshold; 0 where it was chosen
    threshold_warning: where one calibration image alone sets the threshold, that it does
    reconstruction_errors: a row for the detector's scorer and each plain reconstruction error, on the same
    images, with AUROC and what it is; none if there is nothing to rank
    discoveries: what was found in the test images together, where a false discovery rate was asked for
    beside: a row for each scorer that was measured beside the detector's own, see `compare_scorers`
    """

    _text = staticmethod(text.evaluated)

    run_id: str | None
    dataset: str
    normal: list[str]
    scorer: str
    images: int
    reconstruction_mse: float | None
    auroc: float | None
    auroc_ci: list[float] | None
    auroc_ci_method: str | None
    average_precision: float | None
    fpr_at_95_tpr: float | None
    partial_auroc: float | None
    threshold: float
    target_fpr: float
    calibration: str
    false_positive_rate: float | None
    true_positive_rate: float | None
    precision: float | None
    f1: float | None
    drift: dict[str, Any] | None
    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None
    per_class: list[dict[str, Any]]
    threshold_warning: str | None
    reconstruction_errors: list[dict[str, Any]]
    discoveries: dict[str, Any] | None = None
    beside: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    calibration_images: int = 0


@dataclass(frozen=True, eq=False)
class Mapped:
    """Test images whose defects are known to the pixel.

    positions: among the test images, int64 (M,): those with a mask, and the normal ones
    maps:      their heat maps, float32 (M, H, W)
    masks:     their defective pixels, bool (M, H, W)
    """

    positions: Tensor
    maps: Tensor
    masks: Tensor


def map_defects(detector: Detector, test: ImageSet, masks: Tensor, known: Tensor) -> Mapped | None:
    """The heat maps of test images with masks, bool (N, H, W), where `known`, bool (N,), and of the normal ones.

    They are evenly chosen if they are too many for the memory. None when the scorer has no heat map.
    """
    positions = torch.nonzero(known | torch.from_numpy(~novelty(detector, test))).flatten()
    most = max(1, MOST_PIXELS // masks[0].numel())
    positions = positions[torch.linspace(0, len(positions) - 1, min(most, len(positions))).long()]
    maps = detector.heat_map(test.images[positions])
    return None if maps is None else Mapped(positions, maps, masks[positions])


def measure(
    detector: Detector, test: ImageSet, scores: Tensor, run_id: str | None, mapped: Mapped | None = None
) -> Evaluation:
    """Measure scores, float32 (N,), of the labelled test images, and heat maps where defects are known."""
    novel, values = novelty(detector, test), scores.numpy()
    require_numbers(values)
    alarms = (scores > detector.threshold).numpy()
    errors = _plain_errors(detector, test.images)
    return Evaluation(
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
        drift=_drift(detector, scores[torch.from_numpy(~novel)]),
        **_measure_pixels(mapped, np.ones_like(novel)),
        per_class=[
            _measure_class(name, name not in detector.normal, values, alarms, novel, chosen)
            | _measure_pixels(mapped, (chosen | ~novel) & chosen.any())
            for position, name in enumerate(detector.classes)
            for chosen in [(test.labels == position).numpy()]
        ],
        threshold_warning=detector.calibration.warning,
        calibration_images=0 if detector.calibration.chosen is not None else len(detector.calibration.scores),
        reconstruction_errors=_rank_errors(detector, errors | {str(detector.config.scorer): values}, novel),
    )


def _plain_errors(detector: Detector, images: Tensor) -> dict[str, Floats]:
    """The plain reconstruction errors of images (N, C, H, W) by the names of their scorers, (N,)."""
    scorers = [SCORERS[name].build() for name in PLAIN]

    def read(pixels: Tensor, outputs: Outputs) -> Tensor:
        return torch.stack([scorer.score(pixels, outputs) for scorer in scorers], dim=1)

    found = map_images(detector.network, images, read, (len(PLAIN),)).numpy()
    return {name: found[:, i] for i, name in enumerate(PLAIN)}


def _rank_errors(detector: Detector, scores: dict[str, Floats], novel: Bools) -> list[dict[str, Any]]:
    """How well each ranks, the detector's own first; nothing where there is nothing to rank."""
    if not novel.any() or novel.all():
        return []
    own = str(detector.config.scorer)
    ranked = {name: ranking(scores[name], novel) for name in dict.fromkeys([own, *scores])}
    return [
        {
            "scorer": name,
            "auroc": found.auroc,
            "auroc_low": found.auroc_ci.low,
            "auroc_high": found.auroc_ci.high,
            "about": SCORERS[name].about if name in SCORERS else "its parts' logarithms, standardised, together",
        }
        for name, found in ranked.items()
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
    among = torch.from_numpy(chosen)[mapped.positions]
    return dataclasses.asdict(pixel_ranking(mapped.maps[among].numpy(), mapped.masks[among].numpy()))


def _drift(detector: Detector, scores: Tensor) -> dict[str, Any] | None:
    drift = detector.drift(scores)
    return None if drift is None else dataclasses.asdict(drift)


def measure_discoveries(detector: Detector, test: ImageSet, scores: Tensor, fdr: float) -> dict[str, Any]:
    """What can be found in the test images together at a false discovery rate, and the share that is found wrongly.

    Raises `CalibrationError` unless the calibration is `marginal`.
    """
    novel, discoveries = novelty(detector, test), detector.discoveries(scores, fdr)
    found = discoveries.found.numpy()
    return {
        "fdr": fdr,
        "images": len(test),
        "found": int(found.sum()),
        "fewest_possible": discoveries.possible,
        "images_needed": discoveries.needed,
        "false_discovery_share": float((found & ~novel).sum() / found.sum()) if found.any() else None,
        "detection_rate": verdicts(found, novel).true_positive_rate,
    }


def compare_scorers(
    detector: Detector,
    names: Sequence[str],
    known: dict[str, ImageSet],
    test: ImageSet,
    scores: Tensor,
    mapped: Mapped | None = None,
) -> list[dict[str, Any]]:
    """Other scorers on the detector's network and the same test images: a row for each, the detector's own first.

    known:  its fit and validation images
    scores: those of the detector, float32 (N,)
    A row has AUROC with interval, FPR@95TPR, the AUROC of each novel class, DeLong's test against the detector's own
    scores, the seconds it took to fit and to score, and where defects are known, `mapped`, the figures of its heat
    map, None where it has none. Raises `UsageError` where a scorer does not suit the network,
    or all test images are normal.
    """
    novel, own = novelty(detector, test), scores.numpy()
    if not novel.any() or novel.all():
        raise UsageError("scorers are compared by their AUROC, which takes normal and novel test images")
    pixels = _measure_map(detector, test, mapped)
    rows = [_beside_row(detector, test, str(detector.config.scorer), own, own) | {"seconds": None} | pixels]
    for name in names:
        started = time.perf_counter()
        both = known["fit"].images, known["validation"].images
        scorer = fit_scorer(build_scorer(name), detector.network, *both, detector.config.trim_training)
        values = map_images(detector.network, test.images, scorer.score, ()).numpy()
        seconds = time.perf_counter() - started
        pixels = _measure_map(dataclasses.replace(detector, scorer=scorer), test, mapped)
        rows.append(_beside_row(detector, test, name, values, own) | {"seconds": seconds} | pixels)
    return rows


def _measure_map(detector: Detector, test: ImageSet, mapped: Mapped | None) -> dict[str, Any]:
    """The figures of a detector's heat maps where defects are known; nothing where none are."""
    if mapped is None:
        return {}
    maps = detector.heat_map(test.images[mapped.positions])
    found = None if maps is None else dataclasses.replace(mapped, maps=maps)
    return _measure_pixels(found, np.ones(len(test), bool))


def _beside_row(detector: Detector, test: ImageSet, name: str, scores: Floats, own: Floats) -> dict[str, Any]:
    novel = novelty(detector, test)
    ranked, compared = ranking(scores, novel), compare_auroc(scores, own, novel)
    classes = {
        f"auroc {name}": ranking(scores[against], chosen[against]).auroc
        for position, name in enumerate(detector.classes)
        if (chosen := (test.labels == position).numpy() & novel).any() and (against := chosen | ~novel).any()
    }
    return {
        "scorer": name,
        "auroc": ranked.auroc,
        "auroc_low": ranked.auroc_ci.low,
        "auroc_high": ranked.auroc_ci.high,
        "fpr_at_95_tpr": ranked.fpr_at_95_tpr,
        "difference": compared.difference,
        "p_value": compared.p_value,
        "no_p_value": compared.interval.method if compared.p_value is None else None,
    } | classes


def reconstruction_mse(detector: Detector, images: Tensor) -> float:
    """Mean squared reconstruction error of images (N, C, H, W), taken in [0, 1]."""
    errors = map_images(detector.network, images, SquaredError().score, ())
    return float(errors.double().mean())


def _measure_class(
    name: str, is_novel: bool, scores: Floats, alarms: Bools, novel: Bools, chosen: Bools
) -> dict[str, Any]:
    """A row of the table by class."""
    alarm_rate = float(alarms[chosen].mean()) if chosen.any() else None
    can_be_ranked = is_novel and chosen.any() and not novel.all()
    ranked = ranking(scores[chosen | ~novel], chosen[chosen | ~novel]) if can_be_ranked else None
    return {
        "class": name,
        "role": "novel" if is_novel else "normal",
        "images": int(chosen.sum()),
        "auroc": ranked.auroc if ranked else None,
        "auroc_low": ranked.auroc_ci.low if ranked else None,
        "auroc_high": ranked.auroc_ci.high if ranked else None,
        "detection_rate": alarm_rate if is_novel else None,
        "false_alarm_rate": None if is_novel else alarm_rate,
    }


def write_tables(folder: Path, detector: Detector, test: ImageSet, scores: Tensor, evaluation: Evaluation) -> None:
    """Write what was measured as JSON and CSV, and the score of every test image."""
    whole = evaluation.to_dict()
    single = {key: value for key, value in whole.items() if not isinstance(value, list)}
    columns = {
        "index": list(range(len(test))) if test.names else detector.split.test.indices.tolist(),
        **({"path": [shown(name) for name in test.names]} if test.names else {}),
        "class": class_names(detector, test),
        "is_novel": novelty(detector, test).tolist(),
        "score": scores.tolist(),
        "p_value": detector.p_values(scores).tolist(),
        "guarantee": [detector.calibration.guarantee] * len(test),
        "is_anomaly": (scores > detector.threshold).tolist(),
    }
    write_csv(folder / "metrics.csv", [{"metric": key, "value": value} for key, value in single.items()])
    write_csv(folder / "per_class.csv", evaluation.per_class)
    if evaluation.beside:
        write_csv(folder / "beside.csv", evaluation.beside)
    rows = zip(*columns.values(), strict=True)
    write_csv(folder / "scores.csv", [dict(zip(columns, row, strict=True)) for row in rows])
    write_json(folder / "metrics.json", whole)  # last: where it is, everything is


def draw(
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


def novelty(detector: Detector, images: ImageSet) -> Bools:
    """Whether each image is of a class that is not normal, bool (N,)."""
    return ~np.isin(images.labels.numpy(), detector.normal_indices)


def class_names(detector: Detector, images: ImageSet) -> list[str]:
    """The class of each image, by name."""
    return [detector.classes[label] for label in images.labels.tolist()]
