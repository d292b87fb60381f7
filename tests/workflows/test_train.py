"""A training of one epoch: what is kept of it, and how it is gone on with."""

import dataclasses
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import DetectorDamaged, Interrupted, ModelError, ModelNotFound, UsageError
from anomaly_ae.reporting.text import detectors
from anomaly_ae.runs.record import KILLED
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime import progress
from anomaly_ae.workflows import train as train_workflow
from anomaly_ae.workflows.resolve import resolve
from anomaly_ae.workflows.train import resume

SHORT = RunConfig(normal="5", epochs=1, scorer="mse")
State = tuple[int, int, int]


def train(home: RunStore) -> RunFolder:
    return home.find_run(anomaly_ae.train(SHORT, home=home, tracking=False).run_id)


def detector_of(run: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.path / "detector").iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(RunStore.find(str(tmp_path_factory.mktemp("whole") / "mlruns")))


def state(about: os.stat_result) -> State:
    return about.st_ino, about.st_size, about.st_mtime_ns


def test_all_of_a_run_is_on_the_disk_before_it_is_called_finished(
    home: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a power cut would show."""
    flushed, missing = set[State](), list[list[str]]()
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        flushed.add(state(os.fstat(descriptor)))

    def watched_replace(source: Any, target: Any) -> None:
        folder = Path(target).parent
        if Path(target).name == "run.json" and '"FINISHED"' in Path(source).read_text():
            read_back = [path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".csv")]
            names = {path.name for path in read_back}
            assert {"checkpoint.safetensors", "config.json", "split.json", "detector.json", "metrics.csv"} < names
            missing.append([path.name for path in read_back if state(path.stat()) not in flushed])
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    train(home)
    assert missing
    assert not any(missing)


def test_a_training_says_what_to_do_next_with_this_very_run(home: RunStore, whole: RunFolder) -> None:
    result = anomaly_ae.train(SHORT, home=home, tracking=False)
    train(home)  # another that finishes later
    place = f" --mlruns {home.root}"
    evaluate, score = result.next  # and nothing of MLflow's pages, which have nothing of it
    assert evaluate == f"anomaly-ae evaluate {result.run_id[:8]}{place}"
    assert score == f"anomaly-ae score FOLDER --model {result.run_id[:8]}{place}"
    assert f"next          {evaluate} · {score}" in detectors.trained(result)


def test_a_finished_run_whose_detector_is_damaged_gets_it_again_from_its_checkpoint(
    home: RunStore, whole: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(home)
    for file in ("weights.safetensors", "detector.json"):  # as they are after a power cut
        (run.path / "detector" / file).write_bytes(b"")
        with pytest.raises(DetectorDamaged, match=f"anomaly-ae train --resume {run.path.name}"):
            anomaly_ae.evaluate(home=home)
        assert f"run {run.path.name}: digits 5" in capsys.readouterr().err  # that which was latest
        resume(run.path.name, home=home)
        assert detector_of(run) == detector_of(whole)
    with pytest.raises(UsageError, match="finished"):
        resume(run.path.name, home=home)


def test_a_resumed_run_is_in_all_as_one_that_was_not_interrupted(
    home: RunStore, whole: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr("anomaly_ae.detector.fit.make_detector", interrupt)
        with pytest.raises(Interrupted, match="go on with: anomaly-ae train --resume"):
            train(home)
    (run,) = home.runs()
    assert run.record.status == KILLED
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = run.path / "figures" / f".least_anomalous.png.{gone.pid}.tmp"
    left.parent.mkdir(exist_ok=True)
    left.touch()

    def look() -> None:  # as another command does that wonders whether it is alive
        with run.lock():
            looked.set()
            time.sleep(0.3)

    assert train_workflow.BRIEFLY > 0.3
    monkeypatch.setattr(train_workflow, "BRIEFLY", 60.0)  # on a machine that has other work, too
    looked = threading.Event()
    looking = threading.Thread(target=look)
    looking.start()
    looked.wait()
    resume("latest", home=home)
    looking.join()
    assert detector_of(run) == detector_of(whole)
    assert not left.exists()


def test_where_no_checkpoint_can_be_gone_on_from_the_training_begins_anew(
    home: RunStore, whole: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(home)
    (run.path / "detector" / "detector.json").unlink()
    content = bytearray(run.checkpoint.read_bytes())
    content[-100] ^= 4
    run.checkpoint.write_bytes(content)
    resume(run.path.name, home=home)
    assert "checkpoint.safetensors is damaged" in capsys.readouterr().err
    assert detector_of(run) == detector_of(whole)


@pytest.mark.usefixtures("figures")
def test_what_takes_long_says_what_it_is(
    home: RunStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.stage("counting to one"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SILENCE", 0.001)
    train(home)
    said = capsys.readouterr().err.splitlines()
    assert {"reading the images …", "drawing the figures …"} < set(said)


@pytest.mark.parametrize(
    ("autoencoder", "scorer", "times"),
    [
        ("skip-conv", "mse+aligned-prototypes", 1),
        ("skip-conv", "aligned-knn", 0),
        ("conv", "aligned-prototypes", 0),
    ],
)
def test_prototypes_that_are_decoded_without_skips_are_said_once(
    home: RunStore, capsys: pytest.CaptureFixture[str], autoencoder: str, scorer: str, times: int
) -> None:
    resolve(RunConfig(normal="5", autoencoder=autoencoder, scorer=scorer, guarantee="cross"), home)
    assert capsys.readouterr().err.count("skips of skip-conv carry") == times


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scorer": "aligned-kn"}, "unknown scorer"),
        ({"scorer": "mse+"}, "a part that is empty"),
        ({"autoencoder": "con"}, "unknown autoencoder"),
        ({"objective": "mse+sim"}, "unknown objective"),
        ({"augment": "flip"}, "unknown augmentation"),
        ({"objective": "perceptual", "perceptual": "abcdef"}, "no run 'abcdef'"),
    ],
)
def test_a_wrong_name_is_said_before_the_data_are_looked_at(
    home: RunStore, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], said: str
) -> None:
    monkeypatch.setattr("anomaly_ae.workflows.resolve.open_data", lambda *_: pytest.fail("the data were looked at"))
    with pytest.raises((UsageError, ModelNotFound), match=said):
        anomaly_ae.train(dataclasses.replace(SHORT, **wrong), home=home)
    assert not home.root.exists()


def test_a_checkpoint_of_another_network_is_refused_in_words(home: RunStore, whole: RunFolder) -> None:
    run = train(home)
    run.update(status=KILLED)
    shutil.rmtree(run.path / "detector")
    other = anomaly_ae.train(dataclasses.replace(SHORT, latent=3), home=home, tracking=False)
    shutil.copy(home.find_run(other.run_id).checkpoint, run.checkpoint)
    with pytest.raises(ModelError, match="is of another run, or of an earlier anomaly-ae; train anew"):
        resume(run.path.name, home=home)
