import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anomaly_ae.errors import StorageError
from anomaly_ae.reporting.figures import painter
from anomaly_ae.reporting.figures.saving import Drawing
from anomaly_ae.runtime.worker import Worker

LOSSES = Drawing.of("curves.loss_curves", [0.3, 0.2, 0.1], [0.4, 0.3, 0.35])


@pytest.fixture
def painting(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A painter of this test's own."""
    worker = Worker()
    monkeypatch.setattr(painter, "_painter", worker)
    return worker


def test_a_painter_draws_what_is_drawn_here_to_the_last_byte(painting: Worker, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 1, 8, 8))
    drawings = {"losses": LOSSES, "rows": Drawing.of("image_grids.labelled_rows", [("images", images)], "a heading")}
    painter.save_figures(tmp_path / "there", drawings, "a caption")
    painter.FigureOrder(tmp_path / "here", drawings, "a caption").carry_out()
    painter.finish_figures()
    for name in drawings:
        assert (tmp_path / f"here/{name}.png").read_bytes() == (tmp_path / f"there/{name}.png").read_bytes()


def test_what_goes_wrong_there_is_raised_here_and_the_next_order_is_drawn(painting: Worker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    painter.save_figures(tmp_path / "file" / "below", {"losses": LOSSES}, "")
    painter.save_figures(tmp_path / "more", {"nonsense": Drawing.of("curves.loss_curves", "no", "numbers")}, "")
    painter.save_figures(tmp_path / "fine", {"losses": LOSSES}, "")
    with pytest.raises(StorageError, match="below"):
        painter.finish_figures()
    with pytest.raises(RuntimeError, match="loss_curves"):
        painter.finish_figures()
    painter.finish_figures()
    assert (tmp_path / "fine" / "losses.png").exists()


def test_where_the_painter_is_killed_all_is_drawn_here(painting: Worker, tmp_path: Path) -> None:
    painter.save_figures(tmp_path / "before", {"losses": LOSSES}, "")
    painting.process.kill()
    painter.save_figures(tmp_path / "after", {"losses": LOSSES}, "")
    painter.finish_figures()
    assert (tmp_path / "before" / "losses.png").exists()
    assert (tmp_path / "after" / "losses.png").exists()


def test_a_painter_waits_for_no_torch() -> None:
    code = (
        "import sys\nfrom anomaly_ae.reporting.figures import curves, distributions, image_grids, painter\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
