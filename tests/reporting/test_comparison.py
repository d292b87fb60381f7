import math

import numpy as np
import pytest

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.reporting.comparison import compare_runs, differing_settings, draw_runs, read_scores
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    home = RunStore.find(str(tmp_path_factory.mktemp("compared") / "mlruns"))
    ids = []
    for scorer, seed in (("mse", 0), ("pixel-knn", 0), ("mse", 1)):
        config = RunConfig(normal="0,1,2", epochs=2, scorer=scorer, seed=seed)
        ids.append(anomaly_ae.train(config, home=home, tracking=False).run_id)
        if seed == 0:
            anomaly_ae.evaluate(home=home)
    anomaly_ae.evaluate(ids[2], home=home)
    return [home.find_run(each) for each in ids]


def test_differences_and_p_values_are_those_of_delongs_test_by_another(runs: list[RunFolder]) -> None:
    from MLstatkit import Delong_test

    first, second = tested = [read_scores(run) for run in runs[:2]]
    rows = compare_runs(runs[:2], tested)
    assert first
    assert second
    _, p_value = Delong_test(first.novel.astype(int), first.scores, second.scores)[:2]
    assert rows[1].p_value == pytest.approx(p_value, rel=1e-3)
    assert rows[1].difference == pytest.approx(rows[1].auroc - rows[0].auroc)
    assert rows[1].difference_low < rows[1].difference < rows[1].difference_high
    assert rows[0].p_value is None
    assert math.isclose(rows[0].auroc, pipeline_auroc(runs[0]))


def pipeline_auroc(run: RunFolder) -> float:
    from sklearn.metrics import roc_auc_score

    tested = read_scores(run)
    assert tested
    return float(roc_auc_score(tested.novel, tested.scores))


def test_runs_tested_on_other_images_are_not_tested_against_each_other(runs: list[RunFolder]) -> None:
    rows = compare_runs([runs[0], runs[2]], [read_scores(runs[0]), read_scores(runs[2])])
    assert rows[1].auroc is not None
    assert (rows[1].difference, rows[1].p_value) == (None, None)


def test_settings_that_differ_are_told_and_no_others(runs: list[RunFolder]) -> None:
    assert differing_settings(runs) == {"scorer": ["mse", "pixel-knn", "mse"], "seed": [0, 0, 1]}
    assert differing_settings([runs[0], runs[0]]) == {}


def test_curves_of_runs_with_one_name_are_told_apart(runs: list[RunFolder]) -> None:
    drawn = draw_runs(runs, [read_scores(run) for run in runs])
    (axes,) = drawn["roc_curves"].axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(set(names)) == 4  # with that of chance
    assert names[1] == runs[1].record.name.rpartition(" · ")[2]  # what all have in common is left out
    assert all(np.isfinite(line.get_ydata()).all() for line in axes.lines)
    assert len(drawn["loss_curves"].axes[0].lines) == 3


def test_the_page_says_it_all_and_is_kept_with_the_first(runs: list[RunFolder]) -> None:
    home = RunStore.find(str(runs[0].path.parent.parent))
    result = anomaly_ae.compare([run.record.id[:8] for run in runs], home=home)
    page = (runs[0].path / "comparisons" / f"with-{runs[1].path.name[:8]}-{runs[2].path.name[:8]}").resolve()
    assert result.page == str(page / "comparison.html")
    assert sorted(path.name for path in page.iterdir()) == [
        "comparison.html",
        "loss_curves.png",
        "roc_curves.png",
        "runs.csv",
    ]
    text = (page / "comparison.html").read_text()
    assert text.count("<svg") == 2
    assert f"{result.runs[1].auroc:.4f}" in text
    assert "Settings that differ" in text
