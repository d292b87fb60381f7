import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from anomaly_ae.errors import StorageError
from anomaly_ae.reporting.figures import painter
from anomaly_ae.reporting.figures.saving import Drawing

LOSSES = Drawing.of("curves.loss_curves", [0.3, 0.2, 0.1], [0.4, 0.3, 0.35])


def test_a_painter_draws_what_is_drawn_here_to_the_last_byte(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 1, 8, 8))
    drawings = {"losses": LOSSES, "rows": Drawing.of("image_grids.labelled_rows", [("images", images)], "a heading")}
    there = painter.Painter()
    there.take(painter.Order(tmp_path / "there", drawings, "a caption"))
    painter.save_figures(tmp_path / "here", drawings, "a caption")
    there.finish()
    for name in drawings:
        assert (tmp_path / f"here/{name}.png").read_bytes() == (tmp_path / f"there/{name}.png").read_bytes()


def test_what_goes_wrong_there_is_raised_here_and_the_next_order_is_drawn(tmp_path: Path) -> None:
    there = painter.Painter()
    (tmp_path / "file").write_text("")
    there.take(painter.Order(tmp_path / "file" / "below", {"losses": LOSSES}, ""))
    there.take(painter.Order(tmp_path / "more", {"nonsense": Drawing.of("curves.loss_curves", "no", "numbers")}, ""))
    there.take(painter.Order(tmp_path / "fine", {"losses": LOSSES}, ""))
    with pytest.raises(StorageError, match="below"):
        there.finish()
    with pytest.raises(RuntimeError, match="loss_curves"):
        there.finish()
    there.finish()
    assert (tmp_path / "fine" / "losses.png").exists()


def test_a_painter_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os\nfrom anomaly_ae.reporting.figures import painter\npainter.start()\n"
        "print(painter._painter._process.pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False, timeout=60)
    pid, ends = int(run.stdout), time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("it goes on")


def test_where_the_painter_is_killed_all_is_drawn_here(tmp_path: Path) -> None:
    there = painter.Painter()
    there.take(painter.Order(tmp_path / "before", {"losses": LOSSES}, ""))
    there._process.kill()
    there._process.wait()
    there.take(painter.Order(tmp_path / "after", {"losses": LOSSES}, ""))
    there.finish()
    assert (tmp_path / "before" / "losses.png").exists()
    assert (tmp_path / "after" / "losses.png").exists()


def test_a_painter_waits_for_no_torch() -> None:
    code = (
        "import sys\nfrom anomaly_ae.reporting.figures import curves, distributions, image_grids, painter\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
