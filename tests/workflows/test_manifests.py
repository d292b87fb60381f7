"""Manifests through the whole: trained on, gone on with, changed, moved, evaluated, calibrated; as folders are."""

import json
from pathlib import Path

import numpy as np
import pytest

import anomaly_ae
from anomaly_ae.datasets import decoded
from anomaly_ae.errors import DataChanged, UsageError
from anomaly_ae.runs.store import RunStore
from anomaly_ae.storage import memmap
from anomaly_ae.workflows.train import resume
from tests.conftest import Cli, interrupted_at
from tests.datasets.test_manifest import augmented, colour_map
from tests.workflows.test_data_that_changes import make, picture, save, train


def table(folder: Path, name: str = "set.csv") -> Path:
    """A manifest of the pictures of a folder, with the names of their folders for labels."""
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.glob("*/*.png"))]
    (folder / name).write_text("\n".join(["path,label", *rows]))
    return folder / name


def test_a_manifest_is_trained_on_and_evaluated_as_the_folder_that_it_lists(home: RunStore, tmp_path: Path) -> None:
    folder = make(tmp_path / "set")
    by_folder, by_table = (home.find_run(train(home, place)) for place in (folder, table(folder)))
    assert by_table.split["parts"] == by_folder.split["parts"]
    assert by_table.split["pictures"] == by_folder.split["pictures"]
    weights = [run.detector_folder() / "weights.safetensors" for run in (by_folder, by_table)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    whole = [anomaly_ae.evaluate(run.record.id, home=home).to_dict() for run in (by_folder, by_table)]
    assert whole[0]["per_class"] == whole[1]["per_class"]
    evaluated = anomaly_ae.evaluate(by_table.record.id, dataset=str(folder), home=home)  # which holds the same
    assert evaluated.to_dict()["per_class"] == whole[0]["per_class"]


def test_lookout_for_vision_through_the_command_line(cli: Cli, tmp_path: Path) -> None:
    for i in range(60):
        save(tmp_path / f"train/images/good {i}.png", picture(i))
    for i in range(6):
        save(tmp_path / f"test/images/good {i}.png", picture(500 + i))
        spotted, mask = picture(1000 + i), np.full((16, 16, 3), 255, np.uint8)
        spotted[4:8, 4:8], mask[4:8, 4:8] = 250, (0x23, 0xA4, 0x36)
        save(tmp_path / f"test/images/spot {i}.png", spotted)
        save(tmp_path / f"test/masks/spot {i}.png", mask)
    (datasets := tmp_path / "datasets").mkdir()  # beside which the service's export has the images
    colours = colour_map(BACKGROUND="#ffffff", spot="#23A436")
    trained = [augmented(f"s3://bucket/export/train/images/good {i}.png") for i in range(60)]
    tested = [augmented(f"s3://bucket/export/test/images/good {i}.png") for i in range(6)]
    tested += [
        augmented(
            f"s3://bucket/export/test/images/spot {i}.png",
            "anomaly",
            anomaly_mask_ref=f"s3://bucket/export/test/masks/spot {i}.png",
            anomaly_mask_ref_metadata=colours,
        )
        for i in range(6)
    ]
    (datasets / "train.manifest").write_text("\n".join(trained) + "\n")
    (datasets / "test.manifest").write_text("\n".join(tested) + "\n")
    settings = ("--preset", "fast", "--image-size", "16", "--epochs", "30", "--no-tracking", "--no-figures")
    place = ("--mlruns", str(tmp_path / "mlruns"))
    ended = cli("train", "--dataset", str(datasets / "train.manifest"), *settings, *place)
    assert ended.code == 0
    assert (
        "60 files at addresses are taken from beside it, s3://bucket/export/train/images/good 0.png as " in ended.err
    )
    assert "train.manifest: a manifest of 60 lines\n  normal  60  normal: to learn from" in ended.err
    ended = cli("evaluate", "--dataset", str(datasets / "test.manifest"), "--json", *place)
    found = json.loads(ended.out)
    assert {row["class"]: row["images"] for row in found["per_class"]} == {"normal": 6, "anomaly": 6}
    assert found["pixel_auroc"] > 0.9  # by masks on white
    scored = cli("score", str(tmp_path / "test/images"), "--output", str(tmp_path / "scores.csv"), *place)
    assert scored.code == 0
    assert "12 images" in scored.out
    refused = cli("evaluate", "--dataset", str(datasets / "gone.manifest"), *place)
    assert refused.code == 1
    assert "there is no manifest" in refused.err


def test_what_changes_in_a_manifest_is_what_changes_in_a_folder(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = table(make(tmp_path / "set"))
    with interrupted_at(2):
        train(home, manifest)
    before = manifest.read_text()
    save(tmp_path / "set/good/999.png", picture(2000))
    rows = before.splitlines()
    at = rows.index("good/007.png,good")
    manifest.write_text("\n".join([rows[0], "good/999.png,good", *reversed(rows[1:])]))  # in whatever order
    after = manifest.read_text()
    manifest.write_text("\n".join(rows[:at] + rows[at + 1 :]))
    with pytest.raises(DataChanged, match=r"1 are gone, the first good/007\.png"):
        resume("latest", home=home)
    manifest.write_text(before.replace("good/007.png,good", "good/007.png,spot"))
    with pytest.raises(DataChanged, match=r"the images of .*set.csv are not those the detector was trained on"):
        resume("latest", home=home)
    manifest.write_text(after)
    resume("latest", home=home)
    assert "1 file more than when this training began in" in capsys.readouterr().err
    assert {row.class_: row.images for row in anomaly_ae.evaluate(home=home).per_class} == {"good": 6, "spot": 4}
    (tmp_path / "set").rename(tmp_path / "moved")
    moved = anomaly_ae.evaluate(home=home, dataset=str(tmp_path / "moved/set.csv"))
    assert {row.class_: row.images for row in moved.per_class} == {"good": 6, "spot": 4}
    kept = (tmp_path / "moved/set.csv").read_text()
    (tmp_path / "moved/set.csv").write_text(kept.replace("spot/0.png,spot", "spot/0.png,good"))
    other = anomaly_ae.evaluate(home=home, dataset=str(tmp_path / "moved/set.csv"))  # and so another data set
    assert {row.class_: row.images for row in other.per_class} == {"good": 8, "spot": 3}


def test_splits_are_heeded_and_copies_between_them_left_out(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "set")
    for i in range(10):
        save(folder / f"more/{i}.png", picture(i if i < 4 else 3000 + i))  # four of them are those of the training
    rows = [f"good/{i:03}.png;0;train" for i in range(60)] + [f"spot/{i}.png;1;test" for i in range(4)]
    rows += [f"more/{i}.png;0;test" for i in range(10)]
    (tmp_path / "set.csv").write_text("\n".join(["path;label;split", *(f"set/{row}" for row in rows)]))
    train(home, tmp_path / "set.csv")  # what alone is trained on is normal
    said = capsys.readouterr().err
    assert "left out: 4 test pictures that are training pictures, too: set/more/0.png" in said
    assert {row.class_: row.images for row in anomaly_ae.evaluate(home=home).per_class} == {"0": 6, "1": 4}


def test_pictures_of_a_manifest_are_kept_until_one_changes(
    home: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = table(make(tmp_path / "set"))
    monkeypatch.setenv("ANOMALY_AE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memmap, "memory_budget", lambda: 200)
    train(home, manifest)
    decode = decoded.decode_files
    asked: list[int] = []
    monkeypatch.setattr(decoded, "decode_files", lambda *given: asked.append(len(given[2])) or decode(*given))
    train(home, manifest)
    assert not asked
    save(tmp_path / "set/good/003.png", picture(99))
    train(home, manifest)
    assert asked == [64]


def test_other_normal_pictures_come_from_a_manifest(home: RunStore, tmp_path: Path) -> None:
    manifest = table(make(tmp_path / "set"))
    train(home, manifest)
    with pytest.raises(UsageError, match="the detector was trained on"):
        anomaly_ae.calibrate(dataset=str(manifest), home=home, tracking=False)
    (tmp_path / "new").mkdir()
    for i in range(25):
        save(tmp_path / f"new/{i}.png", picture(5000 + i))
        save(tmp_path / f"new/bad {i}.png", picture(6000 + i, 100))
    rows = [row for i in range(25) for row in (f"{i}.png,good", f"bad {i}.png,spot")]
    (tmp_path / "new/set.csv").write_text("\n".join(["path,label", *rows]))
    new = str(tmp_path / "new/set.csv")
    assert anomaly_ae.calibrate(dataset=new, home=home, tracking=False).images == 25
    both = anomaly_ae.calibrate(normal_folder=new, anomaly_folder=new, home=home, tracking=False)
    assert both.images == 25
    assert both.anomalies is not None
    assert both.anomalies.images == 25


def test_a_pipeline_has_a_manifest_too(cli: Cli, tmp_path: Path) -> None:
    table(make(tmp_path / "set"), "mine.csv")
    pipeline = (
        "data: {dataset: set/mine.csv}\ndetection: {preset: fast}\ntraining: {epochs: 2}\nmatrix: {seed: [0, 1]}\n"
    )
    (tmp_path / "two.yaml").write_text(pipeline)
    ended = cli("run", "two.yaml", "--no-figures", "--no-tracking", "--json")
    assert ended.code == 0, ended.err
    assert [cell["status"] for cell in json.loads(ended.out)["cells"]] == ["FINISHED"] * 2
