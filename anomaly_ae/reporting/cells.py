"""Cells of a pipeline side by side: what each came to as tables and pictures."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anomaly_ae.autoencoders.inference import as_float
from anomaly_ae.datasets.catalogue import open_data
from anomaly_ae.detector.detector import Detector
from anomaly_ae.escaping import short_name
from anomaly_ae.reporting import figures
from anomaly_ae.reporting.comparison import read_scores
from anomaly_ae.runs.pipeline_file import Cell
from anomaly_ae.runs.record import FINISHED
from anomaly_ae.runs.run_results import CellRow, KeptEvaluation, PublishedRow, SystemRow
from anomaly_ae.runs.store import RunFolder
from anomaly_ae.runtime.printed import Columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AUROC = ("auroc", "auroc_low", "auroc_high")
MOST_CURVES = 12  # in one plot
COLUMNS_AT_THE_END = ("measure", "source", "ours", "difference")


@dataclass(frozen=True)
class Done:
    """A cell and its run."""

    cell: Cell
    run: RunFolder

    def measures(self) -> dict[str, Any]:
        """What was measured, by the names that pipeline files use; losses at an epoch as `train_loss@10`."""
        result, test = self.run.read("result.json"), self.run.evaluation() or KeptEvaluation()
        span = result.get("span", 1.0)
        mse = {
            "train_mse": result.get("train_mse"),
            "validation_mse": result.get("validation_mse"),
            "test_mse": test.reconstruction_mse,
        }
        own = {f"{name}_own": value and value * span**2 for name, value in mse.items()}
        losses = {
            f"{part}_loss@{epoch.epoch}": getattr(epoch, f"{part}_loss")
            for epoch in self.run.history()
            for part in ("train", "validation")
        }
        sizes = {key: result.get(key) for key in ("encoder_parameters", "decoder_parameters")}
        low, high = test.interval
        return mse | own | sizes | losses | {"auroc": test.auroc, "auroc_low": low, "auroc_high": high}


def cell_table(done: Sequence[Done]) -> list[CellRow]:
    """A row for each cell."""
    return [_cell(each) for each in done]


def _cell(each: Done) -> CellRow:
    config, result = each.run.config, each.run.read("result.json")
    return CellRow(
        cell=each.cell.name,
        run=each.run.record.id,
        status=each.run.record.status,
        normal=config.normal,
        autoencoder=config.autoencoder,
        objective=config.objective,
        scorer=config.scorer,
        seed=config.seed,
        epochs=result.get("epochs"),
        seconds=result.get("train_seconds"),
        **{key: value for key, value in each.measures().items() if "@" not in key},
    )


def comparison(done: Sequence[Done]) -> list[SystemRow]:
    """A row for each system: what its first cell came to, the AUROC of every set of normal classes with its interval,
    and the source's last figure with ours and the difference.
    """
    rows = {each.cell.row: _first_cell(each) for each in done if each.cell.first}
    columns = {system: dict[str, Any]() for system in rows}
    for each in done:
        measured = each.measures()
        if measured["auroc"] is not None and each.cell.row in rows:
            named = {f"{key} {each.run.config.normal}".replace("_", " "): measured[key] for key in AUROC}
            columns[each.cell.row] |= named
    for figure in published_table(done):
        columns[figure.system] |= {key: getattr(figure, key) for key in COLUMNS_AT_THE_END}
    names = sorted(dict.fromkeys(itertools.chain(*columns.values())), key=COLUMNS_AT_THE_END.count)
    return [
        replace(row, columns=Columns({name: columns[system].get(name) for name in names}))
        for system, row in rows.items()
    ]


def _first_cell(each: Done) -> SystemRow:
    measured, result, config = each.measures(), each.run.read("result.json"), each.run.config
    errors = [f"{part}_mse{scale}" for scale in ("", "_own") for part in ("train", "validation", "test")]
    return SystemRow(
        system=each.cell.row,
        dataset=config.dataset,
        normal=config.normal,
        objective=config.objective,
        epochs=result.get("epochs"),
        seconds=result.get("train_seconds"),
        columns=Columns(),
        **{key: measured[key] for key in (*errors, "encoder_parameters", "decoder_parameters")},
    )


def published_table(done: Sequence[Done]) -> list[PublishedRow]:
    """A row for each published figure."""
    rows = []
    for each in done:
        measured = each.measures()
        for measure, theirs in each.cell.published.items():
            ours = measured.get(measure)
            difference = None if ours is None else ours - theirs
            rows.append(PublishedRow(each.cell.row, measure, theirs, ours, difference))
    return rows


def draw_comparison(done: Sequence[Done]) -> "dict[str, Figure]":
    """Loss curves of all networks in one plot, ROC curves of the cells in another, and a grid for each data set with
    a row of reconstructions each.
    """
    networks: dict[str, Done] = {}
    for each in done:
        if each.cell.first and each.run.record.status == FINISHED:
            networks.setdefault(each.cell.network, each)
    if not networks:
        return {}
    histories = [(f"{name} ({each.run.config.objective})", each.run.history()) for name, each in networks.items()]
    which = _which_normal(done, networks.values())
    datasets = dict.fromkeys(each.run.config.dataset for each in networks.values())
    grids = {
        short_name(name): [each for each in networks.values() if each.run.config.dataset == name] for name in datasets
    }
    return (
        {"loss_curves": figures.compared_losses(histories, f"Loss by epoch{which}")}
        | _draw_rocs(done)
        | {
            f"reconstructions_{name}": figures.labelled_rows(
                _reconstructions(same), f"Test images of {name}, one of each class, reconstructed{which}"
            )
            for name, same in grids.items()
        }
    )


def _which_normal(done: Sequence[Done], drawn: Iterable[Done]) -> str:
    """Which normal classes the drawn cells have, where there are others, too; in words."""
    sets, shown = ({each.run.config.normal for each in some} for some in (done, drawn))
    return f"; normal {' and '.join(sorted(shown))}, the first of {len(sets)} sets" if len(sets) > len(shown) else ""


def _draw_rocs(done: Sequence[Done]) -> "dict[str, Figure]":
    """ROC curves of those cells that have some; so many lines that nobody could tell them apart are not drawn."""
    rocs = [(each.cell.name, found.scores, found.novel) for each in done if (found := read_scores(each.run))]
    return {"roc_curves": figures.compared_rocs(rocs)} if 0 < len(rocs) <= MOST_CURVES else {}


def _reconstructions(done: Sequence[Done]) -> list[tuple[str, figures.Array]]:
    """A row of reconstructions for each network, below the originals; these again where another split has others."""
    rows: list[tuple[str, figures.Array]] = []
    above = torch.empty(0)
    for each in done:
        detector = Detector.load(each.run.detector_folder(), "cpu")
        test = detector.split.test.take(
            open_data(detector.config.dataset, each.run.data_dir()).load(detector.preprocessing)
        )
        shown = test.images[_first_of_each(test.labels)[: figures.SHOWN]]
        if not torch.equal(shown, above):
            rows.append(("original", as_float(shown).numpy()))
            above = shown
        rows.append((each.cell.network.replace(" · ", "\n"), detector.reconstruct(shown).numpy()))
    return rows


def _first_of_each(labels: Tensor) -> Tensor:
    """The position of the first image of each class, (classes,)."""
    is_class = labels[:, None] == torch.unique(labels)  # (N, classes)
    return torch.argmax(is_class.int(), dim=0)
