"""MLflow's database, where that is a SQLite file: made, brought up to date and looked at before MLflow opens it.

MLflow builds its tables in dozens of steps, and one that is cut off in between leaves a database that nothing can
use any more. So they are built in a file beside, which gets the name when it is whole.
"""

import contextlib
import functools
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from anomaly_ae.errors import StorageError, one_line
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import MORE_ROOM, cache_folder, remembered, remove_temporary, write_with

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
NOT_OURS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)
FILLED_BY_MIGRATIONS = ("alembic_version", "workspaces")  # with rows, before there is an experiment or a run


def open_database(path: Path) -> sqlite3.Connection:
    """A connection on which transactions begin and end where we say so. Makes no database where there is none."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def copy_database(path: Path, target: Path) -> None:
    """Copy a database as it is between two transactions, whoever else has it open."""
    with closing(open_database(path)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def name_aside(path: Path, why: str) -> Path:
    """A new name beside a database, for it as it was."""
    return path.with_name(f"{path.name}.{why}-{datetime.now():%Y-%m-%dT%H-%M-%S.%f}")


def is_held(home: RunStore) -> bool:
    """Whether another program keeps everybody from writing to the database just now."""
    path = home.store_file
    if path is None or not path.is_file():
        return False
    try:
        with closing(open_database(path)) as database:
            database.execute("PRAGMA busy_timeout = 0")
            database.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        return _code(error) in BUSY
    return False


def run_ids(home: RunStore) -> set[str]:
    """The ids of all runs in a local database, none where there is none. Raises `StorageError` when it is damaged."""
    try:
        with closing(open_database(home.database)) as database:
            return {run_id for (run_id,) in database.execute("SELECT run_uuid FROM runs")}
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CANTOPEN) and not home.database.is_dir():
            return set()  # no such table, or no such file
        raise explain(home, error) from error
    except sqlite3.Error as error:
        raise explain(home, error) from error


def running_runs(home: RunStore, tag: str) -> dict[str, str | None]:
    """The ids of runs that this tool has begun and a local database still calls RUNNING, and the value of a tag that
    they may have. None where the database cannot be read just now.
    """
    query = """
        SELECT runs.run_uuid, asked.value FROM runs
        JOIN tags AS source ON source.run_uuid = runs.run_uuid
        LEFT JOIN tags AS asked ON asked.run_uuid = runs.run_uuid AND asked.key = ?
        WHERE source.key = 'mlflow.source.name' AND source.value = 'anomaly-ae'
        AND runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active'
    """
    try:
        with closing(open_database(home.database)) as database:
            return dict(database.execute(query, (tag,)).fetchall())
    except sqlite3.Error:
        return {}


def explain(home: RunStore, error: sqlite3.Error) -> StorageError:
    """What a database's error means, and what to do."""
    path = home.store_file
    if path is not None and path.is_dir():
        return StorageError(f"{path} is a folder, and MLflow's database is a file; move the folder away")
    if _code(error) in BUSY:
        return StorageError(f"{path} is in another program's hands ({error}); wait for it or stop it")
    if _code(error) in DAMAGED:
        return StorageError(f"{path} is damaged or no database at all ({error}); {_anew(home)}")
    if _code(error) == sqlite3.SQLITE_FULL:
        return StorageError(f"{path} cannot be written ({error}); {MORE_ROOM}")
    if _code(error) in NOT_OURS:
        return StorageError(f"{path} cannot be read and written ({error}); see to its permissions and its disk")
    return StorageError(f"{path} is not as MLflow needs it ({error}); {_anew(home)}")


def make_ready(home: RunStore) -> None:
    """See that there is a database which this version of MLflow can use. Whoever calls holds the store.

    One that is not there is made, one of an older MLflow is brought up to date, and one that MLflow did not finish
    making is set aside. Raises `StorageError` when it is a folder, damaged, of something else or of a newer MLflow.
    """
    path = home.store_file
    if path is None:  # a server sees to its own
        return
    if any("\ud800" <= letter <= "\udfff" for letter in str(path)):  # bytes that are no UTF-8
        raise StorageError(f"MLflow cannot have a database in {path}, which is no UTF-8; see {setting('mlruns')}")
    remove_temporary(path)
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        _make(path)
        return
    try:
        with closing(open_database(path)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            revision = _revision(database) if "alembic_version" in tables else None
            has_rows = any(_has_rows(database, table) for table in tables.difference(FILLED_BY_MIGRATIONS))
    except sqlite3.Error as error:
        raise explain(home, error) from error
    newest, known = _revisions()
    if revision == newest:
        return
    if revision is not None and revision not in known:
        raise StorageError(
            f"{path} was made by a newer MLflow than the {_version()} that is installed; install a newer one, or "
            f"keep runs elsewhere with {setting('mlruns')}"
        )
    if not has_rows:
        aside = name_aside(path, "half-made")
        path.rename(aside)
        logger.info(f"{path} was left half-made and held nothing: it is now {aside.name}, and a new one is made")
        _make(path)
    elif "experiments" in tables:
        _upgrade(home, path)
    else:
        raise StorageError(f"{path} is the database of something else than MLflow; move it away")


def _make(path: Path) -> None:
    """Make the database, as a copy of an empty one that was kept in the cache: MLflow's steps take seconds."""
    from mlflow.store.db.utils import _initialize_tables

    kept = cache_folder() / f"mlflow-{_version()}.db"

    def make(target: Path) -> None:
        with contextlib.suppress(OSError):
            shutil.copyfile(kept, target)
            if _is_new(target):
                return
        target.unlink(missing_ok=True)
        _migrate(target, _initialize_tables)
        with contextlib.suppress(OSError, StorageError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_with(kept, partial(shutil.copyfile, target))

    write_with(path, make)


def _is_new(path: Path) -> bool:
    """Whether a database is whole, of this MLflow, and has neither an experiment nor a run."""
    try:
        with closing(open_database(path)) as database:
            is_whole = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            is_used = any(_has_rows(database, table) for table in ("experiments", "runs"))
            return is_whole and not is_used and _revision(database) == _revisions()[0]
    except sqlite3.Error:
        return False


def _upgrade(home: RunStore, path: Path) -> None:
    """Bring the database of an older MLflow up to date, and keep it as it was beside itself."""
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _upgrade_db
    from sqlalchemy.exc import SQLAlchemyError

    def upgrade(target: Path) -> None:
        copy_database(path, target)
        _remove_unfinished(target)
        _migrate(target, _upgrade_db)

    backup = name_aside(path, "before-upgrade")
    logger.info(
        f"{path} is of an older MLflow and is brought up to {_version()}; as it was it is kept as {backup.name}"
    )
    with closing(open_database(path)) as database:
        database.execute("BEGIN IMMEDIATE")  # so that nobody writes to what is about to be replaced
        write_with(backup, lambda target: copy_database(path, target))
        try:
            write_with(path, upgrade)
        except (SQLAlchemyError, MlflowException, CommandError) as error:
            backup.unlink()
            raise StorageError(
                f"{path} cannot be brought up to date ({one_line(error)}), and is left as it was; {_anew(home)}"
            ) from error


def _migrate(path: Path, migrate: Callable[[Any], None]) -> None:
    """Let MLflow make or change the tables of a database that nobody else knows of."""
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from sqlalchemy import event

    def write_at_leisure(connection: sqlite3.Connection, _: object) -> None:
        """Do without the disk's word after each step, which takes most of the time: `write_with` asks for it."""
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    engine = create_sqlalchemy_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", write_at_leisure)
    try:
        migrate(engine)
    finally:
        engine.dispose()


def _remove_unfinished(path: Path) -> None:
    """Remove the copies of tables that an upgrade which was cut off was making; the tables themselves are there."""
    with closing(open_database(path)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE name GLOB '_alembic_tmp_*'").fetchall()
        for (name,) in names:
            table = name.removeprefix("_alembic_tmp_")
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                database.execute(f'DROP TABLE "{name}"')


def _revision(database: sqlite3.Connection) -> str | None:
    row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return row and str(row[0])


def _has_rows(database: sqlite3.Connection, table: str) -> bool:
    return database.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None


@functools.cache
def _revisions() -> tuple[str, frozenset[str]]:
    """The newest revision of the database that this MLflow knows, and all of them."""

    def find() -> list[str]:
        from alembic.script import ScriptDirectory
        from mlflow.store import db_migrations

        scripts = ScriptDirectory(str(Path(db_migrations.__file__).parent))
        return [str(scripts.get_current_head()), *(script.revision for script in scripts.walk_revisions())]

    newest, *others = remembered(f"mlflow-{_version()}-revisions.json", find)
    return newest, frozenset([newest, *others])


def _version() -> str:
    from mlflow.version import VERSION

    return str(VERSION)


def _anew(home: RunStore) -> str:
    return f"move it away, and the runs are logged to a new one by: {home.command('runs', sync=True)}"


def _code(error: sqlite3.Error) -> int:
    """SQLite's number for the kind of an error; 0 where it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
