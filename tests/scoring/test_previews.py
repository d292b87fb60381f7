import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.errors import UsageError
from anomaly_ae.images.sources import open_source
from anomaly_ae.reporting.overlays import LONGEST, check_overlays, overlay_name
from anomaly_ae.scorers import build_scorer
from anomaly_ae.scoring.job import Job
from anomaly_ae.scoring.previews import load_previews
from tests.conftest import Trained


def test_a_second_look_shows_the_picture_its_reconstruction_and_heat_map(trained: Trained, pictures: Path) -> None:
    wide = np.tile(np.arange(100, dtype=np.uint8), (50, 1))
    Image.fromarray(np.dstack([wide, wide, 255 - wide])).save(pictures / "wide.png")
    source, detector = open_source(pictures), trained.detector()
    listing = source.list()
    looks = list(load_previews(detector, source, listing, np.array([21, 0, 10, 3]), side=20))
    assert [listing.paths[look.position] for look in looks] == [b"wide.png", b"00.png", b"06.png"]  # 10 is bad.png
    assert [look.picture.shape for look in looks] == [(10, 20, 3), (8, 8, 3), (8, 8, 3)]
    assert looks[0].picture[5, 3, 2] == 255 - looks[0].picture[5, 3, 0]
    images = load_dataset("digits").files["train"].images[:1]
    np.testing.assert_allclose(looks[1].rebuilt, detector.reconstruct(images)[0], atol=1e-5)
    heat = detector.heat_map(images)
    assert heat is not None
    torch.testing.assert_close(torch.tensor(looks[1].heat), heat[0], rtol=1e-4, atol=1e-5)


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
    assert max(map(len, names)) <= LONGEST + 21
    assert overlay_name(b"a.png") != overlay_name(b"./a.png") != overlay_name(b"../a.png")


def test_a_scorer_without_a_heat_map_is_said(trained: Trained, pictures: Path, tmp_path: Path) -> None:
    detector = replace(trained.detector(), scorer=build_scorer("latent-knn"))
    job = Job(detector, detector.calibration, open_source(pictures), tmp_path / "scores.csv")
    with pytest.raises(UsageError, match="has no heat map"):
        check_overlays(job, tmp_path / "maps")
