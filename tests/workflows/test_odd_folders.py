"""Odd folders given to whole commands: what is trained on, measured with and calibrated on is what was meant."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import CalibrationError, DataError, UsageError
from anomaly_ae.runs.store import RunStore

QUICK = RunConfig(preset="fast", epochs=1, scorer="mse", image_size="16", target_fpr=0.1)


def fill(folder: Path, count: int, seed: int, defect: bool = False) -> Path:
    """Pictures of noise, some with a white square."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng(1000 * seed + i).integers(90, 110, (20, 20), dtype=np.uint8)
        pixels[4:9, 4:9] += 100 * np.uint8(defect)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """With a detector of 40 pictures in an unpacked archive, in which 10 bad ones lie beside them."""
    place = tmp_path_factory.mktemp("odd")
    fill(place / "archive/parts/images/good", 40, 1)
    fill(place / "archive/parts/images/bad", 10, 2, defect=True)
    home = RunStore.find(str(place / "mlruns"))
    anomaly_ae.train(dataclasses.replace(QUICK, dataset=str(place / "archive")), home=home, tracking=False)
    return home


def test_what_is_bad_is_never_trained_on(home: RunStore) -> None:
    run = home.latest()
    assert run.config.normal == "good"
    evaluation = anomaly_ae.evaluate(home=home)
    assert {row.class_: row.role for row in evaluation.per_class} == {"good": "normal", "bad": "novel"}
    assert evaluation.auroc is not None
    assert evaluation.auroc > 0.9


def test_anomalies_alone_are_measured_as_anomalies_and_not_trained_on(home: RunStore, tmp_path: Path) -> None:
    bad = fill(tmp_path / "set/defects", 5, 3, defect=True).parent
    (bad / "good").mkdir()
    evaluation = anomaly_ae.evaluate(home=home, dataset=str(bad))
    found = [(row.class_, row.role, row.images) for row in evaluation.per_class]
    assert found == [("defects", "novel", 5), ("good", "normal", 0)]
    assert evaluation.false_positive_rate is None
    with pytest.raises(UsageError, match=r"normal is needed: .* called defects, .* and good holds no picture"):
        anomaly_ae.train(dataclasses.replace(QUICK, dataset=str(bad)), home=home, tracking=False)


def test_masks_are_no_pictures_to_calibrate_on_nor_are_anomalies(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "new/test/OK", 12, 4)
    fill(tmp_path / "new/test/NG", 6, 5, defect=True)
    for i in range(6):
        Image.fromarray(np.eye(20, dtype=np.uint8)).save(tmp_path / f"new/test/NG/{i:02}_mask.png")
    fill(tmp_path / "new/.cache", 3, 6)
    fill(tmp_path / "new/test/NG/.cache", 2, 6)
    result = anomaly_ae.calibrate(
        normal_folder=tmp_path / "new",
        anomaly_folder=tmp_path / "new/test/NG",
        target_fpr=0.1,
        home=home,
        tracking=False,
    )
    assert result.images == 12
    assert result.anomalies is not None
    assert result.anomalies.images == 6
    said = " ".join(capsys.readouterr().err.split())
    assert "OK 12 normal: to set the threshold" in said
    assert "NG 6 anomalous: not used" in said
    assert "left out: 5 hidden pictures" in said
    assert "left out: 2 hidden pictures" in said  # of the anomalies


def test_all_of_a_folder_is_what_it_is_said_to_be_whatever_its_files_are_called(
    home: RunStore, tmp_path: Path
) -> None:
    for folder in (fill(tmp_path / "defects", 6, 7, defect=True), fill(tmp_path / "more", 30, 8)):
        for i in range(3):
            (folder / f"{i:02}.png").rename(folder / f"crack_{i}.png")
    measured = anomaly_ae.evaluate(home=home, dataset=str(tmp_path / "defects")).per_class
    assert [row.images for row in measured if row.role == "novel"] == [6]
    result = anomaly_ae.calibrate(
        normal_folder=tmp_path / "more",
        anomaly_folder=tmp_path / "defects",
        target_fpr=0.1,
        home=home,
        tracking=False,
    )
    assert result.images == 30
    assert result.anomalies is not None
    assert result.anomalies.images == 6


def test_anomalies_alone_are_nothing_to_calibrate_on(home: RunStore, tmp_path: Path) -> None:
    fill(tmp_path / "bad", 12, 7, defect=True)
    with pytest.raises(UsageError, match=r"no normal picture in .*; its classes are bad"):
        anomaly_ae.calibrate(normal_folder=tmp_path, target_fpr=0.1, home=home, tracking=False)
    with pytest.raises(DataError, match="no folder says of any picture what it is"):
        anomaly_ae.calibrate(normal_folder=fill(tmp_path / "a/masks", 3, 8).parent, home=home, tracking=False)


def test_what_will_be_refused_is_refused_before_numbers_that_do_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "few/good", 10, 7).parent
    with pytest.raises(CalibrationError, match="at most"):
        anomaly_ae.train(dataclasses.replace(QUICK, dataset=str(folder), target_fpr=0.05), tracking=False)
    assert "to stop by" not in capsys.readouterr().err
    (folder / "good/bad.png").write_bytes(b"none")
    with pytest.raises(UsageError, match="8×8"):
        anomaly_ae.train(dataclasses.replace(QUICK, dataset=str(folder), image_size="4"), tracking=False)
    assert "bad.png" not in capsys.readouterr().err  # for no picture was read yet


def test_each_picture_that_was_not_trained_on_is_measured_with_once_and_what_is_left_out_is_counted_truly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "around/set"
    for file in sorted(fill(folder / "ok", 30, 8).iterdir()):
        shutil.copy(file, folder / f"ok/again {file.name}")
    fill(folder / "bad", 6, 9, defect=True)
    home = RunStore.find(str(tmp_path / "mlruns"))
    run = anomaly_ae.train(
        dataclasses.replace(QUICK, dataset=str(folder), normal="ok"), home=home, tracking=False, figures=False
    )
    parts = home.find_run(run.run_id).split["parts"]
    tested = parts["test"]["images"] - 6
    capsys.readouterr()
    evaluation = anomaly_ae.evaluate(home=home, dataset=str(folder.parent))
    said, made_with = capsys.readouterr().err, 30 - tested
    assert f"left out: {made_with} pictures that the detector was made with, and {made_with} copies of these" in said
    assert f"left out: {tested} pictures that are equal to others" in said
    assert evaluation.images == tested + 6
    places = said.partition("figures and tables are in ")[2].split()
    assert len(places) == len(set(places)) == 1
    for file in folder.glob("ok/[0-2]*"):
        file.unlink()  # copies alone
    assert anomaly_ae.evaluate(home=home, dataset=str(folder.parent)).images == tested + 6


def test_a_folder_that_holds_its_own_scores_and_what_people_take_for_pictures_is_counted_truly(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "new", 4, 10)
    for name in ("a.heic", "b.zip", "c.tar.gz", "notes.txt"):
        (folder / name).write_bytes(b"none")
    places = {"output": folder / "s.csv", "report": folder / "r.html", "home": home}
    for _ in range(2):
        assert anomaly_ae.score(folder, **places).skipped == 4
        said = capsys.readouterr().err
        assert "left out: 1 HEIC file, which cannot be read" in said
        assert "left out: 2 archive files, which are not looked into; unpack them" in said
        assert "replacing" not in said
    anomaly_ae.score(folder / "00.png", **places)
    assert f"replacing {folder / 's.csv'}, which holds the scores of {folder}" in capsys.readouterr().err


def test_at_what_size_and_in_what_colours_images_are_seen_is_said(home: RunStore, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for i, size in enumerate([(120, 90), (120, 90), (60, 50)]):  # width and height
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (*size[::-1], 3), np.uint8)).save(
            tmp_path / f"new/{i}.png"
        )
        result = anomaly_ae.score(tmp_path / "new", output=tmp_path / "s.csv", home=home)
        have = ("image has 90×120", "images have 90×120", "images have 90×120 at the median")[i]
        expected = f"16×16 in gray; the {have}"
        assert result.seen == expected
        assert f"seen at         {expected}" in str(result)
