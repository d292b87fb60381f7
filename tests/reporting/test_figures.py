from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from anomaly_ae.autoencoders import build_autoencoder
from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.reporting.figures import curves, distributions, image_grids
from anomaly_ae.reporting.figures.distributions import class_colors
from anomaly_ae.reporting.figures.saving import grid, write_figures
from anomaly_ae.reporting.run_figures import ReconstructionGrid
from anomaly_ae.training import Epoch

RNG = np.random.default_rng(0)
SCORES, NOVEL = RNG.normal(size=60), np.arange(60) < 25
NAMES = [str(i % 3) for i in range(60)]
HISTORY = [Epoch(i, 1 / i, 1.1 / i, 0.1, 10.0, 1.0) for i in range(1, 6)]
ROLES = np.array([name == "0" for name in NAMES])


def losses(history: list[Epoch]) -> tuple[list[float], list[float]]:
    return [epoch.train_loss for epoch in history], [epoch.validation_loss for epoch in history]


DRAWN = {
    "loss_curves": lambda: curves.loss_curves(*losses(HISTORY)),
    "one_epoch": lambda: curves.loss_curves(*losses(HISTORY[:1])),
    "score_histogram": lambda: distributions.score_histogram(SCORES, NOVEL, 0.5, 0.05),
    "constant_scores": lambda: distributions.score_histogram(np.ones(60), NOVEL, 1.0, 0.05),
    "roc": lambda: curves.roc_and_precision_recall(SCORES, NOVEL, 0.5, 0.4, (0.1, 0.2, None)),
    "score_by_class": lambda: distributions.score_by_class(SCORES, NAMES, ROLES, 0.5),
    "one_latent": lambda: distributions.latent_map(RNG.normal(size=(60, 1)).astype("float32"), NAMES, ROLES),
    "latent_map": lambda: distributions.latent_map(RNG.normal(size=(60, 4)).astype("float32"), NAMES, ROLES),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figures_have_labelled_axes_and_can_be_written(name: str, tmp_path: Path) -> None:
    figure = DRAWN[name]()
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    write_figures(tmp_path, {name: figure}, "a caption")
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]
    assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).std() > 5  # something is drawn


@pytest.mark.parametrize("name", ["cookies", "WOOD_MAHAGONY_WOMBAT_MDF_WMM", "i"])
def test_a_caption_longer_than_the_figure_is_wide_is_not_cut(name: str, tmp_path: Path) -> None:
    figure = image_grids.labelled_rows([("original", RNG.random((1, 3, 8, 8)))], "What training did")
    write_figures(tmp_path, {"one": figure}, f"{name} good · feature-conv · feature-error+2*patch-knn+0.5*defect")
    left, right = figure._supxlabel.get_window_extent().intervalx
    assert 0 <= left < right <= figure.bbox.width


def test_calibration_scores_of_each_group_are_drawn_below_the_p_values() -> None:
    groups = torch.tensor([0] * 50 + [1] * 20)
    grouped = Calibration(torch.cat([torch.linspace(0, 1, 50), torch.linspace(0, 2, 20)]), 0.1, groups=groups)
    p_values, *points, _ = distributions.calibration(grouped).axes[0].lines
    assert [points[i].get_label() for i in range(2)] == ["50 calibration scores", "20 calibration scores"]
    for each, group in zip(points, grouped.by_group, strict=True):
        scores, shares = each.get_data()
        assert np.array_equal(scores, group.scores)
        assert shares[0] == 1
        assert (shares <= np.interp(scores, *p_values.get_data()) + 0.05).all()  # p is the largest


def test_no_label_is_cut(tmp_path: Path) -> None:
    figure = distributions.score_by_class(SCORES, ["T-shirt/top" if n == "0" else n for n in NAMES], ROLES, 0.5)
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
    figure = image_grids.image_rows(images, images**2, images.mean(axis=1), list("abcd"), "heading")
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 5
    strip = figure.axes[2].images[0].get_array()  # maps, ten times as large, a little space around each
    assert strip is not None
    assert strip.shape == (9 * 10 + 2 * 2, 4 * (7 * 10 + 2 * 2))
    np.testing.assert_allclose(strip[2:-2:10, 74 + 2 : 74 + 72 : 10], np.abs(images - images**2).mean(axis=1)[1])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list("abcd")
    assert len(image_grids.image_rows(images, images, None, (), "heading").axes) == 3


def test_rows_may_differ_in_the_size_of_their_images(tmp_path: Path) -> None:
    rows = [
        ("small", RNG.random((4, 1, 8, 8))),
        ("large", RNG.random((4, 1, 28, 28))),
        ("few", RNG.random((2, 1, 8, 8))),
    ]
    figure = image_grids.labelled_rows(rows, "heading")
    assert {axes.get_xlim() for axes in figure.axes} == {(0, 4)}
    write_figures(tmp_path, {"rows": figure}, "a caption")


@pytest.mark.parametrize(("channels", "shape"), [(1, (188, 376)), (3, (188, 376, 3))])
def test_a_grid_holds_originals_above_reconstructions(channels: int, shape: tuple[int, ...]) -> None:
    images = np.ones((4, channels, 28, 28))
    pixels = grid(images, 0.5 * images)
    assert pixels.shape == (172, 344, *shape[2:])
    assert pixels.dtype == np.uint8
    assert (pixels[40, 40].max(), pixels[130, 40].max()) == (255, 128)


@pytest.mark.parametrize(("images", "bands", "width"), [(1, 1, 1), (6, 1, 6), (7, 2, 3), (8, 2, 4), (18, 3, 6)])
def test_a_grid_goes_on_below_without_empty_places(images: int, bands: int, width: int) -> None:
    white = np.ones((images, 1, 28, 28))
    pixels = grid(white, 0.5 * white)
    assert pixels.shape == (bands * 2 * 86, width * 86)
    assert (pixels[40::172, 40::86] == 255).all()


ROLE_COLORS = {"normal": "#4477aa", "novel": "#ee6677"}


def test_normal_is_blue_and_novel_red_whatever_the_classes_are_called() -> None:
    latents, names = RNG.normal(size=(60, 4)).astype("float32"), np.where(NOVEL, "bad", "good").tolist()
    legend = distributions.latent_map(latents, names, NOVEL).axes[1].get_legend()
    assert legend is not None
    told = [(text.get_text(), mark) for text, mark in zip(legend.get_texts(), legend.legend_handles, strict=True)]
    shown = {text: to_hex(mark.get_facecolor()[0]) for text, mark in told}
    assert shown == {"good (normal)": ROLE_COLORS["normal"], "bad (novel)": ROLE_COLORS["novel"]}
    boxes = distributions.score_by_class(SCORES, names, NOVEL, 0.5).axes[0]
    assert [label.get_text() for label in boxes.get_xticklabels()] == ["good", "bad"]  # normal first
    bars = distributions.score_histogram(SCORES, NOVEL, 0.5, 0.05).axes[0].patches
    assert [to_hex(bar.get_facecolor()) for bar in bars] == list(ROLE_COLORS.values())


def test_many_classes_keep_the_colours_of_their_roles() -> None:
    colors = class_colors({"a": "normal", "b": "normal"} | {str(i): "novel" for i in range(8)})
    assert len(set(colors.values())) == 10
    assert all(max(green, blue) > red for red, green, blue in (colors["a"], colors["b"]))
    assert all(red >= max(green, blue) for red, green, blue in (colors[str(i)] for i in range(8)))


@pytest.mark.parametrize("count", [9, 40, 5_000])
def test_the_bars_of_a_histogram_fit_the_number_of_scores_and_hold_all_of_them(count: int) -> None:
    scores = np.append(RNG.normal(size=count), 1e6)
    axes = distributions.score_histogram(scores, np.arange(count + 1) >= count // 2, 0.5, 0.05).axes[0]
    heights = [bar.get_data().values for bar in axes.patches]
    assert [round(float(values.sum())) for values in heights] == [100, 100]
    assert len(heights[0]) == int(np.clip(2 * np.sqrt(count + 1), 8, 60))
    assert axes.get_xlim()[1] < 100
    assert "beyond: in the last bar" in axes.get_xlabel()


def test_one_role_alone_has_a_histogram_without_the_other() -> None:
    axes = distributions.score_histogram(SCORES, np.zeros(60, bool), 0.5, 0.05).axes[0]
    assert [bar.get_label() for bar in axes.patches] == ["normal, 60"]


def test_scores_beyond_the_edge_are_marked_in_their_class() -> None:
    scores = np.append(SCORES[:-1], 1e6)
    axes = distributions.score_by_class(scores, NAMES, ROLES, 0.5).axes[0]
    assert axes.get_ylim()[1] < 100
    legend = axes.get_legend()
    assert legend is not None
    assert "higher still, 1" in [text.get_text() for text in legend.get_texts()]


def test_the_highest_of_few_scores_is_on_the_axis_and_short_names_are_level() -> None:
    scores = np.array([1.2, 1.5, 1.6, 1.9, 2.0, 2.6, 2.9, 3.09])
    novel, names = scores > 1.9, ["good"] * 4 + ["cracked"] * 4
    axes = distributions.score_by_class(scores, names, novel, 2.1).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert not any("higher still" in text.get_text() for text in legend.get_texts())
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {0}
    assert "beyond" not in distributions.score_histogram(scores, novel, 2.1, 0.1).axes[0].get_xlabel()


def test_names_side_by_side_are_without_what_all_have_in_common_and_never_the_same() -> None:
    cells = [f"sizes · normal {n} · latent {d} · scorer mse" for n in ("0,1,2", "all-but:7") for d in range(8)]
    legend = curves.compared_rocs([(name, SCORES, NOVEL) for name in cells]).axes[0].get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[0] == "normal 0,1,2 · latent 0"
    assert len(set(texts)) == 17  # with that of chance


def test_the_columns_of_a_table_have_room_beside_long_names(tmp_path: Path) -> None:
    rows, columns = ["a system of a rather long name · latent 12 · scorer mse", "b"], ["mean", "normal 0,1,2", "3"]
    figure = distributions.heat_table(np.full((2, 3), 0.5), rows, columns, "AUROC × 100")
    figure.savefig(tmp_path / "a.png")  # which lays it out
    assert figure.axes[0].get_window_extent().width / figure.dpi > 3 * 0.4  # inches


def test_an_overlay_has_thin_boxes_just_around_regions_and_at_the_edge() -> None:
    picture, heat = np.zeros((224, 448, 3), np.uint8), np.zeros((8, 16), np.float32)
    plain = image_grids.overlay(picture, heat, level=1.0)
    drawn = image_grids.overlay(picture, heat, level=1.0, boxes=[(0.25, 0.25, 0.125, 0.5), (0.75, 0.0, 0.25, 0.25)])
    white = (drawn == 255).all(axis=2)
    assert np.array_equal(np.argwhere(white[100]).ravel(), [111, 168])  # columns 112 to 167 are in the first
    assert np.array_equal(np.argwhere(white[:, 130]).ravel(), [55, 168])
    assert np.array_equal(np.argwhere(white[:, 400]).ravel(), [0, 56])
    assert np.array_equal(np.argwhere(white[20]).ravel(), [335, 447])
    assert np.array_equal(drawn[~white], plain[~white])


def test_the_grid_of_reconstructions_follows_the_training_and_perceives_once() -> None:
    config = RunConfig(autoencoder="feature-conv")
    network = build_autoencoder("feature-conv", (1, 32, 32), config)
    network.begin(config)
    looks = list[int]()
    network.encoder[0].register_forward_pre_hook(lambda _, given: looks.append(len(given[0])))
    grid = ReconstructionGrid(network, torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8))
    before, again = grid.draw(), grid.draw()
    with torch.no_grad():
        for parameter in network.decoder.parameters():
            parameter.neg_()
    after = grid.draw()
    assert looks == [2]
    assert np.array_equal(before, again)
    assert not np.array_equal(before, after)
