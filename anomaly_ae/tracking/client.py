"""The way to MLflow: its client, and its errors as ours."""

import logging
import os
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from filelock import FileLock, Timeout

from anomaly_ae.errors import ModelNotFound, StorageError, one_line
from anomaly_ae.runs import LOCK_WAIT, Home
from anomaly_ae.tracking.moving import follow_move

VARIABLE = "MLFLOW_TRACKING_URI"
LOCK_POLL = 0.05  # seconds
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the codes of its errors where it has no such thing


@contextmanager
def store_held(home: Home) -> Iterator[None]:
    """Keep our other processes from a local store: of many that write at once SQLite lets some wait in vain."""
    lock, deadline = home.store_lock(), time.monotonic() + LOCK_WAIT
    if not home.is_local or lock.is_locked:
        yield
        return
    home.root.mkdir(parents=True, exist_ok=True)
    while time.monotonic() < deadline:
        with _ctrl_c_held_back():
            if _taken(lock):
                try:
                    yield
                finally:
                    lock.release()
                return
        time.sleep(LOCK_POLL)  # here a Ctrl-C ends it at once
    raise StorageError(f"{home.database} is in other processes' hands; wait for them or stop them")


def _taken(lock: FileLock) -> bool:
    """Whether the lock could be had at once."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


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


def open_client(home: Home) -> Any:
    """MLflow's client, imported only here since that takes a second or two."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it prints tracebacks of errors that we report
    with store_held(home):  # two that make the database at once would trip over each other
        follow_move(home)
        return MlflowClient(home.tracking_uri)


def find_experiment(client: Any, home: Home, name: str) -> str:
    """The experiment's id; it is made when it is not there yet."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    place = home.artifacts.as_uri() if home.is_local else None
    try:
        return str(client.create_experiment(name, artifact_location=place))
    except MlflowException:  # another process was faster
        if found := client.get_experiment_by_name(name):
            return str(found.experiment_id)
        raise


@contextmanager
def mlflow_errors(home: Home, missing: str) -> Iterator[None]:
    """Raise `ModelNotFound`, saying `missing`, where MLflow has no such thing, `StorageError` where it is away."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # which a damaged database gets through

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        if getattr(error, "error_code", None) in MISSING:
            raise ModelNotFound(missing) from error
        said = textwrap.shorten(one_line(error), 120, placeholder=" …")
        raise StorageError(f"MLflow at {home.tracking_uri} does not answer ({said}); try again later") from error


@contextmanager
def tracking_at(home: Home) -> Iterator[None]:
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
