from pathlib import Path

import numpy as np
import torch
from PIL import Image

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.images.sources import open_source
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
    heat = detector.anomaly_map(images)
    assert heat is not None
    torch.testing.assert_close(torch.tensor(looks[1].heat), heat[0], rtol=1e-4, atol=1e-5)
    assert [look.size for look in looks] == [(100, 50), (8, 8), (8, 8)]
    assert looks[0].above is not None
    assert bool(looks[0].regions) == looks[0].above.any()
    expected = detector.regions([Image.open(pictures / name) for name in ("wide.png", "00.png", "06.png")])
    assert [[r.box for r in look.regions] for look in looks] == [[r.box for r in regions] for regions in expected]
