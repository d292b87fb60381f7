"""Novel classes by themselves, from real runs of a moment on drawn pictures with two kinds of defects."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomaly_ae.metrics.ranking import auroc_interval, bootstrap_interval
from anomaly_ae.reporting import comparison  # whose `Tested` pytest would take for a test
from anomaly_ae.reporting.class_means import ALL_NOVEL
from anomaly_ae.reporting.text.listings import CLASSES_NOTE, narrow_classes
from anomaly_ae.runs.pipeline_results import PipelineResult
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows.pipeline import run_pipeline

SETTINGS = "epochs: 1\nautoencoder: vanilla\nimage_size: 16\nscorer: mse\ntarget_fpr: 0.2\n"


def draw_pictures(folder: Path) -> None:
    """MVTec's layout: noise, with a bright line in `crack`, whose masks are known, and hardly a spot in `spot`."""
    rng = np.random.default_rng(0)
    counts = {"train/good": 40, "test/good": 12, "test/crack": 9, "test/spot": 6}
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels, defect = rng.integers(100, 140, (16, 16)), np.zeros((16, 16), bool)
            if name.endswith("crack"):
                defect[rng.integers(16)] = True
            elif name.endswith("spot"):
                defect[4:6, 4:6] = True
            pixels[defect] += 60 if name.endswith("crack") else 5
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
            if name.endswith("crack"):
                masks = folder / "ground_truth" / "crack"
                masks.mkdir(parents=True, exist_ok=True)
                Image.fromarray(defect.astype(np.uint8) * 255).save(masks / f"{i}_mask.png")


@dataclass(frozen=True)
class Ran:
    result: PipelineResult
    tested: list[comparison.Tested]  # by seed


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("kinds")
    draw_pictures(folder / "plates")
    (folder / "p.yaml").write_text(f"dataset: {folder / 'plates'}\n{SETTINGS}matrix: {{seed: [0, 1]}}\n")
    home = RunStore.find(str(folder / "mlruns"))
    result = run_pipeline(folder / "p.yaml", home=home, tracking=False, figures=False)
    tested = [comparison.read_scores(home.find_run(cell.run)) for cell in result.cells]
    return Ran(result, [each for each in tested if each])


def test_a_row_for_each_kind_has_the_means_over_the_seeds(ran: Ran) -> None:
    rows = {row.class_: row for row in ran.result.classes}
    assert list(rows) == [ALL_NOVEL, "crack", "spot"]
    assert [(row.images, row.seeds) for row in rows.values()] == [(15, 2), (9, 2), (6, 2)]
    for name in ("crack", "spot"):
        aurocs = []
        for each in ran.tested:
            among = (each.classes == name) | ~each.novel
            aurocs.append(roc_auc_score(each.novel[among], each.scores[among]))
        assert rows[name].auroc == pytest.approx(np.mean(aurocs))
    found = [each.alarms[each.classes == "crack"].mean() for each in ran.tested]
    false = [each.alarms[each.classes == "good"].mean() for each in ran.tested]
    assert rows["crack"].detection_rate == pytest.approx(np.mean(found))
    assert [row.false_alarm_rate for row in rows.values()] == pytest.approx([np.mean(false)] * 3)


def test_the_intervals_are_of_the_mean_of_the_seeds_over_images(ran: Ran) -> None:
    (row,) = (row for row in ran.result.classes if row.class_ == "spot")
    spots = np.stack([each.scores[each.classes == "spot"] for each in ran.tested])
    normal = np.stack([each.scores[~each.novel] for each in ran.tested])
    of_delong, bootstrapped = auroc_interval(spots, normal), bootstrap_interval(spots, normal)
    assert (row.low, row.high) == (of_delong.low, of_delong.high)
    assert (row.bootstrap_low, row.bootstrap_high) == (bootstrapped.low, bootstrapped.high)


def test_pixels_are_those_of_the_kinds_that_have_masks(ran: Ran) -> None:
    rows = {row.class_: row for row in ran.result.classes}
    assert rows["spot"].pixel_auroc is None
    assert rows["crack"].pixel_auroc == rows[ALL_NOVEL].pixel_auroc
    assert rows["crack"].pixel_auroc is not None


def test_the_table_is_printed_and_kept(ran: Ran) -> None:
    printed = narrow_classes(ran.result.classes)
    assert {"DeLong 95 %", "bootstrap 95 %", "pixel AUROC", "PRO"} <= printed[0].keys()
    text = str(ran.result)
    assert CLASSES_NOTE.split(",")[0] in text
    assert next(row["bootstrap 95 %"] for row in printed if row["class"] == "spot") in text
    kept = pd.read_csv(Path(ran.result.run_folder) / "classes.csv")
    assert kept["class"].tolist() == [ALL_NOVEL, "crack", "spot"]
    assert PipelineResult.read(ran.result.to_dict()) == ran.result


def test_seeds_that_were_tested_on_other_images_have_no_interval_of_their_mean(tmp_path: Path) -> None:
    home = RunStore.find(str(tmp_path / "mlruns"))
    (tmp_path / "p.yaml").write_text(f"normal: all-but:7\n{SETTINGS}matrix: {{seed: [0, 1]}}\n")  # no official split
    (row,) = run_pipeline(tmp_path / "p.yaml", home=home, tracking=False, figures=False).classes
    assert (row.class_, row.low, row.bootstrap_high) == ("7", None, None)
    assert 0 < row.auroc < 1
    assert narrow_classes([row])[0]["DeLong 95 %"] == ""


def test_cells_that_differ_in_what_is_normal_have_no_such_rows(tmp_path: Path) -> None:
    home = RunStore.find(str(tmp_path / "mlruns"))
    (tmp_path / "p.yaml").write_text(f"{SETTINGS}matrix: {{normal: ['0', '1']}}\n")
    assert run_pipeline(tmp_path / "p.yaml", home=home, tracking=False, figures=False).classes == []
