import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.autoencoders import inference
from anomaly_ae.cli import main
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.errors import AnomalyAEError
from anomaly_ae.integrations.webhook import SECRET
from anomaly_ae.scoring import arrivals, row_log
from anomaly_ae.scoring.rows import read_batches, score_batch
from anomaly_ae.workflows import watch
from tests.conftest import Cli, Trained
from tests.receiver import Receiver

DIGITS = load_dataset("digits").files["train"].images[:, 0].numpy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 digits of all classes, and a file that is no good."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for i, image in enumerate(DIGITS[:40]):
        Image.fromarray(image).save(tmp_path / "in" / ("sub" if i % 2 else "") / f"{i:02}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"bad")
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "GIVEN_UP", 0.3)
    monkeypatch.setattr(watch, "ONCE_WAITS", 0.6)
    monkeypatch.setattr(watch, "SENDS_AT_END", 60.0)  # however slowly the receiver answers


def rows(output: Path) -> list[dict[str, Any]]:
    """All whole rows, as they are now."""
    table = [
        row for shard in sorted(output.glob("shards/*.parquet")) for row in pd.read_parquet(shard).to_dict("records")
    ]
    lines = [line for path in output.glob("*.jsonl") if path.name.startswith("rows") for line in path.open()]
    return table + [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for(condition: Callable[[], bool], is_alive: Callable[[], bool], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert is_alive(), "it has ended"
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def paths(output: Path) -> list[str]:
    return sorted(row["path"] for row in rows(output))


def test_all_that_is_there_gets_the_row_that_score_gives_it_and_once(
    cli: Cli, trained: Trained, folder: Path, tmp_path: Path
) -> None:
    command = ("watch", "in", "--output", "out", "--once", "--mlruns", str(trained.home.root))
    result = cli(*command, "--json").json()
    assert {"files": 41, "errors": 1, "waiting": 0, "interrupted": False}.items() <= result.items()
    anomaly_ae.score(folder, output="scores.csv", home=trained.home)
    expected, table = pd.read_csv("scores.csv"), pd.DataFrame(rows(tmp_path / "out")).sort_values("path")
    assert table.path.tolist() == expected.path.tolist()
    np.testing.assert_allclose(table.score.astype(float), expected.score, rtol=1e-5)
    assert table.is_anomaly.tolist() == expected.is_anomaly.where(expected.is_anomaly.notna(), None).tolist()
    assert table.error.dropna().tolist() == expected.error.dropna().tolist()
    assert result["anomalies"] == table.is_anomaly.sum() > 10
    stats = [(folder / path).stat() for path in table.path]
    assert table.bytes.tolist() == [each.st_size for each in stats]
    assert table.time.tolist() == [each.st_mtime_ns for each in stats]

    assert cli(*command, "--json").json()["files"] == 0
    Image.fromarray(DIGITS[0]).resize((9, 9)).save(folder / "02.png")
    (folder / "bad.png").unlink()
    ended = cli(*command)
    assert "files           1 have a row now" in ended.out
    both = [row for row in rows(tmp_path / "out") if row["path"] == "02.png"]
    assert [row["width"] for row in both] == [8, 9]
    assert len(rows(tmp_path / "out")) == 42


def test_a_file_that_changes_while_it_is_scored_has_one_row_as_it_is_then(
    trained: Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score_and_change(*given: Any) -> Any:
        results = score_batch(*given)
        with contextlib.suppress(FileNotFoundError):
            (tmp_path / "other.png").replace(folder / "00.png")
        return results

    Image.fromarray(DIGITS[0]).resize((9, 9)).save(tmp_path / "other.png")
    monkeypatch.setattr(watch._Watcher, "_warm_up", lambda _: None)
    monkeypatch.setattr(watch, "score_batch", score_and_change)
    assert watch.watch(folder, tmp_path / "out", once=True, home=trained.home).files == 41
    assert [row["width"] for row in rows(tmp_path / "out") if row["path"] == "00.png"] == [9]


def test_sigterm_ends_it_after_the_batch_that_is_at_work(
    trained: Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score_and_end(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return score_batch(*given)

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(watch._Watcher, "_warm_up", lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(inference, "BATCH_IMAGES", 4)
        patch.setattr(watch, "score_batch", score_and_end)
        result = watch.watch(folder, tmp_path / "out", once=True, home=trained.home)
    assert result.interrupted
    assert result.files == len(rows(tmp_path / "out")) == 4
    assert signal.getsignal(signal.SIGTERM) == handler
    assert watch.watch(folder, tmp_path / "out", once=True, home=trained.home).files == 37


def test_an_empty_folder_is_nothing_to_do(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "phone.heic").touch()
    ended = cli("watch", "in", "--output", "out", "--once", "--mlruns", str(trained.home.root))
    assert (ended.code, rows(tmp_path / "out")) == (0, [])
    assert "there is no image in" in ended.err
    assert "HEIC" in ended.err


def test_once_leaves_files_that_go_on_being_written_to_the_next_time(
    trained: Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_while_it_is_written(*given: Any, **options: Any) -> Any:
        for batch in read_batches(*given, **options):
            with (folder / "growing.png").open("ab") as file:
                file.write(b"x")
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(watch, "read_batches", read_while_it_is_written)
        result = watch.watch(folder, tmp_path / "out", once=True, home=trained.home)
    assert (result.files, result.waiting) == (41, 1)
    assert watch.watch(folder, tmp_path / "out", once=True, home=trained.home).errors == 1


def test_a_file_that_cannot_be_read_has_its_second_chance_however_long_scoring_takes(
    trained: Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score_slowly(*given: Any) -> Any:
        time.sleep(0.7)  # longer than it waits
        return score_batch(*given)

    monkeypatch.setattr(watch, "score_batch", score_slowly)
    assert watch.watch(folder, tmp_path / "out", once=True, home=trained.home).errors == 1


def test_a_file_that_cannot_be_read_is_given_up_while_others_are_waited_for(
    trained: Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_and_end_with_an_error(watcher: Any, *given: Any) -> None:
        keep(watcher, *given)
        watcher.stopping = watcher.errors > 0

    keep = watch._Watcher._keep
    monkeypatch.setattr(watch._Watcher, "_keep", keep_and_end_with_an_error)
    result = watch.watch(folder, tmp_path / "out", home=trained.home)
    assert (result.files, result.errors, result.waiting) == (41, 1, 0)


def test_files_that_come_are_scored_when_they_are_complete(
    cli: Cli, trained: Trained, folder: Path, tmp_path: Path
) -> None:
    """In a process of its own, from the first file to SIGTERM."""
    output, whole = tmp_path / "out", (folder / "00.png").read_bytes()
    command = ("watch", "in", "--output", "out", "--mlruns", str(trained.home.root))
    process = PROCESSES.Process(target=run_in_a_process, args=(tmp_path, *command))
    process.start()
    try:
        wait_for(lambda: size(output) == 40, process.is_alive)  # the bad one waits, and as long as half.png may
        second = cli(*command)
        assert second.code == 1
        assert "error: another process is watching with the same output (out); name another one" in second.err
        with (folder / "half.png").open("wb") as half:
            half.write(whole[:60])
            half.flush()
            (folder / "new").mkdir()
            odd = ["whole.png", "new/deep.png", "a\nb.png", os.fsdecode(b"caf\xe9.png")]
            for name in odd:
                (folder / "unseen").write_bytes(whole)
                (folder / "unseen").rename(folder / name)
            wait_for(lambda: size(output) == 44, process.is_alive)
            assert "half.png" not in paths(output)
            half.write(whole[60:])
        wait_for(lambda: "half.png" in paths(output), process.is_alive)
        (folder / "00.png").write_bytes((folder / "sub" / "03.png").read_bytes())
        (folder / "sub" / "05.png").unlink()
        wait_for(lambda: size(output) == 46, process.is_alive)
        process.terminate()
        process.join(60)
        assert process.exitcode == 130
    finally:
        process.kill()
    found = Counter(paths(output))
    assert found.pop("00.png") == 2
    assert set(found.values()) == {1}
    assert {"half.png", "whole.png", "new/deep.png", "a\nb.png", r"caf\xe9.png"} <= found.keys()
    assert not [row["path"] for row in rows(output) if row["error"]]


def test_killed_again_and_again_every_file_has_one_row(trained: Trained, tmp_path: Path) -> None:
    kill_and_check(trained, tmp_path, files=800, kills=2)


PROCESSES = multiprocessing.get_context("forkserver")  # which has imported what each process needs
PROCESSES.set_forkserver_preload(["tests.workflows.test_watch"])


def run_in_a_process(folder: Path, *command: str) -> None:
    """The command line, to which no file is bad for good while a test is at work."""
    os.chdir(folder)
    arrivals.GIVEN_UP, sys.argv = 600.0, ["anomaly-ae", *command]
    main()


def watch_in_a_process(folder: Path, model: Path, once: bool = False) -> None:
    """To be killed: many rows, batches and shards, so that there are many moments for it."""
    inference.BATCH_IMAGES, row_log.SEGMENT_ROWS, row_log.ROWS_AT_A_TIME = 16, 200, 64
    watch.watch(folder / "in", folder / "out", model, once=once)


def kill_and_check(trained: Trained, tmp_path: Path, files: int, kills: int) -> None:
    """Kill a process that watches as soon as it has written some rows, again and again while files come in."""
    (tmp_path / "in").mkdir()
    Image.fromarray(DIGITS[0]).save(tmp_path / "kept.png")
    content, coming = (tmp_path / "kept.png").read_bytes(), iter(range(files))

    def write(count: int) -> None:
        for _, i in zip(range(count), coming, strict=False):
            (tmp_path / "in" / f"{i:05}.png").write_bytes(content)

    write(files // 2)
    place = (tmp_path, trained.run.path / "detector")
    for _ in range(kills):
        before = len(rows(tmp_path / "out"))
        process = PROCESSES.Process(target=watch_in_a_process, args=place)
        process.start()
        wait_for(lambda before=before: size(tmp_path / "out") > before, process.is_alive)
        write(files // 2 // kills)
        enough = before + int(np.random.default_rng(before).integers(1, files // 2 // kills))
        wait_for(lambda enough=enough: size(tmp_path / "out") >= enough, process.is_alive)
        process.kill()
        process.join()
    write(files)
    process = PROCESSES.Process(target=watch_in_a_process, args=(*place, True))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert paths(tmp_path / "out") == [f"{i:05}.png" for i in range(files)]
    assert len(list((tmp_path / "out" / "shards").glob("*.parquet"))) > 1
    assert not list((tmp_path / "out").rglob("*.tmp"))


def size(output: Path) -> int:
    """How many rows there are, however they are being moved just now."""
    with contextlib.suppress(OSError):
        return len(rows(output))
    return size(output)


def test_anomalies_are_drawn_and_sent(
    cli: Cli, trained: Trained, folder: Path, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answers = [500, 503]
    command = ("watch", "in", "--output", "out", "--once", "--mlruns", str(trained.home.root), "--heatmaps")
    result = cli(*command, "--webhook", receiver.url, "--json", env={SECRET: "hush"}).json()
    anomalous = {row["path"] for row in rows(tmp_path / "out") if row["is_anomaly"]}
    assert (result["unsent"], result["heatmaps_missing"], result["anomalies"]) == (0, 0, len(anomalous))
    maps = tmp_path / "out" / "heatmaps"
    assert {str(path.relative_to(maps)) for path in maps.rglob("*.png")} == {f"{path}.png" for path in anomalous}
    messages = [json.loads(body) for _, _, body in receiver.came]
    assert {each["path"] for each in messages} == anomalous
    assert len({each["id"] for each in messages}) == len(anomalous) == len(messages) - 2
    assert messages[0]["folder"] == str(folder)
    assert {"score", "p_value", "threshold", "bytes", "time", "scored_at", "detector"} <= messages[0].keys()

    receiver.came = []
    (folder / "other.png").write_bytes(b"other")
    cli(*command, "--webhook", receiver.url, "--webhook-for", "all", env={SECRET: "hush"})
    assert [json.loads(body)["path"] for _, _, body in receiver.came] == ["other.png"]


def test_a_file_whose_row_was_lost_to_a_kill_is_sent_again_under_the_same_id(
    cli: Cli, trained: Trained, folder: Path, tmp_path: Path, receiver: Receiver
) -> None:
    command = ("watch", "in", "--output", "out", "--once", "--mlruns", str(trained.home.root))
    for _ in range(2):
        cli(*command, "--webhook", receiver.url, env={SECRET: "hush"})
        (tmp_path / "out" / "rows.jsonl").unlink()
    ids = Counter(json.loads(body)["id"] for _, _, body in receiver.came)
    assert set(ids.values()) == {2}


def test_a_dead_receiver_is_said_and_its_messages_are_kept(
    cli: Cli, trained: Trained, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SENDS_AT_END", 0.2)
    command = ("watch", "in", "--output", "out", "--once", "--mlruns", str(trained.home.root))
    ended = cli(*command, "--webhook", "http://127.0.0.1:1/", env={SECRET: "hush"})
    assert ended.code == 0
    assert "not taken yet, which the next time sends" in ended.out
    assert "messages to 127.0.0.1 wait and are sent again" in ended.err
    assert "messages of before wait in out; --webhook sends them" in cli(*command).err


def test_what_goes_on_is_said(
    trained: Trained,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of files that are all anomalous there is a drift, which is said once; and how it goes, every minute."""
    monkeypatch.setattr(watch, "HEARTBEAT", 0.0)
    for i in range(200):
        Image.fromarray(255 - DIGITS[i]).save(folder / f"odd{i}.png")
    result = watch.watch(folder, tmp_path / "out", once=True, home=trained.home)
    said = capsys.readouterr().err
    assert said.count("warning: drift: the scores as a whole have moved") == 1
    assert f"241 files scored, {result.anomalies} anomalous, 1 bad, 0 waiting; 95 % have their row" in said
    assert result.drifted


@pytest.mark.parametrize(
    ("place", "output", "options", "reason"),
    [
        ("absent", "out", {}, "name a folder of images"),
        ("in/00.png", "out", {}, "a folder on this machine can be watched"),
        ("s3://bucket/x", "out", {}, "a folder on this machine can be watched"),
        ("in", "in/00.png", {}, "cannot write to in/00.png"),
        ("in", "in/out", {"heatmaps": True}, "lies in the folder of images"),
        ("in", "out", {"webhook": "ftp://x"}, "http or https"),
        ("in", "out", {"webhook": "http://x"}, SECRET),
        ("in", "out", {"webhook_for": "some"}, "known: anomalies, all"),
        ("in", "out", {"poll": 0.0}, "seconds between listings"),
        ("in", "out", {"poll": float("nan")}, "seconds between listings"),
    ],
)
def test_wrong_use_is_said_before_any_work(
    trained: Trained,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    output: str,
    options: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SECRET, raising=False)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AnomalyAEError, match=reason):
        watch.watch(place, output, home=trained.home, **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_output_may_lie_in_the_folder(trained: Trained, folder: Path) -> None:
    for count in (41, 0):
        assert watch.watch(folder, folder / "out", once=True, home=trained.home).files == count
