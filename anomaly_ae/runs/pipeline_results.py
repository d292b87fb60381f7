"""What a pipeline comes to: tables as rows. Nothing here needs PyTorch, as in `run_results`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from anomaly_ae.runtime.printed import Columns, Printed, from_dict


@dataclass(frozen=True)
class SystemRow:
    """A system in the comparison of a pipeline, by its first cell; figures are None where they were not measured.

    `train_mse` and so on are mean squared reconstruction errors of images in [0, 1], `train_mse_own` and so on those
    on the network's own scale.

    Attributes:
        columns: the AUROC of every set of normal classes with its interval, then the source's last figure, if any
    """

    system: str
    dataset: str
    normal: str
    objective: str | None
    encoder_parameters: int | None
    decoder_parameters: int | None
    epochs: int | None
    seconds: float | None
    train_mse: float | None
    validation_mse: float | None
    test_mse: float | None
    train_mse_own: float | None
    validation_mse_own: float | None
    test_mse_own: float | None
    columns: Columns


@dataclass(frozen=True)
class PublishedRow:
    """A published figure: the source's number, ours, and the difference."""

    system: str
    measure: str
    source: float
    ours: float | None
    difference: float | None


@dataclass(frozen=True)
class CellRow:
    """A cell of a pipeline: settings that tell it apart, sizes, times, errors, AUROC with interval."""

    cell: str
    run: str
    status: str
    normal: str
    autoencoder: str | None
    objective: str | None
    scorer: str | None
    seed: int
    epochs: int | None
    seconds: float | None
    train_mse: float | None
    validation_mse: float | None
    test_mse: float | None
    train_mse_own: float | None
    validation_mse_own: float | None
    test_mse_own: float | None
    encoder_parameters: int | None
    decoder_parameters: int | None
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None


@dataclass(frozen=True)
class ScorerMeans:
    """A scorer of a system over the cells of a pipeline: its mean AUROC with a 95 % interval, in how many cells it is
    better or worse than the cell's own scorer, and the AUROC by normal or novel classes,
    None where a cell is missing.
    """

    system: str
    scorer: str
    auroc: float
    low: float | None
    high: float | None
    seeds: int
    better: int
    worse: int
    cells: int
    by_class: Columns


@dataclass(frozen=True)
class ClassMeans:
    """A novel class of a detector in a pipeline, such as a kind of defect, or all of them together: means over seeds.

    Attributes:
        system: the detector, whatever its seed
        images: of this class, in the first seed's test images
        low: to high, the 95 % interval of the AUROC, against all normal test images, by DeLong, of its mean over the
            seeds; `bootstrap_low` to `bootstrap_high` that by the bootstrap. They are for other test images, not for
            other networks; None where the seeds were tested on different images
        pixel_auroc: of the heat maps, as are the next two; None without masks or heat map
    """

    system: str
    class_: str
    images: int
    seeds: int
    auroc: float
    low: float | None
    high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    detection_rate: float
    false_alarm_rate: float
    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None


@dataclass(frozen=True)
class PipelineResult(Printed):
    """What a pipeline came to: tables as rows, and cells that failed with the reason."""

    run_id: str
    name: str
    comparison: list[SystemRow]
    published: list[PublishedRow]
    cells: list[CellRow]
    scorers: list[ScorerMeans]
    classes: list[ClassMeans]
    failed: dict[str, str]
    run_folder: str

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "PipelineResult":
        """That of a run's `result.json`."""
        rows = {
            "comparison": SystemRow,
            "published": PublishedRow,
            "cells": CellRow,
            "scorers": ScorerMeans,
            "classes": ClassMeans,
        }
        typed: dict[str, Any] = {
            name: [from_dict(kind, row) for row in content.get(name) or []] for name, kind in rows.items()
        }
        return replace(from_dict(cls, content), **typed)
