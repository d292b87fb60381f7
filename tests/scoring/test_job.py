import csv
import dataclasses
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from anomaly_ae.autoencoders import inference
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.regions import read_regions
from anomaly_ae.errors import CalibrationError, DataMissing, Interrupted, RunBusy, StorageError, UsageError
from anomaly_ae.images.sources import Folder, open_source
from anomaly_ae.runtime import progress
from anomaly_ae.scorers import build_scorer
from anomaly_ae.scoring import job, ledger
from anomaly_ae.scoring.job import Job, Scores, score_job
from anomaly_ae.scoring.ledger import Ledger
from tests.conftest import Trained

NAMES = [f"{'sub/' if i % 2 else ''}{i:02}.png" for i in range(20)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """21 files are six batches in three shards."""
    monkeypatch.setattr(inference, "BATCH_IMAGES", 4)
    monkeypatch.setattr(ledger, "SHARD", 9)


@pytest.fixture
def detector(trained: Trained) -> Detector:
    return trained.detector()


def run(detector: Detector, folder: Path | str, output: Path, resume: bool = False, **options: Any) -> Scores:
    source = open_source(folder)
    return score_job(Job(detector, detector.calibration, source, output, workers=2, **options), resume)


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
    detector.network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
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
    whole = Folder.list
    monkeypatch.setattr(Folder, "list", lambda source: (time.sleep(0.3), whole(source))[1])
    run(detector, pictures, tmp_path / "scores.csv")
    assert f"looking for images in {pictures}" in capsys.readouterr().err


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


def interrupted_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after so many batches."""
    whole, calls = job.score_batch, list[int]()

    def score_batch(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(job, "score_batch", score_batch)


@pytest.mark.parametrize("batches", [0, 1, 3, 5])
def test_an_interrupted_job_goes_on_to_the_same_rows(
    detector: Detector, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    run(detector, pictures, tmp_path / "clean.parquet")
    with monkeypatch.context() as patch:
        interrupted_after(batches, patch)
        with pytest.raises(Interrupted, match=r"of 21 files are scored, and .*resume=True"):
            run(detector, pictures, tmp_path / "scores.parquet")
    assert not (tmp_path / "scores.parquet").exists()
    scores = run(detector, pictures, tmp_path / "scores.parquet", resume=True)
    assert scores.scored == 21 - 4 * batches
    assert (tmp_path / "scores.parquet").read_bytes() == (tmp_path / "clean.parquet").read_bytes()


def test_resuming_scores_what_is_new_or_changed_and_only_that(
    detector: Detector, pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores.parquet"
    run(detector, pictures, output)
    before = pd.read_parquet(output).set_index("path")
    shutil.copyfile(pictures / "02.png", pictures / "0.png")
    shutil.copyfile(pictures / "04.png", pictures / "00.png")
    (pictures / "06.png").unlink()
    scores = run(detector, pictures, output, resume=True)
    assert scores.changes is not None
    assert dataclasses.asdict(scores.changes) == {"new": 1, "changed": 1, "gone": 1}
    assert scores.scored == 2
    after = pd.read_parquet(output).set_index("path")
    assert list(after.index) == [*before.index, "0.png"]
    assert after.score["0.png"] == pytest.approx(before.score["02.png"], rel=1e-6)
    assert after.score["00.png"] == pytest.approx(before.score["04.png"], rel=1e-6)
    assert after.score["06.png"] == before.score["06.png"]
    assert run(detector, pictures, output, resume=True).scored == 0


def test_a_file_that_could_not_be_opened_is_tried_again(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    output, hidden = tmp_path / "scores.parquet", tmp_path / "hidden.png"
    source = open_source(pictures)
    listed = source.list()
    (pictures / "02.png").rename(hidden)  # gone between the listing and the reading

    class Late(type(source)):  # type: ignore[misc]
        def list(self) -> Any:
            return listed

    late = Late(source.name)
    first = score_job(Job(detector, detector.calibration, late, output))
    assert next(text for _, text in first.bad) == "cannot be opened: No such file or directory"
    hidden.rename(pictures / "02.png")
    second = score_job(Job(detector, detector.calibration, late, output), resume=True)
    assert (second.scored, len(second.bad)) == (1, 1)


def test_without_resume_all_is_scored_anew(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert run(detector, pictures, tmp_path / "scores.parquet").scored == 21


def test_another_detector_or_folder_is_refused(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.parquet"
    run(detector, pictures, output)
    other = dataclasses.replace(detector, calibration=detector.calibration.at(target_fpr=0.2))
    with pytest.raises(UsageError, match="another detector"):
        run(other, pictures, output, resume=True)
    with pytest.raises(UsageError, match="the job to resume is of"):
        run(detector, pictures / "sub", output, resume=True)


def test_another_rate_needs_no_scoring(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    run(detector, pictures, tmp_path / "scores.parquet")
    lenient = detector.calibration.at(target_fpr=0.5)
    again = Job(detector, lenient, open_source(pictures), tmp_path / "scores.parquet")
    assert score_job(again, resume=True).scored == 0
    assert set(pd.read_parquet(tmp_path / "scores.parquet").threshold.dropna()) == {lenient.threshold}


def test_two_at_once_on_one_output_are_not_let(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    with Ledger.beside(tmp_path / "scores.parquet", detector).locked(), pytest.raises(RunBusy, match="same output"):
        run(detector, pictures, tmp_path / "scores.parquet")


def test_nothing_is_left_by_what_was_refused(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataMissing):
        run(detector, tmp_path / "none", tmp_path / "out" / "scores.parquet")
    with pytest.raises(UsageError, match=r"\.parquet, \.pq, \.csv, \.jsonl, and .*scores\.txt"):
        run(detector, pictures, tmp_path / "scores.txt")
    conditional = detector.calibration.at(guarantee="conditional")
    with pytest.raises(CalibrationError, match="marginal"):
        conditional.check_discoveries(0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "none"]


def test_what_a_killed_writer_left_is_removed(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / ".scores.csv.123.tmp").write_text("half")
    run(detector, pictures, tmp_path / "scores.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".scores.csv.ledger", "in", "scores.csv"]


def test_a_ledger_whose_list_is_damaged_says_so(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    run(detector, pictures, tmp_path / "scores.parquet")
    (tmp_path / ".scores.parquet.ledger" / "listing").write_bytes(b"half")
    with pytest.raises(StorageError, match="is damaged; leave resume out"):
        run(detector, pictures, tmp_path / "scores.parquet", resume=True)


@pytest.mark.parametrize("job", ["", "{}", "[]", "7", '{"format": 4}', "\udcff"])
def test_a_ledger_whose_job_is_damaged_says_so(detector: Detector, pictures: Path, tmp_path: Path, job: str) -> None:
    run(detector, pictures, tmp_path / "scores.parquet")
    (tmp_path / ".scores.parquet.ledger" / "job.json").write_text(job, errors="surrogateescape")
    with pytest.raises(StorageError, match="is damaged; leave resume out"):
        run(detector, pictures, tmp_path / "scores.parquet", resume=True)
    assert run(detector, pictures, tmp_path / "scores.parquet").scored == 21


Damage = Callable[[Path], object]


def flip(shard: Path) -> None:
    """One bit of the file, another one for each shard."""
    content, draw = bytearray(shard.read_bytes()), random.Random(shard.name)
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    shard.write_bytes(content)


def replace_by_a_folder(shard: Path) -> None:
    shard.unlink()
    (shard / "sub").mkdir(parents=True)


def replace_by_a_link_to_nothing(shard: Path) -> None:
    shard.unlink()
    shard.symlink_to("nowhere")


DAMAGES: list[Damage] = [
    Path.unlink,
    lambda shard: shard.write_bytes(b""),
    lambda shard: shard.write_bytes(shard.read_bytes()[:-7]),
    lambda shard: shard.write_bytes(shard.read_bytes() + b"more"),
    lambda shard: shard.write_bytes(bytes(shard.stat().st_size)),  # as power cuts leave it
    lambda shard: shutil.copyfile(shard.with_name("shard-000119"), shard),  # whole, and of another file
    lambda shard: shutil.copyfile(shard.with_name("listing"), shard),
    lambda shard: pq.write_table(pa.table({"path": ["000.png"], "score": [0.5]}), shard),
    replace_by_a_folder,
    replace_by_a_link_to_nothing,
    *[flip] * 100,
]


def test_whatever_has_become_of_a_shard_resuming_gives_the_same_rows(
    detector: Detector, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """120 shards of one file each, of which 110 are damaged, each in another way."""
    monkeypatch.setattr(inference, "BATCH_IMAGES", 1)
    monkeypatch.setattr(ledger, "SHARD", 1)
    (tmp_path / "many").mkdir()
    for i, image in enumerate(load_dataset("digits").files["train"].images[:120, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "many" / f"{i:03}.png")
    run(detector, tmp_path / "many", tmp_path / "scores.parquet")
    rows = (tmp_path / "scores.parquet").read_bytes()
    for i, damage in enumerate(DAMAGES):
        damage(tmp_path / ".scores.parquet.ledger" / f"shard-{i:06}")
    assert run(detector, tmp_path / "many", tmp_path / "scores.parquet", resume=True).scored == len(DAMAGES)
    assert (tmp_path / "scores.parquet").read_bytes() == rows


def test_results_of_another_detector_are_none(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    """Not even where its shards lie in the ledger of the job to resume."""
    other = dataclasses.replace(detector, calibration=detector.calibration.at(target_fpr=0.2))
    run(other, pictures, tmp_path / "other.parquet")
    run(detector, pictures, tmp_path / "scores.parquet")
    shutil.copy(tmp_path / ".other.parquet.ledger" / "shard-000001", tmp_path / ".scores.parquet.ledger")
    assert run(detector, pictures, tmp_path / "scores.parquet", resume=True).scored == 8


class Server(ThreadingHTTPServer):
    """A web server that tells neither sizes nor times, and has one bad day."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.files, self.away = files, set[str]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Page(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.strip("/")
        links = "".join(f'<a href="/{each}">{each}</a>' for each in self.server.files)
        content = self.server.files.get(name) if name else links.encode()
        self.send_response(503 if name in self.server.away else 404 if content is None else 200)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def test_what_could_not_be_fetched_is_tried_again_where_no_size_is_known(
    detector: Detector, pictures: Path, tmp_path: Path
) -> None:
    output, files = tmp_path / "scores.parquet", [*pictures.glob("*.png")]
    contents = {path.name: path.read_bytes() for path in files}
    with Server(contents | {"plain": contents["00.png"]}) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.away = {"02.png", "04.png", "plain"}
        first = run(detector, server.address, output)
        assert first.listing.unread == ("1 file without an image's ending could not be looked into",)
        assert sorted(reason for _, reason in first.bad)[:2] == ["cannot be fetched (ClientResponseError)"] * 2
        server.away = {"04.png"}
        assert run(detector, server.address, output, resume=True).scored == 3
        server.away = set()
        last = run(detector, server.address, output, resume=True)
        assert (last.scored, len(last.bad)) == (1, 1)  # bad.png was fetched, and is bad
        assert run(detector, server.address, output, resume=True).scored == 0
        run(detector, server.address, tmp_path / "clean.parquet")
        server.shutdown()
    assert output.read_bytes() == (tmp_path / "clean.parquet").read_bytes()


def test_a_job_that_was_killed_while_it_began_anew_is_none(
    detector: Detector, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "scores.parquet"
    run(detector, pictures, output)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_write_listing", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(detector, pictures, output)
    assert run(detector, pictures, output, resume=True).scored == 21


def test_a_list_whose_files_are_gone_keeps_their_scores_and_its_folder(
    detector: Detector, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    (tmp_path / "list.txt").write_text("00.png\n02.png\n")
    run(detector, tmp_path / "list.txt", tmp_path / "scores.csv")
    rows = (tmp_path / "scores.csv").read_text()
    (pictures / "02.png").unlink()
    scores = run(detector, tmp_path / "list.txt", tmp_path / "scores.csv", resume=True)
    assert scores.changes is not None
    assert (scores.scored, scores.changes.gone) == (0, 1)
    assert (tmp_path / "scores.csv").read_text() == rows
    shutil.copytree(pictures, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="the job to resume is of"):
        run(detector, tmp_path / "list.txt", tmp_path / "scores.csv", resume=True)


def test_output_and_images_may_have_names_that_are_no_utf8(
    detector: Detector, pictures: Path, tmp_path: Path
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    pictures.rename(odd)
    for kind in ("parquet", "csv", "jsonl"):
        assert run(detector, odd, tmp_path / os.fsdecode(b"sc\xf6res." + kind.encode())).scored == 21
