import csv
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.regions import read_regions
from anomaly_ae.images.listing import Listing
from anomaly_ae.images.sources import Folder
from anomaly_ae.runtime import progress
from anomaly_ae.scorers import build_scorer
from tests.scoring.conftest import run

pytestmark = pytest.mark.usefixtures("small_shards")


NAMES = [f"{'sub/' if i % 2 else ''}{i:02}.png" for i in range(20)]


def test_every_file_is_a_row_with_its_score_or_an_error(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    (pictures / os.fsdecode(b"caf\xe9.png")).write_bytes((pictures / "00.png").read_bytes())
    scores = run(detector, pictures, tmp_path / "scores.parquet")
    assert (len(scores.listing), scores.scored, len(scores.bad)) == (22, 22, 1)
    table = pq.read_table(tmp_path / "scores.parquet").to_pandas().set_index("path")
    columns = ["score", "p_value", "threshold", "is_anomaly", "width", "height", "error", "regions", "path_bytes"]
    assert list(table.columns) == columns
    images = load_dataset("digits").files["train"].images[:20]
    expected = detector.score(images)
    rows = table.loc[NAMES]
    np.testing.assert_allclose(rows.score, expected, rtol=1e-6)  # the last bit depends on the place in the batch
    assert rows.p_value.tolist() == detector.p_values(expected).tolist()
    assert rows.is_anomaly.tolist() == detector.predict(images).tolist()
    assert set(zip(rows.width, rows.height, rows.threshold, strict=True)) == {(8, 8, detector.threshold)}
    bad = (
        pq.read_table(tmp_path / "scores.parquet").filter([name == "bad.png" for name in table.index]).to_pylist()[0]
    )
    assert "cannot be read" in bad.pop("error")
    assert {bad.pop("path"), *bad.values()} == {"bad.png", None}
    assert table.loc[r"caf\xe9.png", "path_bytes"] == b"caf\xe9.png"


def test_regions_are_one_text_in_every_kind_of_file_and_those_of_the_detector(
    detector: Detector, pictures: Path, tmp_path: Path
) -> None:
    for name in ("rows.parquet", "rows.csv", "rows.jsonl"):
        run(detector, pictures, tmp_path / name)
    with (tmp_path / "rows.csv").open(newline="") as file:
        texts = {row["path"]: row["regions"] or None for row in csv.DictReader(file)}
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "rows.parquet")
    assert dict(zip(*(table[name].to_pylist() for name in ("path", "regions")), strict=True)) == texts
    assert {line["path"]: line["regions"] for line in lines} == texts
    assert {row["path"]: row["regions"] for row in detector.score_folder(pictures)} == texts
    assert texts.pop("bad.png") is None
    expected = detector.regions([Image.open(pictures / name) for name in texts])
    assert [len(read_regions(text)) for text in texts.values()] == list(map(len, expected))
    assert {bool(regions) for regions in expected} == {True, False}
    for text, regions in zip(texts.values(), expected, strict=True):
        for ours, theirs in zip(read_regions(text), regions, strict=True):
            assert (ours.box, ours.area, ours.p) == (theirs.box, theirs.area, theirs.p)
            assert ours.peak == pytest.approx(theirs.peak, rel=1e-5)


def test_without_a_heat_map_there_are_no_regions(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    scorer = build_scorer("latent-knn")
    scorer.load_state({"memory": detector.encode(load_dataset("digits").files["train"].images[:9])})
    without = dataclasses.replace(detector, scorer=scorer, heat_level=None, heat_peaks=None)
    run(without, pictures, tmp_path / "rows.parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    assert (table["regions"].null_count, table["score"].null_count, len(table)) == (21, 1, 21)


def test_rows_of_a_folder_are_the_same_bit_for_bit_however_many_come_after(
    detector: Detector, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "few").mkdir()
    for name in ("00.png", "02.png", "04.png", "06.png", "08.png"):  # the first five of all
        shutil.copyfile(pictures / name, tmp_path / "few" / name)
    all_scores, few = (run(detector, folder, tmp_path / "s.csv").values for folder in (pictures, tmp_path / "few"))
    assert few.tobytes() == all_scores[:5].tobytes()


def test_one_image_that_is_named_costs_one_image(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    expected, seen = run(detector, pictures, tmp_path / "all.csv").values[0], list[int]()
    detector.network.encoder[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    assert run(detector, pictures / "00.png", tmp_path / "one.csv").values == pytest.approx(expected, rel=1e-5)
    run(detector, pictures / "sub", tmp_path / "ten.csv")
    assert seen == [1, 4, 4, 4]


def test_csv_and_json_lines_say_the_same(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    (pictures / 'a "b"\nc,d.png').write_bytes((pictures / "00.png").read_bytes())
    for kind in ("parquet", "csv", "jsonl"):
        run(detector, pictures, tmp_path / f"scores.{kind}")
    exact = pd.read_parquet(tmp_path / "scores.parquet")
    for table in (pd.read_csv(tmp_path / "scores.csv"), pd.read_json(tmp_path / "scores.jsonl", lines=True)):
        assert list(table.columns) == list(exact.columns)
        assert table.path.tolist() == exact.path.tolist()
        assert table.error.fillna("").tolist() == exact.error.fillna("").tolist()
        np.testing.assert_array_equal(table.score.astype("float32"), exact.score)
        assert (table.score > table.threshold).tolist() == (exact.score > exact.threshold).tolist()
        assert table.is_anomaly.isna().sum() == 1


def test_no_spreadsheet_takes_a_name_for_a_formula(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    names = ["=1+1.png", "+a.png", "-a.png", "@a.png", "\ta.png", "'a.png"]
    for name in names:
        (pictures / name).write_bytes((pictures / "00.png").read_bytes())
    for kind in ("csv", "jsonl", "parquet"):
        run(detector, pictures, tmp_path / f"scores.{kind}")
    assert set(names) < set(pd.read_parquet(tmp_path / "scores.parquet").path)
    assert set(names) < set(pd.read_json(tmp_path / "scores.jsonl", lines=True).path)
    paths = pd.read_csv(tmp_path / "scores.csv").path
    assert {f"'{name}" for name in names} == set(paths[paths.str.startswith("'")])
    assert "sub/01.png" in set(paths)


def test_an_output_that_is_a_link_stays_one(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for kind in ("parquet", "csv", "jsonl"):
        link, target = tmp_path / f"scores.{kind}", tmp_path / "elsewhere" / f"rows.{kind}"
        link.symlink_to(target)
        run(detector, pictures, link)
        assert link.is_symlink()
        assert target.stat().st_size > 0
        assert run(detector, pictures, link, resume=True).scored == 0
    assert not [*tmp_path.rglob("*.tmp")]


def test_the_last_line_off_a_terminal_says_that_all_is_done(
    detector: Detector, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(detector, pictures, tmp_path / "scores.csv")
    assert capsys.readouterr().err.splitlines()[-1] == "21 of 21 files"


def test_what_takes_long_is_said(
    detector: Detector,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    whole, said, text = Folder.list, list[str](), f"looking for images in {pictures}"

    def takes_until_it_is_said(source: Folder) -> Listing:
        end = time.monotonic() + 60
        while text not in "".join(said) and time.monotonic() < end:
            time.sleep(0.01)
            said.append(capsys.readouterr().err)
        return whole(source)

    monkeypatch.setattr(Folder, "list", takes_until_it_is_said)
    run(detector, pictures, tmp_path / "scores.csv")
    assert text in "".join(said)


def test_discoveries_are_a_column_that_follows_from_all_rows(
    detector: Detector, pictures: Path, tmp_path: Path
) -> None:
    scores = run(detector, pictures, tmp_path / "scores.parquet", fdr=0.5)
    table = pd.read_parquet(tmp_path / "scores.parquet")
    good = table.error.isna()
    found = detector.discoveries(torch.tensor(table.score[good].to_numpy()), 0.5).found
    assert table.is_discovery[good].tolist() == found.tolist()
    assert table.is_discovery[~good].isna().all()
    assert scores.discovered is not None
    assert int(scores.discovered.sum()) == int(found.sum()) > 0


def test_output_and_images_may_have_names_that_are_no_utf8(
    detector: Detector, pictures: Path, tmp_path: Path
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    pictures.rename(odd)
    for kind in ("parquet", "csv", "jsonl"):
        assert run(detector, odd, tmp_path / os.fsdecode(b"sc\xf6res." + kind.encode())).scored == 21
