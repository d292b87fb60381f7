"""The way to MLflow: its client, and its errors as ours."""

import logging
import os
import signal
import sqlite3
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from anomaly_ae.errors import ModelNotFound, StorageError, install_extra, one_line
from anomaly_ae.escaping import printable
from anomaly_ae.runs.store import STORE_LOCK_WAIT, RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.notebook import without_widgets
from anomaly_ae.storage.atomic import storage_errors, with_remedy
from anomaly_ae.tracking import database
from anomaly_ae.tracking.relocate import follow_move

VARIABLE = "MLFLOW_TRACKING_URI"
LOCK_POLL = 0.05  # seconds
SAID_AFTER = 3.0  # seconds of waiting
LONGEST_WAIT = 120.0  # seconds, many times what eight trainings that log at once take
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
LONGEST_SAID = 200  # characters of its errors
OUTDATED = "out-of-date database schema"  # an error of its that has no code
AWAY = (  # the codes of its errors that pass by themselves; it takes the first for all that it has none for
    *("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED"),
    *("REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"),
)
WHO = "see MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
REMEDIES = {  # by the codes of its errors
    "UNAUTHENTICATED": WHO,
    "CUSTOMER_UNAUTHORIZED": WHO,
    "PERMISSION_DENIED": WHO,
    "ENDPOINT_NOT_FOUND": "is MLFLOW_TRACKING_URI the address of a server of MLflow's?",
}
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the codes of its errors where it has no such thing


@contextmanager
def store_held(home: RunStore) -> Iterator[None]:
    """Keep our other processes from a SQLite store: of many that write at once it lets some wait in vain.

    Raises `StorageError` when others hold it, and write nothing for so long that they seem to hang.
    """
    lock = home.store_lock()
    if home.store_file is None or lock.is_locked:
        yield
        return
    with storage_errors(f"write to {home.store_file.parent}"):
        home.store_file.parent.mkdir(parents=True, exist_ok=True)
    for _ in _turns(home.store_file):
        with _ctrl_c_held_back():
            if _taken(lock, home):
                try:
                    yield
                finally:
                    lock.release()
                return
    raise StorageError(f"{home.store_file} is in other processes' hands; wait for them or stop them")


def _turns(store: Path) -> Iterator[None]:
    """The moments at which to try for the store; between them a Ctrl-C ends the waiting at once."""
    began, said = time.time(), False
    while True:
        yield
        time.sleep(LOCK_POLL)
        now = time.time()
        written = store.stat().st_mtime if store.exists() else 0.0  # who writes does not hang
        if now - max(began, written) > STORE_LOCK_WAIT or now - began > LONGEST_WAIT:
            return
        if not said and now - began > SAID_AFTER:
            logger.info(f"waiting for {store}, which is in other processes' hands")
            said = True


def _taken(lock: FileLock, home: RunStore) -> bool:
    """Whether the lock could be had at once, and no other program holds the database."""
    with storage_errors(f"write to {lock.lock_file}"):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
    if database.is_held(home):
        lock.release()
    return lock.is_locked


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Within it a first Ctrl-C waits until the end, for one that cut off who holds the store might leave it held."""
    is_main = threading.current_thread() is threading.main_thread()  # which alone is interrupted
    if not is_main or None in map(signal.getsignal, INTERRUPTS):  # or a program around Python sees to it
        yield
        return
    came = list[int]()

    def remember(number: int, _: object) -> None:
        if came:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        came.append(number)

    before = {number: signal.signal(number, remember) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def open_client(home: RunStore) -> Any:
    """MLflow's client, imported only here since that takes a second or two. Raises `StorageError`."""
    _check_home_folder()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with without_widgets():
        from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it prints tracebacks of errors that we report
    with store_held(home):  # two that make the database at once would trip over each other
        database.make_ready(home)
        follow_move(home)
        try:
            return MlflowClient(home.tracking_uri)
        except ImportError as error:
            remedy = install_extra("postgresql") if home.tracking_uri.startswith("postgresql") else one_line(error)
            raise StorageError(
                f"MLflow at {home.tracking_uri} needs a driver that is not installed; {remedy}"
            ) from error


def _check_home_folder() -> None:
    """Raise `StorageError` where MLflow could not even be imported, as in a container for a user whom it lacks."""
    try:
        Path.home()
    except RuntimeError as error:
        raise StorageError("MLflow needs a home folder, and the user has none; set HOME to a folder") from error


def find_experiment(client: Any, home: RunStore, name: str) -> str:
    """The experiment's id; it is made when it is not there yet. Raises `StorageError` when it was deleted."""
    from mlflow.exceptions import MlflowException

    name = printable(name)
    found = client.get_experiment_by_name(name)
    if found is None:
        place = home.artifacts.as_uri() if home.is_local else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        restore = f"{VARIABLE}={home.tracking_uri} mlflow experiments restore --experiment-id {found.experiment_id}"
        raise StorageError(f"MLflow's experiment {name!r} was deleted; bring it back with: {restore}")
    return str(found.experiment_id)


@contextmanager
def mlflow_errors(home: RunStore, missing: str) -> Iterator[None]:
    """Raise `ModelNotFound`, saying `missing`, where MLflow has no such thing, and `StorageError`, which says what to
    do, where it is away or refuses.
    """
    _check_home_folder()
    from alembic.util import CommandError  # which a database of another version gets through
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # and a damaged one

    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError) as error:
        if getattr(error, "error_code", None) in MISSING:
            raise ModelNotFound(missing) from error
        raise explain(home, error) from error


def explain(home: RunStore, error: Exception) -> StorageError:
    """What an error of MLflow's means. Only what waiting can mend is to be tried again later."""
    if isinstance(error, StorageError):
        return error
    if of_database := _database_error(error):
        return database.explain(home, of_database)
    if isinstance(error, OSError) and error.filename:  # and not one of a network
        return StorageError(with_remedy(f"cannot write {error.filename} ({error.strerror})", error))
    said = textwrap.shorten(one_line(error), LONGEST_SAID, placeholder=" …")
    if _may_pass(error):
        return StorageError(f"MLflow at {home.tracking_uri} does not answer ({said}); try again later")
    remedy = REMEDIES.get(getattr(error, "error_code", ""), "that must be mended first, for waiting does not help")
    return StorageError(f"MLflow at {home.tracking_uri} refuses this ({said}); {remedy}")


def _database_error(error: BaseException | None) -> sqlite3.Error | None:
    """The error of SQLite's that an error came from, if it did."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__
    return error


def _may_pass(error: Exception) -> bool:
    """Whether it is as if MLflow were away, and not an answer that something is wrong."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    if isinstance(error, MlflowException):
        return error.error_code in AWAY and OUTDATED not in str(error)
    return isinstance(error, OSError | OperationalError)


@contextmanager
def tracking_at(home: RunStore) -> Iterator[None]:
    """Within it, what MLflow does by itself is done at this home, too; after it, all is as it was."""
    import mlflow

    named = os.environ.pop(VARIABLE, None)
    chosen = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # by a call, then
    try:
        if chosen:
            mlflow.set_tracking_uri(home.tracking_uri)
        os.environ[VARIABLE] = home.tracking_uri
        yield
    finally:
        os.environ.pop(VARIABLE)
        if chosen:
            mlflow.set_tracking_uri(chosen)
        if named is not None:
            os.environ[VARIABLE] = named
