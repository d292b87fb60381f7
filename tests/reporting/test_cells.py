"""Cells side by side, from real runs of a moment."""

from pathlib import Path

import pytest

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.reporting.cells import Done, _reconstructions, comparison, draw_comparison, published_table
from anomaly_ae.runs.pipeline_file import Cell, read_pipeline_file
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.printed import to_dict
from anomaly_ae.workflows.pipeline import run_pipeline

FILE = """
name: seeds
epochs: 1
autoencoder: vanilla
image_size: 8
matrix:
  seed: [0, 1]
  normal: ["0,1,2"]
  scorer: [mse, ssim]
published: {test_mse: 0.25, auroc: 0.9}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    folder = tmp_path_factory.mktemp("cells")
    (folder / "p.yaml").write_text(FILE)
    home = RunStore.find(str(folder / "mlruns"))
    result = run_pipeline(folder / "p.yaml", home=home, tracking=False, figures=False)
    runs = {run.record.name: run for run in home.runs() if run.record.parent == result.run_id}
    return [Done(cell, runs[cell.name]) for cell in read_pipeline_file(folder / "p.yaml").cells]


def test_a_row_has_the_source_s_last_figure_at_its_end(done: list[Done]) -> None:
    rows = comparison(done)
    assert len(rows) == 4
    assert list(to_dict(rows[0]))[-4:] == ["measure", "source", "ours", "difference"]
    assert (rows[0].columns["measure"], rows[0].columns["source"]) == ("auroc", 0.9)
    assert rows[0].columns["difference"] == pytest.approx(rows[0].columns["auroc 0,1,2"] - 0.9)
    assert rows[1].columns["measure"] is None
    assert [row.measure for row in published_table(done)] == ["test_mse", "auroc"]


def test_originals_stand_again_where_another_split_has_others(done: list[Done]) -> None:
    names = [name for name, _ in _reconstructions([done[0], done[2]])]
    assert names == ["original", "seeds\nseed 0", "original", "seeds\nseed 1"]
    assert len(_reconstructions([done[0], done[0]])) == 3


def test_a_network_is_drawn_once_whatever_scores_it(done: list[Done]) -> None:
    axes = draw_comparison(done)["loss_curves"].axes[1]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["seed 0 (mse)", "seed 1 (mse)"]
    assert len(axes.lines) == 2


def test_nothing_finished_is_not_drawn(done: list[Done]) -> None:
    assert draw_comparison([]) == {}
    assert comparison([]) == published_table([]) == []


def test_a_row_whose_first_cell_is_missing_is_left_out() -> None:
    cell = Cell("p · normal 0", "p", "p", "p", "p", RunConfig(normal="0"), {}, first=False)
    assert comparison([Done(cell, RunFolder(Path("absent")))]) == []
