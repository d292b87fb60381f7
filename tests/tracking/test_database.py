"""MLflow's database, by MLflow's own means: made whole or not at all, and told from what is none."""

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import StorageError
from anomaly_ae.runs.record import FINISHED, RunRecord
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking import client, database, run_logger
from anomaly_ae.tracking.database import make_ready
from tests.conftest import struck

KILLS_ITSELF = """
import os, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking.client import open_client

left = int(sys.argv[2])

@event.listens_for(Engine, "before_cursor_execute")
def count(*_):
    global left
    left -= 1
    if left <= 0:  # again at the next, for a Ctrl-C that falls into the end of an object is lost
        os.kill(os.getpid(), int(os.environ["STRUCK_BY"]))
        os.kill(os.getpid(), int(os.environ["STRUCK_BY"]))

open_client(RunStore.find(sys.argv[1]))
"""


def killed_while_it_opens(home: RunStore, statements: int, by: signal.Signals = signal.SIGKILL) -> str:
    """Open the store in a process that is killed after so many statements; what it said."""
    cache = str(home.root.parent / "cache")
    called = (KILLS_ITSELF, str(home.root), str(statements))
    ended = struck(home.root.parent, by, *called, ANOMALY_AE_CACHE=cache)
    assert ended.code != 0
    return ended.err


def revisions(count: int) -> list[str]:
    """The newest revisions of MLflow's database, the newest first."""
    scripts = ScriptDirectory(str(Path(utils.__file__).parents[1] / "db_migrations"))
    return [script.revision for script in scripts.walk_revisions()][:count]


def revision_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        ((revision,),) = connection.execute("SELECT version_num FROM alembic_version")
    return str(revision)


def migrate(path: Path, revision: str) -> None:
    """Make a database as MLflow makes it, up to a revision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = utils._get_alembic_config(str(engine.url))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    home = RunStore.find(str(tmp_path_factory.mktemp("whole")))
    make_ready(home)
    return home.database.read_bytes()


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database of an MLflow some versions ago, with an experiment."""
    path = tmp_path_factory.mktemp("older") / "mlflow.db"
    migrate(path, revisions(6)[-1])
    execute(path, "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (1, 'before', 'active')")
    return path.read_bytes()


def keep(home: RunStore, content: bytes) -> None:
    home.root.mkdir(parents=True, exist_ok=True)
    home.database.write_bytes(content)


def assert_works(home: RunStore) -> None:
    """MLflow keeps runs there, and nothing is left beside it but what is said."""
    client.open_client(home)
    assert revision_of(home.database) == revisions(1)[0]
    assert MlflowClient(home.tracking_uri).create_run("0").info.run_id
    assert not list(home.root.glob(".*"))


def begun(home: RunStore) -> str | None:
    """MLflow's id of a run that begins; None where MLflow is away."""
    logger = run_logger.RunLogger(home, None)
    logger.begin("ours", RunRecord.new("first", tracked=True))
    return logger.run_id


@pytest.mark.slow  # several processes, killed
@pytest.mark.parametrize(("statements", "by"), [(300, signal.SIGKILL), (100, signal.SIGINT)])
def test_a_kill_while_the_database_is_made_leaves_none(
    home: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statements: int, by: signal.Signals
) -> None:
    monkeypatch.setenv("ANOMALY_AE_CACHE", str(tmp_path / "cache"))
    killed_while_it_opens(home, statements, by)
    assert not home.database.exists()
    assert_works(home)


def test_a_new_database_is_a_copy_of_an_empty_one_unless_that_is_damaged(
    home: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_AE_CACHE", str(tmp_path / "cache"))
    made = list[Path]()
    migrate_as_before = database._migrate
    monkeypatch.setattr(database, "_migrate", lambda path, do: (made.append(path), migrate_as_before(path, do)))
    first, *others = [RunStore.find(str(tmp_path / name)) for name in ("first", "second", "third", "fourth")]
    make_ready(first)
    [kept] = (tmp_path / "cache").iterdir()
    assert len(made) == 1
    for other, content in zip(others, (kept.read_bytes(), kept.read_bytes()[:9000], b""), strict=True):
        kept.write_bytes(content)
        assert_works(other)
    assert len(made) == 3
    execute(
        first.database, "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (1, 'a', 'active')"
    )
    kept.write_bytes(first.database.read_bytes())
    make_ready(home)
    assert len(made) == 4
    assert revision_of(kept) == revisions(1)[0]


def test_an_older_database_is_brought_up_to_date_and_kept_as_it_was(
    home: RunStore, older: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(home, older)
    killed_while_it_opens(home, 15)
    assert home.database.read_bytes() == older
    execute(home.database, "CREATE TABLE _alembic_tmp_runs (run_uuid)")  # as an upgrade that was cut off leaves it
    assert_works(home)
    backup = sorted(home.root.glob("mlflow.db.before-upgrade-*"))[-1]
    assert "is of an older MLflow and is brought up to 3." in (said := capsys.readouterr().err)
    assert backup.name in said
    assert revision_of(backup) == revisions(6)[-1]
    assert MlflowClient(home.tracking_uri).get_experiment("1").name == "before"
    client.open_client(home)
    assert capsys.readouterr().err == ""


def test_a_half_made_database_is_set_aside(home: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    migrate(home.database, revisions(40)[-1])
    execute(home.database, "CREATE TABLE _alembic_tmp_params (key)")
    half = home.database.read_bytes()
    assert_works(home)
    (aside,) = home.root.glob("mlflow.db.half-made-*")
    assert aside.read_bytes() == half
    assert f"it is now {aside.name}" in capsys.readouterr().err


def test_an_empty_file_is_no_database_yet(home: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    keep(home, b"")
    assert_works(home)
    assert capsys.readouterr().err == ""


def newer(home: RunStore, whole: bytes) -> None:
    keep(home, whole)
    execute(home.database, "UPDATE alembic_version SET version_num = 'of tomorrow'")


def of_something_else(home: RunStore, _: bytes) -> None:
    keep(home, b"")
    execute(home.database, "CREATE TABLE music (title)", "INSERT INTO music VALUES ('4′33″')")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda home, _: home.database.mkdir(parents=True), "is a folder, and MLflow's database is a file; move the"),
        (lambda home, _: keep(home, b"no database" * 999), "is damaged or no database at all .* move it away, and"),
        (lambda home, whole: keep(home, whole[:300_000]), "is damaged or no database at all .* move it away, and"),
        (lambda home, whole: keep(home, whole[:50]), "is damaged or no database at all .* move it away, and"),
        (newer, r"was made by a newer MLflow than the 3\.\S+ that is installed; install a newer one"),
        (of_something_else, "is the database of something else than MLflow; move it away"),
    ],
    ids=["folder", "text", "cut", "stump", "newer", "other"],
)
def test_what_cannot_be_used_is_said_with_its_remedy_and_left_alone(
    prepare: Callable[[RunStore, bytes], None],
    said: str,
    home: RunStore,
    whole: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare(home, whole)
    before = None if home.database.is_dir() else home.database.read_bytes()
    assert begun(home) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: going on without MLflow: {home.database} ")
    assert "later" not in line
    with pytest.raises(StorageError, match=said):
        client.open_client(home)
    assert home.database.is_dir() or home.database.read_bytes() == before


def test_who_holds_the_database_is_waited_for_and_that_is_said(
    home: RunStore, whole: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.STORE_LOCK_WAIT <= 20
    monkeypatch.setattr(client, "STORE_LOCK_WAIT", 1.0)
    monkeypatch.setattr(client, "SAID_AFTER", 0.2)
    keep(home, whole)
    with closing(sqlite3.connect(home.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert begun(home) is None
        first, last = capsys.readouterr().err.splitlines()
        assert first == f"waiting for {home.database}, which is in other processes' hands"
        assert "is in other processes' hands; wait for them or stop them" in last
        other.execute("ROLLBACK")
    assert begun(home) is not None


def test_a_training_beside_a_damaged_database_ends_well_and_is_logged_to_a_new_one(
    home: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(home, b"no database" * 999)
    run = home.find_run(anomaly_ae.train(RunConfig(normal="0,1", epochs=1, preset="fast"), home=home).run_id)
    assert (run.record.status, run.record.mlflow_run_id) == (FINISHED, None)
    with pytest.raises(StorageError, match="1 of 1 runs could not be logged"):
        run_logger.sync(home)
    assert "later" not in capsys.readouterr().err.replace("log it to MLflow later", "")
    for _ in range(2):  # in a place of its own, and thrown away
        home.database.unlink()
        run_logger.sync(home)
        assert MlflowClient(home.tracking_uri).get_run(str(run.record.mlflow_run_id)).info.status == FINISHED
    assert "MLflow's database lacks 1 run that it had" in capsys.readouterr().err
    run_logger.sync(home)
    assert capsys.readouterr().err == "nothing is waiting to be logged\n"
