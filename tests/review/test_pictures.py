import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_ae.errors import DataDamaged, DataMissing
from anomaly_ae.review.pictures import Pictures
from anomaly_ae.review.session import Session


def opened(content: bytes | None) -> Image.Image:
    assert content is not None
    return Image.open(io.BytesIO(content))


@pytest.fixture
def good(session: Session) -> int:
    return int(np.nanargmax(session.rows.scores))


def test_what_is_shown_is_the_file_and_what_the_detector_makes_of_it(session: Session, good: int) -> None:
    file = Path(session.source.name) / session.rows.paths[good].decode()
    pixels = torch.from_numpy(np.array(Image.open(file)))[None, None]
    with Pictures(session) as pictures:
        small, large = opened(pictures.thumbnail(good)), opened(pictures.picture(good))
        assert small.size == large.size == (8, 8)
        assert np.abs(np.asarray(large.convert("L"), int) - pixels[0, 0].numpy()).mean() < 8  # WebP loses a little
        rebuilt = np.asarray(opened(pictures.rebuilt(good)), float) / 255
        assert np.abs(rebuilt - session.detector.reconstruct(pixels)[0, 0].numpy()).max() < 0.003
        heat, expected = opened(pictures.heat(good)), session.detector.anomaly_map(pixels)
        assert heat.mode == "RGBA"
        assert expected is not None
        clear = np.asarray(heat)[..., 3]
        assert np.unravel_index(clear.argmax(), clear.shape) == divmod(int(expected[0].argmax()), 8)


def test_files_that_are_no_images_and_rows_that_are_not_there(session: Session) -> None:
    (empty,) = session.rows.errors
    with Pictures(session) as pictures:
        with pytest.raises(DataDamaged, match="cannot be read as an image"):
            pictures.thumbnail(empty)
        for index in (-1, 61):
            with pytest.raises(DataMissing, match="no row"):
                pictures.picture(index)
        with pytest.raises(DataDamaged, match="no training image"):
            pictures.training_picture(-1)


def test_the_training_images_that_are_most_like_one(session: Session, good: int) -> None:
    with Pictures(session) as pictures:
        neighbors = pictures.neighbors(good)
        assert pictures.training.images is not None
        latents = session.detector.encode(pictures.training.images.images)
        file = Path(session.source.name) / session.rows.paths[good].decode()
        latent = session.detector.encode(torch.from_numpy(np.array(Image.open(file)))[None, None])
        distances = (latents - latent).norm(dim=1)
        assert [each.index for each in neighbors] == distances.argsort()[:5].tolist()
        picture = np.asarray(opened(pictures.training_picture(neighbors[0].index)))
        assert np.array_equal(picture, pictures.training.images.images[neighbors[0].index, 0].numpy())


def test_training_images_that_are_gone_are_said_to_be(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise DataMissing("there is no folder gone")

    monkeypatch.setattr("anomaly_ae.review.pictures.open_data", gone)
    with Pictures(session) as pictures, pytest.raises(DataDamaged, match="not at hand: there is no folder gone"):
        pictures.neighbors(0)


def test_thumbnails_are_kept_within_bounds(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_ae.review.pictures.KEPT_BYTES", 1_000)
    with Pictures(session) as pictures:
        shown = [pictures.thumbnail(i) for i in range(60) if session.rows.scored[i]]
        assert sum(map(len, shown)) > 2_000
        assert 0 < sum(map(len, pictures._kept.values())) <= 1_000
