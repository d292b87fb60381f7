import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import anomaly_ae
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.errors import AnomalyAEError, DataError, DataMissing, UsageError
from anomaly_ae.images.sources import open_source
from anomaly_ae.scoring.marks import Mark, MarkFile
from tests.conftest import Cli, Trained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Digits that no detector has seen, one pixel being other, some of the novel ones in a folder called good."""
    digits = load_dataset("digits").files["train"]
    for i in range(150):
        image, label = digits.images[i, 0].numpy().copy(), int(digits.labels[i])
        image[0, 0] = 255 - image[0, 0]
        name = "good" if label < 3 or i < 10 else "novel"
        (tmp_path / "in" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "in" / name / f"{i:03}_{label}.png")
    return tmp_path / "in"


@pytest.fixture
def marks(folder: Path) -> Path:
    """The truth about each of them."""
    file, source = MarkFile.beside(folder.parent / "scores.parquet"), open_source(folder)
    for path in source.pictures().paths:
        file.append(Mark.of(source, path, "good" if path[-5:-4] in b"012" else "bad"))
    return file.path


def scores_of(trained: Trained, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    files = sorted(folder.rglob("*.png"))
    images = torch.from_numpy(np.stack([np.array(Image.open(file)) for file in files]))[:, None]
    return trained.detector().score(images).numpy(), np.array([file.stem[-1] not in "012" for file in files])


def kept_of(trained: Trained, marks: Path) -> set[Path]:
    """What the run has of evaluations by files of that name."""
    return set((trained.run.path / "evaluations").glob(f"{marks.name[:60]}-????????/metrics.json"))


def test_marked_images_set_the_threshold_and_are_found(trained: Trained, folder: Path, marks: Path) -> None:
    scores, novel = scores_of(trained, folder)
    result = anomaly_ae.calibrate(trained.run.record.id, marks=marks, target_fpr=0.1, home=trained.home)
    detector = anomaly_ae.load(result.run_id, mlruns=str(trained.home.root))
    assert torch.allclose(detector.calibration.scores, torch.from_numpy(np.sort(scores[~novel])), atol=1e-5)
    assert result.threshold == pytest.approx(np.sort(scores[~novel])[-(((~novel).sum() + 1) // 10)], abs=1e-5)
    assert result.anomalies is not None
    assert result.anomalies.detection_rate == pytest.approx((scores[novel] > result.threshold).mean())
    assert result.drift is not None
    assert result.marks is not None
    assert (result.marks.good, result.marks.bad, result.marks.unmarked) == ((~novel).sum(), novel.sum(), 0)
    assert not [text for text in result.differences if "without a mark" in text or "own test set" in text]
    against = [f for f in (folder / "good").iterdir() if f.stem[-1] not in "012"]
    assert result.marks.contradictions == len(against) > 0
    assert "is marked bad" in result.marks.examples[0]
    text = str(result)
    assert f"{(~novel).sum()} good, {novel.sum()} bad" in text
    assert "to the names of their folders: good/" in text


def test_one_picture_in_two_files_that_is_marked_good_and_bad_is_measured_as_neither(
    trained: Trained, folder: Path, marks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {
        row.class_: row.images
        for row in anomaly_ae.evaluate(trained.run.record.id, marks=marks, home=trained.home).per_class
    }
    one = min((folder / "novel").iterdir())
    Image.open(one).save(folder / "good" / "the same.bmp")
    MarkFile(marks).append(Mark.of(open_source(folder), b"good/the same.bmp", "good"))
    after = anomaly_ae.evaluate(trained.run.record.id, marks=marks, home=trained.home)
    assert {row.class_: row.images for row in after.per_class} == before | {"bad": before["bad"] - 1}
    assert "left out: 2 pictures that are both normal and not" in capsys.readouterr().err


def test_it_is_said_how_many_marked_images_measure_the_run(trained: Trained, folder: Path, marks: Path) -> None:
    test = trained.detector().split.test.take(load_dataset("digits"))
    file, source = MarkFile(marks), open_source(folder)
    for name, index in (("good", 0), ("novel", len(test) - 1)):  # one of each kind
        Image.fromarray(test.images[index, 0].numpy()).save(folder / name / "of the test.png")
        file.append(Mark.of(source, f"{name}/of the test.png".encode(), "good" if name == "good" else "bad"))
    both = "1 normal and 1 anomalous images that set the threshold are"
    for detect, count in ((None, "1 normal image that set the threshold is"), (0.9, both)):
        result = anomaly_ae.calibrate(trained.run.record.id, marks=marks, detect=detect, home=trained.home)
        assert [text for text in result.differences if text.startswith(count)]


def test_what_was_marked_is_measured_on(trained: Trained, folder: Path, marks: Path) -> None:
    (scores, novel), before = scores_of(trained, folder), kept_of(trained, marks)
    result = anomaly_ae.evaluate(trained.run.record.id, marks=marks, home=trained.home, figures=False)
    assert result.auroc == pytest.approx(roc_auc_score(novel, scores), abs=1e-6)
    assert result.images == 150
    assert result.true_positive_rate == (scores[novel] > trained.detector().threshold).mean()
    assert [(row.class_, row.images) for row in result.per_class] == [
        ("good", (~novel).sum()),
        ("bad", novel.sum()),
    ]
    assert result.marks is not None
    (kept,) = kept_of(trained, marks) - before
    assert json.loads(kept.read_text())["auroc"] == result.auroc
    beside = anomaly_ae.evaluate(
        trained.run.record.id, marks=marks, compare_scorers=["mse"], home=trained.home, figures=False
    )
    assert [row.scorer for row in beside.beside] == [trained.detector().config.scorer, "mse"]
    lines = marks.read_text().splitlines(keepends=True)
    marks.write_text("".join(lines[:100]))
    fewer = anomaly_ae.evaluate(trained.run.record.id, marks=marks, home=trained.home, figures=False)
    again = json.loads(kept.read_text())
    assert (again["images"], again["beside"]) == (fewer.images, []) == (100, [])  # of others


def test_marks_in_files_of_one_name_are_kept_apart(trained: Trained, marks: Path, tmp_path: Path) -> None:
    before = kept_of(trained, marks)
    lines = marks.read_text().splitlines(keepends=True)
    for name, some in (("monday", lines[:100]), ("a" * 200, lines[50:])):
        (tmp_path / name).mkdir()
        (tmp_path / name / marks.name).write_text("".join(some))
    results = [
        anomaly_ae.evaluate(trained.run.record.id, marks=file, home=trained.home, figures=False)
        for file in sorted(tmp_path.glob(f"*/{marks.name}"))
    ]
    kept = [json.loads(file.read_text()) for file in kept_of(trained, marks) - before]
    assert {each["auroc"] for each in kept} == {result.auroc for result in results}
    assert len(kept) == 2
    long = marks.rename(marks.with_name("x" * 255))
    anomaly_ae.evaluate(trained.run.record.id, marks=long, home=trained.home, figures=False)
    assert len(kept_of(trained, long)) == 1


def test_marks_that_do_not_hold_are_left_out_and_counted(trained: Trained, folder: Path, marks: Path) -> None:
    good = sorted((folder / "good").glob("*_[012].png"))
    good[0].write_bytes(good[1].read_bytes())
    good[2].unlink()
    with marks.open("a") as file:
        file.write("no mark\n")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "new.png")
    result = anomaly_ae.calibrate(trained.run.record.id, marks=marks, home=trained.home)
    assert result.marks is not None
    assert (result.marks.changed, result.marks.damaged, result.marks.good) == (2, 1, len(good) - 2)
    assert result.images == len(good) - 2
    assert [text for text in result.differences if "mark all, or some at random" in text]
    assert "2 left out, for their files have changed; 1 line of the file left out" in str(result)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"other")
    with pytest.raises(DataMissing, match="none of the marks"):
        anomaly_ae.calibrate(trained.run.record.id, marks=marks, home=trained.home)


def test_copies_marked_good_and_bad_count_for_nothing_and_are_listed(
    trained: Trained, folder: Path, marks: Path
) -> None:
    run = trained.run.record.id
    before = anomaly_ae.calibrate(run, marks=marks, home=trained.home)
    one, other, third = sorted((folder / "good").glob("*_[012].png"))[:3]
    file, source = MarkFile(marks), open_source(folder)
    for name, original, mark in (("x", one, "bad"), ("y", other, "good"), ("z", third, "undecided")):
        shutil.copyfile(original, folder / f"{name}.png")
        file.append(Mark.of(source, f"{name}.png".encode(), mark))
    after = anomaly_ae.calibrate(run, marks=marks, home=trained.home)
    assert before.marks is not None
    assert before.marks.copies == 0
    assert after.marks is not None
    assert after.images == before.images - 1
    assert (after.marks.good, after.marks.bad) == (before.marks.good, before.marks.bad)  # one less, y is one more
    assert (after.marks.copies, after.marks.changed, after.marks.undecided) == (2, 0, 1)
    assert after.marks.copies_examples == [f"good/{one.name} is marked good", "x.png is marked bad"]
    assert f"of copies of one image: good/{one.name} is marked good; x.png is marked bad" in str(after)
    measured = anomaly_ae.evaluate(run, marks=marks, home=trained.home, figures=False)
    assert measured.images == 149  # without `one`, and with `other` once
    assert measured.marks == after.marks


def test_marks_that_say_neither_good_nor_bad_are_an_error(trained: Trained, folder: Path, marks: Path) -> None:
    lines = [json.loads(line) for line in marks.read_text().splitlines()[:3]]
    same = {"sha256": lines[0]["sha256"]}
    (folder / lines[1]["path"]).write_bytes((folder / lines[0]["path"]).read_bytes())
    chosen = (lines[0] | {"mark": "good"}, lines[1] | {"mark": "bad"} | same, lines[2] | {"mark": "undecided"})
    marks.write_text("".join(json.dumps(line) + "\n" for line in chosen))
    for command in (anomaly_ae.calibrate, anomaly_ae.evaluate):
        with pytest.raises(DataMissing, match=r"says of no image .*1 undecided; 2 left out, for copies"):
            command(trained.run.record.id, marks=marks, home=trained.home)


def test_images_that_the_detector_was_made_with_do_not_count(trained: Trained, tmp_path: Path) -> None:
    digits = load_dataset("digits").files["train"]
    (tmp_path / "in").mkdir()
    for i in trained.detector().split.fit.indices[:30].tolist():
        Image.fromarray(digits.images[i, 0].numpy()).save(tmp_path / "in" / f"{i}.png")
    file, source = MarkFile(tmp_path / "x.marks.jsonl"), open_source(tmp_path / "in")
    for path in source.pictures().paths:
        file.append(Mark.of(source, path, "good"))
    with pytest.raises(DataError, match="was made with all 30"):
        anomaly_ae.calibrate(trained.run.record.id, marks=file.path, home=trained.home)


def test_what_set_the_threshold_is_not_measured_with(trained: Trained, marks: Path) -> None:
    child = anomaly_ae.calibrate(trained.run.record.id, marks=marks, home=trained.home)
    with pytest.raises(DataError, match=r"was made with all .* those marked good"):
        anomaly_ae.evaluate(child.run_id, marks=marks, home=trained.home, figures=False)


def test_bad_marks_alone_are_measured_by_the_calibration_there_is(
    trained: Trained, folder: Path, marks: Path
) -> None:
    lines = marks.read_text().splitlines(keepends=True)
    marks.write_text("".join(line for line in lines if '"mark": "bad"' in line))
    result = anomaly_ae.calibrate(trained.run.record.id, marks=marks, detect=0.9, home=trained.home)
    assert result.calibrated_on == "the same images as before"
    assert result.anomalies is not None
    assert result.anomalies.detection_rate >= 0.9


def test_marks_on_the_command_line(cli: Cli, trained: Trained, marks: Path, folder: Path) -> None:
    place = ("--mlruns", str(trained.home.root))
    result = cli("calibrate", trained.run.record.id, "--marks", str(marks), *place, "--json").json()
    assert result["marks"]["good"] > 20
    measured = cli("evaluate", trained.run.record.id, "--marks", str(marks), *place, "--no-figures", "--json").json()
    assert measured["marks"] == result["marks"]
    for command in ("calibrate", "evaluate"):
        both = cli(command, trained.run.record.id, "--marks", str(marks), "--dataset", str(folder), *place)
        assert both.code == 2
        assert "--marks" in both.err
        assert "leave" in both.err
        missing = cli(command, trained.run.record.id, "--marks", "nothing.marks.jsonl", *place)
        assert (missing.code, "there are no marks in nothing.marks.jsonl" in missing.err) == (1, True)


def test_the_refusals_are_errors_of_ours() -> None:
    with pytest.raises(AnomalyAEError):
        anomaly_ae.evaluate(marks="a", dataset="b")
    with pytest.raises(UsageError, match="say which images are normal"):
        anomaly_ae.calibrate(marks="a", normal_folder="b")
