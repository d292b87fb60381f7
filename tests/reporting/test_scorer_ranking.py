import dataclasses

import pytest
from scipy.stats import t as student

from anomaly_ae.reporting.scorer_ranking import Measured, draw_scorers, scorer_table


def measured(scorer: str, normal: str, seed: int, auroc: float, p_value: float = 1.0) -> Measured:
    return Measured(
        "conv", scorer, normal, seed, auroc, {"3": auroc, "4": auroc - 0.1}, (auroc - 0.02, 1), auroc - 0.9, p_value
    )


FOUND = [
    *(measured("good", normal, seed, auroc) for normal, seed, auroc in [("0", 0, 0.9), ("1", 0, 0.8), ("0", 1, 1.0)]),
    measured("good", "1", 1, 0.9),
    *(measured("poor", normal, seed, 0.6, 0.01) for normal in "01" for seed in (0, 1)),
]


def test_a_row_for_each_scorer_the_best_first() -> None:
    good, poor = scorer_table(FOUND)
    assert (good.scorer, poor.scorer) == ("good", "poor")
    assert good.auroc == pytest.approx(0.9)  # of the seeds 0.85 and 0.95
    half = student.ppf(0.975, 1) * 0.05
    assert (good.low, good.high) == (pytest.approx(0.9 - half), 1)  # cut off at what there is
    assert (good.by_class["normal 0"], good.by_class["normal 1"]) == (pytest.approx(0.95), pytest.approx(0.85))
    assert (good.better, good.worse, poor.worse, poor.cells) == (0, 0, 4, 4)


def test_one_set_of_normal_classes_is_broken_down_by_novel_class() -> None:
    [row] = scorer_table([measured("good", "0,1,2", 0, 0.9)])
    assert (row.by_class["novel 3"], row.by_class["novel 4"]) == (0.9, pytest.approx(0.8))
    assert (row.low, row.high) == (pytest.approx(0.88), 1)  # those of the one cell


def test_several_cells_of_one_seed_have_no_interval() -> None:
    [row] = scorer_table([measured("good", normal, 0, 0.9) for normal in "0123"])
    assert (row.low, row.high) == (None, None)


def test_a_cell_that_failed_leaves_a_gap() -> None:
    table = scorer_table([each for each in FOUND if (each.scorer, each.normal) != ("poor", "1")])
    assert (table[1].by_class["normal 1"], table[1].cells) == (None, 2)
    assert table[0].by_class.keys() == table[1].by_class.keys()
    draw_scorers(table)


def test_the_heat_map_has_every_scorer_and_class() -> None:
    axes = draw_scorers(scorer_table(FOUND)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["good", "poor"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["mean", "normal 0", "normal 1"]
    assert [text.get_text() for text in axes.texts][:3] == ["90.0", "95.0", "85.0"]


def test_a_scorer_that_sees_no_network_stands_once_whatever_the_detectors_own_scorer() -> None:
    cells = [
        dataclasses.replace(measured(scorer, normal, 0, auroc), system=system)
        for system, own in [("small", 0.7), ("large", 0.8)]
        for normal in "01"
        for _ in ("scorer mse", "scorer ssim")  # two cells with one network
        for scorer, auroc in [("pca", 0.6), ("mse", own)]
    ]
    table = scorer_table(cells)
    order = [("small", "mse"), ("large", "mse"), ("any network", "pca")]
    assert [(row.system, row.scorer) for row in table] == order
    assert [row.auroc for row in table] == pytest.approx([0.7, 0.8, 0.6])
    assert table[2].cells == 8


def test_systems_are_kept_apart() -> None:
    other = [dataclasses.replace(each, system="vae", auroc=each.auroc - 0.2) for each in FOUND]
    table = scorer_table([*FOUND, *other])
    order = [("conv", "good"), ("conv", "poor"), ("vae", "good"), ("vae", "poor")]
    assert [(row.system, row.scorer) for row in table] == order
    labels = [label.get_text() for label in draw_scorers(table).axes[0].get_yticklabels()]
    assert labels[2] == "vae · good"
