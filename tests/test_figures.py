from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from anomaly_ae import figures
from anomaly_ae.training import Epoch

RNG = np.random.default_rng(0)
SCORES, NOVEL = RNG.normal(size=60), np.arange(60) < 25
NAMES = [str(i % 3) for i in range(60)]
HISTORY = [Epoch(i, 1 / i, 1.1 / i, 0.1, 10.0, 1.0) for i in range(1, 6)]
ROLES = np.array([name == "0" for name in NAMES])

DRAWN = {
    "loss_curves": lambda: figures.loss_curves(HISTORY),
    "one_epoch": lambda: figures.loss_curves(HISTORY[:1]),
    "score_histogram": lambda: figures.score_histogram(SCORES, NOVEL, 0.5, 0.05),
    "constant_scores": lambda: figures.score_histogram(np.ones(60), NOVEL, 1.0, 0.05),
    "roc": lambda: figures.roc_and_precision_recall(SCORES, NOVEL, 0.5, 0.4, (0.1, 0.2, None)),
    "score_by_class": lambda: figures.score_by_class(SCORES, NAMES, ROLES, 0.5),
    "one_latent": lambda: figures.latent_map(RNG.normal(size=(60, 1)).astype("float32"), NAMES, ROLES),
    "latent_map": lambda: figures.latent_map(RNG.normal(size=(60, 4)).astype("float32"), NAMES, ROLES),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figures_have_labelled_axes_and_can_be_written(name: str, tmp_path: Path) -> None:
    figure = DRAWN[name]()
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    figures.save_figures(tmp_path, {name: figure}, "a caption")
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]
    assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).std() > 5  # something is drawn


def test_no_label_is_cut(tmp_path: Path) -> None:
    figure = figures.score_by_class(SCORES, ["T-shirt/top" if n == "0" else n for n in NAMES], ROLES, 0.5)
    figure.savefig(tmp_path / "a.png", dpi=figure.dpi)  # which lays it out
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box is not None
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_images(channels: int) -> None:
    images = RNG.random((4, channels, 9, 7))
    figure = figures.image_rows(images, images**2, images.mean(axis=1), list("abcd"), "heading")
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 5
    strip = figure.axes[2].images[0].get_array()  # maps, ten times as large, a little space around each
    assert strip is not None
    assert strip.shape == (9 * 10 + 2 * 2, 4 * (7 * 10 + 2 * 2))
    np.testing.assert_allclose(strip[2:-2:10, 74 + 2 : 74 + 72 : 10], np.abs(images - images**2).mean(axis=1)[1])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list("abcd")
    assert len(figures.image_rows(images, images, None, (), "heading").axes) == 3


def test_rows_may_differ_in_the_size_of_their_images(tmp_path: Path) -> None:
    rows = [
        ("small", RNG.random((4, 1, 8, 8))),
        ("large", RNG.random((4, 1, 28, 28))),
        ("few", RNG.random((2, 1, 8, 8))),
    ]
    figure = figures.labelled_rows(rows, "heading")
    assert {axes.get_xlim() for axes in figure.axes} == {(0, 4)}
    figures.save_figures(tmp_path, {"rows": figure}, "a caption")


@pytest.mark.parametrize(("channels", "shape"), [(1, (188, 376)), (3, (188, 376, 3))])
def test_a_grid_holds_originals_above_reconstructions(channels: int, shape: tuple[int, ...]) -> None:
    images = np.ones((4, channels, 28, 28))
    pixels = figures.grid(images, 0.5 * images)
    assert pixels.shape == (172, 344, *shape[2:])
    assert pixels.dtype == np.uint8
    assert (pixels[40, 40].max(), pixels[130, 40].max()) == (255, 128)


def test_a_grid_goes_on_below_with_what_does_not_fit_side_by_side() -> None:
    images = np.ones((8, 1, 28, 28))
    pixels = figures.grid(images, 0.5 * images)
    assert pixels.shape == (4 * 86, 6 * 86)
    band = pixels[2 * 86 + 40, 40::86]  # the first two of the second band are images, the others are empty
    assert band.tolist() == [255, 255, 0, 0, 0, 0]


def test_an_overlay_has_a_contour_at_the_level_and_the_outline_of_the_truth() -> None:
    picture, heat = np.full((40, 60, 3), 90, np.uint8), np.zeros((20, 30), np.float32)
    heat[8:12, 10:16] = 2.0
    mask = np.zeros((20, 30), bool)
    mask[2:6, 20:28] = True
    over = figures.overlay(picture, heat, least=60, level=1.0, mask=mask)
    found = np.argwhere((over == figures.CONTOUR).all(axis=2))
    assert found.min(axis=0).tolist() == pytest.approx([16, 20], abs=2)
    assert found.max(axis=0).tolist() == pytest.approx([23, 31], abs=2)
    true = np.argwhere((over == figures.TRUTH).all(axis=2))
    assert (*true.min(axis=0), *true.max(axis=0)) == (4, 40, 11, 55)
    assert (over[7:9, 46:50] == 90).all()  # an outline, not a patch


def test_a_map_that_stays_below_the_level_is_faint_and_has_no_contour() -> None:
    picture, heat = np.full((40, 60, 3), 90, np.uint8), np.full((40, 60), 0.01, np.float32)
    over = figures.overlay(picture, heat, least=60, level=1.0)
    assert abs(over.astype(int) - 90).max() < 12
    assert not (over == figures.CONTOUR).all(axis=2).any()


def test_overlays_of_gray_and_colour_images_are_in_colour() -> None:
    for channels in (1, 3):
        drawn = figures.overlays(np.full((2, channels, 8, 8), 0.5), np.zeros((2, 8, 8), np.float32))
        assert drawn.shape == (2, 3, 224, 224)
        assert drawn == pytest.approx(0.5, abs=0.01)


def test_an_overlay_is_the_picture_where_the_map_is_zero() -> None:
    picture = np.full((20, 40, 3), 90, np.uint8)
    heat = np.zeros((4, 8), np.float32)
    heat[0, 0] = 2.0
    over = figures.overlay(picture, heat)
    assert over.shape == (120, 240, 3)
    assert (over[-1, -1] == 90).all()
    assert np.abs(over[0, 0].astype(int) - 90).max() > 50
    assert (figures.overlay(picture, np.zeros((4, 8))) == 90).all()


@pytest.mark.parametrize("scores", [np.ones(0), np.ones(1), np.full(30, 2.0), np.linspace(-3, 1_000, 400)])
def test_a_histogram_of_a_folder_shows_every_image(scores: np.ndarray) -> None:
    figure = figures.folder_histogram(scores.astype(np.float32), np.linspace(0, 1, 50), 0.95, 0.05)
    heights = [patch.get_data().values for patch in figure.axes[0].patches]
    assert [round(float(values.sum())) for values in heights] == [100, 100 if len(scores) else 0]


def test_names_in_a_legend_are_plain_whatever_they_begin_with() -> None:
    names = ["_pics · conv", r"a$x_{$b", "x" * 200]
    figure = figures.compared_rocs([(name, SCORES, NOVEL) for name in names])
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts[0] == "_pics · conv"
    assert len(texts) == 4
    figure.canvas.draw()  # which a formula that is none would end
