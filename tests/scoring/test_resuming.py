"""Jobs that were interrupted, and go on."""

import dataclasses
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import Interrupted, UsageError
from anomaly_ae.images.sources import open_source
from anomaly_ae.scoring import job
from anomaly_ae.scoring.job import Job, score_job
from tests.scoring.conftest import run

pytestmark = pytest.mark.usefixtures("small_shards")


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

    class Late(type(source)):
        def list(self) -> Any:
            return listed

    late = Late(source.name)
    first = score_job(Job(detector, detector.calibration, late, output))
    assert next(text for _, text in first.bad) == "cannot be opened: No such file or directory"
    hidden.rename(pictures / "02.png")
    second = score_job(Job(detector, detector.calibration, late, output), resume=True)
    assert (second.scored, len(second.bad)) == (1, 1)


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
