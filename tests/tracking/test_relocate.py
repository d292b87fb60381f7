"""A home that was moved or copied, with MLflow's own database and client."""

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.runs.record import KILLED, RunRecord, now
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking import calls, run_logger
from anomaly_ae.tracking.relocate import PATH_COLUMNS, follow_move
from tests.conftest import Cli

BACKUPS = "mlflow.db.before-move-*"
Make = Callable[[Path], RunStore]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run, its model, a registered model, and MLflow's Default experiment in it."""
    home = RunStore.find(str(tmp_path_factory.mktemp("template") / "mlruns"))
    logger = run_logger.RunLogger(home, None)
    logger.begin("ours", RunRecord.new("first", tracked=True))
    client, run_id = MlflowClient(home.tracking_uri), str(logger.run_id)
    client.log_text(run_id, "hello", "greeting.txt")
    model = client.create_logged_model("1", "model", source_run_id=run_id)
    (home.root / "model.txt").write_text("a model")
    client.log_model_artifact(model.model_id, str(home.root / "model.txt"))
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model("parts")
    client.create_model_version("parts", model.artifact_location, run_id)
    client.create_experiment("far", "s3://bucket/mlruns/artifacts")
    with closing(sqlite3.connect(home.database)) as store, store:
        store.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (f"{home.root}/0",))
    return home.root


@pytest.fixture
def make(template: Path) -> Make:
    """Make a home like the template as if it had grown where it is."""

    def make(root: Path) -> RunStore:
        shutil.copytree(template, root)
        with closing(sqlite3.connect(root / "mlflow.db")) as store, store:
            for table, column in PATH_COLUMNS:
                for old, new in ((template.as_uri(), root.as_uri()), (f"{template}", f"{root}")):
                    store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))
        return RunStore.find(str(root))

    return make


def places(database: Path) -> list[str]:
    """All that a store has in the columns that may have paths."""
    with closing(sqlite3.connect(database)) as store:
        queries = (f"SELECT {column} FROM {table} ORDER BY rowid" for table, column in PATH_COLUMNS)
        return [place for query in queries for (place,) in store.execute(query)]


def replaced(places: list[str], old: Path, new: Path) -> list[str]:
    """The places with the beginning `new` for `old`, of whole names alone."""
    pattern = re.compile(rf"^({re.escape(old.as_uri())}|{re.escape(str(old))})(?=/)")
    return [pattern.sub(lambda found: new.as_uri() if "file:" in found[0] else str(new), place) for place in places]


def move(home: RunStore, target: Path) -> RunStore:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(home.root, target)
    return RunStore.find(str(target))


def copy(home: RunStore, target: Path) -> RunStore:
    shutil.copytree(home.root, target)
    return RunStore.find(str(target))


def change(home: RunStore, *statement: object) -> None:
    with closing(sqlite3.connect(home.database)) as store, store:
        store.execute(*statement)


def assert_whole(home: RunStore) -> None:
    """MLflow finds all, and keeps new runs, in this home."""
    client = MlflowClient(home.tracking_uri)
    (run,) = client.search_runs(["1"], "attributes.run_name = 'first'")
    assert run.info.artifact_uri.startswith(home.artifacts.as_uri())
    assert Path(client.download_artifacts(run.info.run_id, "greeting.txt")).read_text() == "hello"
    (model,) = client.search_logged_models(["1"])
    assert [file.path for file in client.list_logged_model_artifacts(model.model_id)] == ["model.txt"]
    source = client.get_model_version("parts", "1").source
    assert source == client.get_model_version_download_uri("parts", "1") == model.artifact_location
    new = client.create_run("1", run_name="new")
    client.log_text(new.info.run_id, "new", "new.txt")
    assert (home.artifacts / new.info.run_id / "artifacts" / "new.txt").exists()


def assert_left_alone(home: RunStore, expected: list[str], said: str) -> None:
    assert places(home.database) == expected
    assert said == ""
    assert not list(home.root.glob(BACKUPS))


@pytest.mark.parametrize("name", ["plain", "with space", "Prüfteile_ß", "a_b+c&d", "project2/deep/er"])
def test_a_moved_home_is_followed_and_its_store_backed_up(
    name: str, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make(tmp_path / "project" / "mlruns")
    before = places(old.database)
    new = move(old, tmp_path / name / "mlruns")
    follow_move(new)
    (said,) = capsys.readouterr().err.splitlines()
    (backup,) = new.root.glob(BACKUPS)
    assert f"moved or copied from {old.root}:" in said
    assert backup.name in said
    assert places(new.database) == replaced(before, old.root, new.root)
    assert {"s3://bucket/mlruns/artifacts", f"{new.root}/0"} < set(places(new.database))
    assert places(backup) == before
    assert_whole(new)
    assert not old.root.exists()


def test_a_home_that_stayed_is_left_alone(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = make(tmp_path / "mlruns")
    before = places(home.database)
    follow_move(home)
    assert_left_alone(home, before, capsys.readouterr().err)
    assert_whole(home)


def test_a_copy_and_its_original_work_separately(make: Make, tmp_path: Path) -> None:
    original = make(tmp_path / "project" / "mlruns")
    twin = copy(original, tmp_path / "project" / "mlruns2")  # a name that begins with the other's
    before = original.database.read_bytes()
    follow_move(twin)
    follow_move(original)
    assert original.database.read_bytes() == before
    assert_whole(twin)
    assert_whole(original)
    assert not list(original.root.glob(BACKUPS))


def test_what_was_moved_twice_and_followed_in_part_is_followed_whole(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make(tmp_path / "a" / "mlruns")
    second = move(first, tmp_path / "b" / "mlruns")
    change(
        second, "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 1", (second.artifacts.as_uri(),)
    )
    late = MlflowClient(second.tracking_uri).create_run("1")
    MlflowClient(second.tracking_uri).log_text(late.info.run_id, "late", "late.txt")
    third = move(second, tmp_path / "c" / "mlruns")
    follow_move(third)
    assert f"from {first.root} and {second.root}:" in capsys.readouterr().err
    assert MlflowClient(third.tracking_uri).download_artifacts(late.info.run_id, "late.txt")
    assert_whole(third)


@pytest.mark.parametrize(("before", "after"), [("mlruns", "mlruns/inner"), ("mlruns/inner", "mlruns")])
def test_homes_that_lie_in_one_another(before: str, after: str, make: Make, tmp_path: Path) -> None:
    old = make(tmp_path / before)
    expected = replaced(places(old.database), old.root, tmp_path / after)
    aside = move(old, tmp_path / "aside")
    shutil.rmtree(tmp_path / "mlruns", ignore_errors=True)
    new = move(aside, tmp_path / after)
    follow_move(new)
    assert places(new.database) == expected
    assert_whole(new)


def test_a_place_that_somebody_chose_stays_though_it_is_not_there_now(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make(tmp_path / "mlruns")
    client = MlflowClient(home.tracking_uri)
    for number, place in enumerate(("/mnt/archive/artifacts", "/mnt/archive/artifacts/models", "s3://b/artifacts")):
        experiment = client.create_experiment(f"chosen {number}", place)
        client.create_run(experiment)
    before = places(home.database)
    follow_move(home)
    assert_left_alone(home, before, capsys.readouterr().err)
    moved = move(home, tmp_path / "moved")
    follow_move(moved)
    assert places(moved.database) == replaced(before, home.root, moved.root)


def test_a_home_behind_a_link_is_one_home_by_either_name(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make(tmp_path / "disk" / "mlruns")
    before = places(home.database)
    (tmp_path / "project").mkdir()
    link = tmp_path / "project" / "mlruns"
    link.symlink_to(home.root)
    follow_move(RunStore.find(str(link)))
    assert_left_alone(home, before, capsys.readouterr().err)
    follow_move.cache_clear()
    link.unlink()
    elsewhere = move(home, tmp_path / "other disk" / "mlruns")
    link.symlink_to(elsewhere.root)
    follow_move(RunStore.find(str(link)))
    assert places(elsewhere.database) == replaced(before, home.root, link)
    assert_whole(RunStore.find(str(link)))


def test_a_store_that_cannot_be_changed_is_left_and_that_is_said(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make(tmp_path / "old" / "mlruns")
    new = move(old, tmp_path / "mlruns")
    before = places(new.database)
    (new.root / "mlflow.db-journal").mkdir()  # no transaction can be begun
    follow_move(new)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"warning: {new.database} cannot be read and changed (")
    (new.root / "mlflow.db-journal").rmdir()
    assert places(new.database) == before


@pytest.mark.parametrize("content", [b"", b"this is no database" * 100])
def test_what_is_no_store_yet_or_damaged_stops_nothing(content: bytes, tmp_path: Path) -> None:
    home = RunStore.find(str(tmp_path))
    home.database.write_bytes(content)
    follow_move(home)
    assert home.database.read_bytes() == content


def test_a_store_of_an_earlier_mlflow_is_followed_as_far_as_it_goes(make: Make, tmp_path: Path) -> None:
    old = make(tmp_path / "old" / "mlruns")
    change(old, "DROP TABLE logged_models")
    change(old, "ALTER TABLE model_versions DROP COLUMN storage_location")
    new = move(old, tmp_path / "mlruns")
    follow_move(new)
    with closing(sqlite3.connect(new.database)) as store:
        ((place,),) = store.execute("SELECT artifact_uri FROM runs")
        ((source,),) = store.execute("SELECT source FROM model_versions")
    assert place.startswith(new.root.as_uri())
    assert source.startswith(new.root.as_uri())


def test_of_many_processes_at_once_one_follows_and_makes_a_backup(make: Make, tmp_path: Path) -> None:
    old = make(tmp_path / "old" / "mlruns")
    new = move(old, tmp_path / "mlruns")
    code = (
        "import sys\nfrom anomaly_ae.runs.store import RunStore\nfrom anomaly_ae.tracking.relocate import follow_move"
        "\n"
        "follow_move(RunStore.find(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(new.root)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 6
    assert sum("moved or copied" in each for each in said) == sum(map(bool, said)) == 1
    assert len(list(new.root.glob(BACKUPS))) == 1
    assert_whole(new)


def test_a_run_that_was_killed_at_once_is_followed_too(cli_process: Cli, tmp_path: Path) -> None:
    old = RunStore.find(str(tmp_path / "old" / "mlruns"))
    logger = run_logger.RunLogger(old, None)
    logger.begin("ours", RunRecord.new("killed", tracked=True))
    run = RunFolder(old.root / "runs" / str(logger.run_id))
    run.write_start(RunConfig(normal="0"), {"digest": "0" * 64, "parts": {}})
    run.write_record(RunRecord(run.path.name, logger.run_id, "killed", now()))
    logger.tell(calls.log_start, run)
    new = move(old, tmp_path / "mlruns")
    assert "moved or copied" in cli_process("runs").err
    logged = MlflowClient(new.tracking_uri).get_run(run.path.name)
    assert logged.info.artifact_uri.startswith(new.artifacts.as_uri())
    assert logged.info.status == KILLED
    assert not old.root.exists()
