import time
from pathlib import Path

import pytest

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import ModelNotFound, UsageError
from anomaly_ae.runs.location import place_settings
from anomaly_ae.runs.record import FINISHED, KILLED, RUNNING, RunRecord, now
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore


def make(home: RunStore, name: str, status: str) -> RunFolder:
    run = RunFolder(home.root / "runs" / name)
    run.write_record(RunRecord(name, None, "a run", now(), status))
    run.write_start(RunConfig(normal="0"), {"digest": "d", "parts": {}})
    time.sleep(0.001)
    return run


def test_where_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ANOMALY_AE_MLRUNS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    assert RunStore.find() == RunStore(tmp_path / "mlruns", f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    assert RunStore.find() == RunStore(tmp_path / "mlruns", "http://team:5000")
    monkeypatch.setenv("ANOMALY_AE_MLRUNS", "there")
    assert RunStore.find().tracking_uri == f"sqlite:///{tmp_path}/there/mlflow.db"
    assert RunStore.find("given").root == tmp_path / "given"
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        RunStore.find("file")


def test_latest_is_the_training_that_finished_last(home: RunStore) -> None:
    with pytest.raises(ModelNotFound, match="train one with"):
        home.latest()
    make(home, "aaaa1", KILLED)
    with pytest.raises(ModelNotFound, match="train --resume aaaa1"):
        home.latest()
    early = make(home, "bbbb1", RUNNING)
    make(home, "cccc1", FINISHED)
    make(home, "dddd1", KILLED)
    assert home.latest().record.id == "cccc1"
    assert home.latest_unfinished().record.id == "dddd1"
    assert [run.record.id for run in home.runs()] == ["dddd1", "cccc1", "bbbb1", "aaaa1"]
    early.update(status=FINISHED, finished=now())
    assert home.latest().record.id == "bbbb1"  # though it began before
    make(home, "eeee1", FINISHED)
    assert home.latest().record.id == "eeee1"  # of which it is not known when it ended


def test_a_run_is_found_by_the_beginning_of_its_id(home: RunStore) -> None:
    make(home, "abcd1234", FINISHED)
    make(home, "abcd5678", FINISHED)
    assert home.find_run("abcd1").record.id == "abcd1234"
    assert home.find_run("abcd5678").record.id == "abcd5678"
    with pytest.raises(UsageError, match="2 runs begin with"):
        home.find_run("abcd")
    with pytest.raises(ModelNotFound, match="'abc' is too short for a run's id; give 4 characters"):
        home.find_run("abc")
    with pytest.raises(ModelNotFound, match="anomaly-ae runs"):
        home.find_run("abce")


@pytest.mark.parametrize("folder", ["a#b", "50%", "why?"])
def test_runs_can_be_kept_elsewhere_from_a_folder_that_mlflow_cannot_use(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANOMALY_AE_MLRUNS", raising=False)
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    with pytest.raises(UsageError, match="name another with mlruns"):
        RunStore.find()
    home = RunStore.find("../runs")
    assert home.root == tmp_path / "runs"
    assert place_settings(home.root) == {"mlruns": str(home.root)}
