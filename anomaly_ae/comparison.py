"""Cells of a pipeline side by side: what each came to as tables and pictures."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from anomaly_ae import figures
from anomaly_ae.autoencoders.inference import as_float
from anomaly_ae.data.named import load_dataset
from anomaly_ae.detector import Detector
from anomaly_ae.plan import Cell
from anomaly_ae.runs import FINISHED, RunFolder


@dataclass(frozen=True)
class Done:
    """A cell and its run."""

    cell: Cell
    run: RunFolder

    def measures(self) -> dict[str, Any]:
        """What was measured, by the names that pipeline files use; losses at an epoch as `train_loss@10`."""
        result, test = (_read(self.run, name) for name in ("result.json", "evaluation/metrics.json"))
        span = result.get("span", 1.0)
        mse = {
            "train_mse": result.get("train_mse"),
            "validation_mse": result.get("validation_mse"),
            "test_mse": test.get("reconstruction_mse"),
        }
        own = {f"{name}_own": value and value * span**2 for name, value in mse.items()}
        losses = {
            f"{part}_loss@{epoch.epoch}": getattr(epoch, f"{part}_loss")
            for epoch in self.run.history()
            for part in ("train", "validation")
        }
        sizes = {key: result.get(key) for key in ("encoder_parameters", "decoder_parameters")}
        return mse | own | sizes | losses | {"auroc": test.get("auroc")}


def cell_table(done: Sequence[Done]) -> list[dict[str, Any]]:
    """A row for each cell: settings that tell it apart, sizes, times, errors."""
    rows = []
    for each in done:
        measured, result = each.measures(), _read(each.run, "result.json")
        config = each.run.config
        about = {
            "cell": each.cell.name,
            "run": each.run.record.id,
            "status": each.run.record.status,
            "normal": config.normal,
            "autoencoder": config.autoencoder,
            "objective": config.objective,
            "scorer": config.scorer,
            "seed": config.seed,
            "epochs": result.get("epochs"),
            "seconds": result.get("train_seconds"),
        }
        rows.append(about | {key: value for key, value in measured.items() if "@" not in key})
    return rows


def comparison(done: Sequence[Done]) -> list[dict[str, Any]]:
    """A row for each system: what its first cell came to, and the AUROC of every set of normal classes."""
    rows: dict[str, dict[str, Any]] = {}
    for each in done:
        measured, result = each.measures(), _read(each.run, "result.json")
        if each.cell.row not in rows:
            sizes = ("encoder_parameters", "decoder_parameters")
            errors = [f"{part}_mse{scale}" for scale in ("", "_own") for part in ("train", "validation", "test")]
            about = {"system": each.cell.row, "objective": each.run.config.objective}
            about |= {key: measured[key] for key in sizes}
            about |= {"epochs": result.get("epochs"), "seconds": result.get("train_seconds")}
            rows[each.cell.row] = about | {key: measured[key] for key in errors}
        if measured["auroc"] is not None:
            rows[each.cell.row][f"auroc {each.run.config.normal}"] = measured["auroc"]
    columns = dict.fromkeys(key for row in rows.values() for key in row)
    return [{key: row.get(key) for key in columns} for row in rows.values()]


def published_table(done: Sequence[Done]) -> list[dict[str, Any]]:
    """A row for each published figure: the source's number, ours, and the difference."""
    rows = []
    for each in done:
        measured = each.measures()
        for measure, theirs in each.cell.published.items():
            ours = measured.get(measure)
            difference = None if ours is None else ours - theirs
            about = {"system": each.cell.row, "measure": measure, "source": theirs}
            rows.append(about | {"ours": ours, "difference": difference})
    return rows


def draw_comparison(done: Sequence[Done]) -> dict[str, Figure]:
    """Loss curves of all systems in one plot, and a grid with a row of reconstructions each."""
    first = list({each.cell.row: each for each in reversed(done)}.values())[::-1]
    histories = [(f"{each.cell.row} ({each.run.config.objective})", each.run.history()) for each in first]
    return {"loss_curves": figures.compared_losses(histories)} | _reconstructions(first)


def _reconstructions(done: Iterable[Done]) -> dict[str, Figure]:
    """For each data set, what its systems make of the same test images."""
    drawn = {}
    finished = [each for each in done if each.run.record.status == FINISHED]
    for dataset in dict.fromkeys(each.run.config.dataset for each in finished):
        rows: list[tuple[str, figures.Array]] = []
        for each in (each for each in finished if each.run.config.dataset == dataset):
            detector = Detector.load(each.run.detector_folder(), "cpu")
            data = load_dataset(dataset, each.run.config.data_dir)
            test = detector.split.test.take(data)
            shown = test.take(_first_of_each(test.labels)[: figures.SHOWN])
            if not rows:
                rows.append(("original", as_float(shown.images).numpy()))
            rows.append((each.cell.row.replace(" · ", "\n"), detector.reconstruct(shown.images).numpy()))
        drawn[f"reconstructions_{dataset}"] = figures.labelled_rows(rows, f"Test images of {dataset}, reconstructed")
    return drawn


def _first_of_each(labels: Tensor) -> Tensor:
    """The position of the first image of each class, (classes,)."""
    is_class = labels[:, None] == torch.unique(labels)  # (N, classes)
    return torch.argmax(is_class.int(), dim=0)


def _read(run: RunFolder, name: str) -> dict[str, Any]:
    """A JSON object of a run folder, empty where there is none."""
    path = run.path / name
    return dict(json.loads(path.read_text())) if path.exists() else {}
