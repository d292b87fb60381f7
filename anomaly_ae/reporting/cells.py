"""Cells of a pipeline side by side: what each came to as tables and pictures."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from anomaly_ae.datasets.catalogue import open_data
from anomaly_ae.detector.detector import Detector
from anomaly_ae.escaping import short_name
from anomaly_ae.images.preprocessing import Preprocessed
from anomaly_ae.reporting.comparison import read_scores
from anomaly_ae.reporting.figures.saving import SHOWN, Array
from anomaly_ae.reporting.run_figures import first_of_each_class
from anomaly_ae.runs.pipeline_file import Cell
from anomaly_ae.runs.pipeline_results import CellRow, PublishedRow, SystemRow
from anomaly_ae.runs.record import FINISHED
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.run_results import KeptEvaluation
from anomaly_ae.runtime.printed import Columns
from anomaly_ae.storage.pixel_values import as_float

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from anomaly_ae.runtime.printed import Row

AUROC = ("auroc", "auroc_low", "auroc_high")
MOST_CURVES = 12  # in one plot
COLUMNS_AT_THE_END = ("measure", "source", "ours", "difference")


@dataclass(frozen=True)
class Done:
    """A cell and its run."""

    cell: Cell
    run: RunFolder

    @cached_property
    def measures(self) -> dict[str, Any]:
        """What was measured, by the names that pipeline files use; losses at an epoch as `train_loss@10`."""
        result, test = self.run.result(), self.run.evaluation() or KeptEvaluation()
        mse = {
            "train_mse": result.train_mse,
            "validation_mse": result.validation_mse,
            "test_mse": test.reconstruction_mse,
        }
        squared_span = (result.span or 1.0) ** 2
        unscaled = {f"{name}_own": value and value * squared_span for name, value in mse.items()}
        losses = {
            f"{part}_loss@{epoch.epoch}": getattr(epoch, f"{part}_loss")
            for epoch in self.run.history()
            for part in ("train", "validation")
        }
        sizes = {key: getattr(result, key) for key in ("encoder_parameters", "decoder_parameters")}
        low, high = test.interval
        return mse | unscaled | sizes | losses | {"auroc": test.auroc, "auroc_low": low, "auroc_high": high}

    def row(self, kind: "type[Row]", **named: Any) -> "Row":
        """A row of that kind, whose other fields are called after settings and measures."""
        result = self.run.result()
        values = vars(self.run.config) | self.measures
        values |= {"epochs": result.epochs, "seconds": result.train_seconds} | named
        return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})


def cell_table(done: Sequence[Done]) -> list[CellRow]:
    """A row for each cell."""
    return [
        each.row(CellRow, cell=each.cell.name, run=each.run.record.id, status=each.run.record.status) for each in done
    ]


def comparison(done: Sequence[Done]) -> list[SystemRow]:
    """A row for each system: what its first cell came to, the AUROC of every set of normal classes with its interval,
    and the source's last figure with ours and the difference.
    """
    columns = {each.cell.row: dict[str, Any]() for each in done if each.cell.first}
    for each in done:
        if each.measures["auroc"] is not None and each.cell.row in columns:
            headed = {f"{key} {each.run.config.normal}".replace("_", " "): each.measures[key] for key in AUROC}
            columns[each.cell.row] |= headed
    for row in published_table(done):
        columns[row.system] |= {key: getattr(row, key) for key in COLUMNS_AT_THE_END}
    names = sorted(dict.fromkeys(itertools.chain(*columns.values())), key=COLUMNS_AT_THE_END.count)
    first_cells = {each.cell.row: each for each in done if each.cell.first}
    return [
        each.row(SystemRow, system=system, columns=Columns({name: columns[system].get(name) for name in names}))
        for system, each in first_cells.items()
    ]


def published_table(done: Sequence[Done]) -> list[PublishedRow]:
    """A row for each published figure."""
    rows = []
    for each in done:
        for measure, source in each.cell.published.items():
            measured = each.measures.get(measure)
            difference = None if measured is None else measured - source
            rows.append(PublishedRow(each.cell.row, measure, source, measured, difference))
    return rows


def draw_comparison(done: Sequence[Done]) -> "dict[str, Figure]":
    """Loss curves of all networks in one plot, ROC curves of the cells in another, and a grid for each data set with
    a row of reconstructions each.
    """
    from anomaly_ae.reporting.figures.curves import compared_losses, compared_rocs  # here, for these take a while
    from anomaly_ae.reporting.figures.image_grids import labelled_rows

    networks: dict[str, Done] = {}
    for each in done:
        if each.cell.first and each.run.record.status == FINISHED:
            networks.setdefault(each.cell.network, each)
    if not networks:
        return {}
    sets, shown = ({each.run.config.normal for each in cells} for cells in (done, networks.values()))
    which = f"; normal {' and '.join(sorted(shown))}, the first of {len(sets)} sets" if len(sets) > len(shown) else ""
    histories = [(f"{name} ({each.run.config.objective})", each.run.history()) for name, each in networks.items()]
    drawn = {"loss_curves": compared_losses(histories, f"Loss by epoch{which}")}
    rocs = [(each.cell.name, tested.scores, tested.novel) for each in done if (tested := read_scores(each.run))]
    if 0 < len(rocs) <= MOST_CURVES:
        drawn["roc_curves"] = compared_rocs(rocs)
    for dataset in dict.fromkeys(each.run.config.dataset for each in networks.values()):
        rows = _reconstructions([each for each in networks.values() if each.run.config.dataset == dataset])
        name = short_name(dataset)
        heading = f"Test images of {name}, one of each class, reconstructed{which}"
        drawn[f"reconstructions_{name}"] = labelled_rows(rows, heading)
    return drawn


def _reconstructions(done: Sequence[Done]) -> list[tuple[str, Array]]:
    """A row of reconstructions for each network, below the originals; these again where another split has others."""
    rows: list[tuple[str, Array]] = []
    originals = torch.empty(0)
    for each in done:
        detector = Detector.load(each.run.detector_folder(), "cpu")
        data = open_data(detector.config.dataset, each.run.data_dir()).load(detector.preprocessing)
        test = detector.split.test.take(data)
        images = test.images[first_of_each_class(test)[:SHOWN]]
        if not torch.equal(images, originals):
            rows.append(("original", as_float(images).numpy()))
            originals = images
        rebuilt = detector.reconstruct(Preprocessed(images) if data.prepared else images)
        rows.append((each.cell.network.replace(" · ", "\n"), rebuilt.numpy()))
    return rows
