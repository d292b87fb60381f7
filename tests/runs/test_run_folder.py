"""What lies in a run's folder, read again, damaged or held."""

import json
import os
import time
from pathlib import Path

import pytest

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import ModelError, ModelNotFound, RunBusy
from anomaly_ae.reporting.comparison import read_scores
from anomaly_ae.runs.pipeline_file import read_pipeline_file
from anomaly_ae.runs.query import list_home
from anomaly_ae.runs.record import FINISHED, KILLED, PIPELINE
from anomaly_ae.runs.run_folder import conflicts
from anomaly_ae.runs.store import RunStore
from anomaly_ae.storage.schema import MOST_JSON
from anomaly_ae.tracking.run_logger import mark_dead_runs
from anomaly_ae.training import Epoch
from anomaly_ae.workflows import pipeline
from tests.runs.test_store import make

WRONG: dict[str, list[object]] = {
    "started": [None, 3, ["2026-01-01"], "yesterday", "2026-01-01T00:00:00", {}, True],
    "finished": [3, "soon"],
    "status": [None, 7, "DONE", ["FINISHED"]],
    "kind": [None, "train"],
    "name": [None, 1, ["a"], "\ud800"],
    "parent": [1, {}],
    "mlflow_run_id": [1],
    "tracked": [None, "yes", 1],
    "threads": [0, "two", 1.5, 10**30],
    "parameters": [-1, "many"],
}


def test_the_split_of_half_a_million_pictures_is_read(home: RunStore) -> None:
    """Which is larger than JSON from elsewhere may be."""
    pictures = [f"good/{number:032}.png" for number in range(500_000)]
    split = {"digest": "a", "parts": {}, "pictures": pictures}
    run = make(home, "aaaa1", FINISHED)
    (run.path / "split.json").write_text(json.dumps(split))
    assert (run.path / "split.json").stat().st_size > MOST_JSON
    assert run.split == split


def test_an_interrupted_run_has_no_detector(home: RunStore) -> None:
    with pytest.raises(ModelError, match="resume it with: anomaly-ae train --resume aaaa1"):
        make(home, "aaaa1", KILLED).detector_folder()
    assert make(home, "bbbb1", FINISHED).detector_folder().name == "detector"


def test_a_run_belongs_to_one_process_and_a_dead_one_lets_go(home: RunStore) -> None:
    run = make(home, "aaaa1", "RUNNING")
    assert [dead.record.id for dead in home.dead_runs()] == ["aaaa1"]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with run.lock():
            os.write(writing, b"x")
            time.sleep(600)
        os._exit(0)
    os.read(reading, 1)
    assert home.dead_runs() == []
    with pytest.raises(RunBusy, match="another process"), run.lock():
        pass
    with pytest.raises(ModelError, match="still training"):
        run.detector_folder()
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert [dead.record.id for dead in home.dead_runs()] == ["aaaa1"]


def test_history_survives(home: RunStore) -> None:
    run = make(home, "aaaa1", "RUNNING")
    assert run.history() == []
    history = [Epoch(1, 0.1, 0.2, 3e-9, 100.5, 1.25), Epoch(2, 1 / 3, 0.1, 0.0, 1e5, 0.5)]
    run.write_history(history)
    assert run.history() == history


def write_raw(path: Path, content: str) -> None:
    path.write_bytes(content.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "change",
    [
        *({key: value} for key, values in WRONG.items() for value in values),
        *(
            "",
            "{",
            "[]",
            '{"id": 1}',
            "null",
            "{}",
            "[" * 100_000,
            '{"name": NaN}',
            " " * 20_000_000,
            "a folder",
            "a pipe",
        ),
    ],
    ids=lambda change: str(change)[:24],
)
def test_a_damaged_record_is_said_and_stops_no_other_run(
    home: RunStore, change: dict[str, object] | str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(home, "bbbb1", FINISHED)
    damaged = make(home, "aaaa1", FINISHED).path / "run.json"
    before = json.loads(damaged.read_text())
    damaged.unlink()
    if change == "a folder":
        damaged.mkdir()
    elif change == "a pipe":
        os.mkfifo(damaged)
    else:
        write_raw(damaged, change if isinstance(change, str) else json.dumps(before | change))
    for _ in range(3):
        assert home.latest().record.id == "bbbb1"
    assert [row.run_id for row in list_home(home)] == ["bbbb1"]
    mark_dead_runs(home)
    with pytest.raises(ModelNotFound):
        home.find_run("aaaa1")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1  # once, however often it was met
    assert "aaaa1/run.json is damaged" in said[0]
    assert len(said[0]) < 400


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[]"),
        ("config.json", '{"warp": 9}'),
        ("config.json", '{"epochs": "many"}'),
        ("result.json", '{"train_seconds": "long"}'),
        ("result.json", "[[1, 2]]"),
        ("evaluation/metrics.json", '{"auroc": [0.5]}'),
        ("evaluation/metrics.json", '{"auroc": 7}'),
        ("evaluation/metrics.json", '{"auroc": 0.5, "beside": [3]}'),
        ("evaluation/metrics.json", '{"auroc": 0.5, "auroc": 0.9}'),
    ],
)
def test_other_damaged_files_of_a_run_leave_it_out_of_the_list_with_a_word(
    home: RunStore, file: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(home, "bbbb1", FINISHED)
    damaged = make(home, "aaaa1", FINISHED).path / file
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_text(content)
    assert [row.run_id for row in list_home(home)] == ["bbbb1"]
    assert f"aaaa1/{file} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"digest": 3, "parts": {}}', '{"digest": "", "parts": {"fit": 3}}', '{"digest": ""}']
)
def test_a_damaged_split_record_is_an_error_of_one_line(home: RunStore, content: str) -> None:
    run = make(home, "aaaa1", FINISHED)
    (run.path / "split.json").write_text(content)
    with pytest.raises(ModelError, match=r"split\.json is damaged"):
        _ = run.split


@pytest.mark.parametrize("row", ["x,1,1,1,1,1", "1,nan,1,1,1,1", "1,1", "1,1,1,1,1,1,1", "\xff,1,1,1,1,1", "-,,,,,"])
def test_a_damaged_history_is_an_error_of_one_line(home: RunStore, row: str) -> None:
    run = make(home, "aaaa1", FINISHED)
    run.write_history([Epoch(1, 0.1, 0.2, 3e-9, 100.5, 1.25)])
    content = (run.path / "metrics.csv").read_bytes()
    (run.path / "metrics.csv").write_bytes(content + row.encode("latin-1") + b"\n")
    with pytest.raises(ModelError, match=r"metrics\.csv is damaged"):
        run.history()


def test_a_record_of_a_later_version_can_be_read(home: RunStore) -> None:
    run = make(home, "aaaa1", FINISHED)
    (run.path / "run.json").write_text(json.dumps(json.loads((run.path / "run.json").read_text()) | {"new": 1}))
    assert run.record.status == FINISHED


def test_what_a_resumed_run_may_be_asked_for() -> None:
    config = RunConfig(normal="0", latent=8)
    assert conflicts(config, RunConfig(normal="0", latent=8, data_dir="moved")) == []
    assert conflicts(config, RunConfig(normal="0", latent=9)) == ["latent is 8 and 9 was asked"]


@pytest.mark.parametrize("row", ["1,0,True,x", "1,0,True,nan", "1,0", "\xff,\xff,True,1"])
def test_damaged_scores_of_test_images_are_an_error_of_one_line(home: RunStore, row: str) -> None:
    run = make(home, "aaaa1", FINISHED)
    kept = run.path / "evaluation" / "scores.csv"
    kept.parent.mkdir()
    kept.write_bytes(f"index,class,is_novel,score\n0,0,False,0.1\n{row}\n".encode("latin-1"))
    with pytest.raises(ModelError, match=r"scores\.csv is damaged; evaluate the run again"):
        read_scores(run)


def test_a_damaged_pipeline_is_said_and_stands_in_no_others_way(
    home: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text("normal: 0\n")
    other = make(home, "aaaa1", FINISHED)
    other.update(kind=PIPELINE)
    (other.path / "pipeline.json").write_text("[]")
    assert pipeline._earlier(read_pipeline_file(tmp_path / "p.yaml", ()), home) is None
    assert "aaaa1/pipeline.json is damaged" in capsys.readouterr().err
