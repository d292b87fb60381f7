import re
from dataclasses import replace
from pathlib import Path

import pytest

from anomaly_ae.errors import UsageError
from anomaly_ae.images.sources import open_source
from anomaly_ae.reporting.folder_report import LONGEST_OVERLAY_NAME, check_overlays, overlay_name
from anomaly_ae.scorers import build_scorer
from anomaly_ae.scoring.job import Job
from tests.conftest import Trained


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"sub/a.png", b"sub/a.png.png"),
        (b"caf\xe9.png", b"caf\xe9.png.png"),
        (b"/etc/../a b.jpg", b"etc/a b.jpg-3f8a5a3b1d4a1c0e.png"),
        (b"../../a.png", b"a.png-0000000000000000.png"),
    ],
)
def test_an_overlay_is_called_as_its_image_and_stays_in_its_folder(path: bytes, name: bytes) -> None:
    assert re.sub(rb"-[0-9a-f]{16}", b"-0", overlay_name(path)) == re.sub(rb"-[0-9a-f]{16}", b"-0", name)


def test_long_names_are_cut_and_stay_apart() -> None:
    names = {overlay_name(b"x" * 250 + end + b".png") for end in (b"a", b"b")}
    assert len(names) == 2
    assert max(map(len, names)) <= LONGEST_OVERLAY_NAME + 21
    assert overlay_name(b"a.png") != overlay_name(b"./a.png") != overlay_name(b"../a.png")


def test_a_scorer_without_a_heat_map_is_said(trained: Trained, tmp_path: Path) -> None:
    detector = replace(trained.detector(), scorer=build_scorer("latent-knn"))
    job = Job(detector, detector.calibration, open_source(tmp_path), tmp_path / "scores.csv")
    with pytest.raises(UsageError, match="has no heat map"):
        check_overlays(job, tmp_path / "maps")
