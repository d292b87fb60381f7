"""A home that was moved or copied. MLflow's store has the places of artifacts as absolute paths: they follow."""

import functools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from anomaly_ae.errors import StorageError, one_line
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.storage.atomic import write_with
from anomaly_ae.tracking.database import copy_database, name_aside, open_database

OF_RUNS = (("runs", "artifact_uri"), ("logged_models", "artifact_location"))
PATH_COLUMNS = (  # all columns of MLflow's database that can have an absolute path
    *OF_RUNS,
    ("experiments", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


@functools.cache  # once in a process, for the store is opened after every epoch
def follow_move(home: RunStore) -> None:
    """Set the places in a local store right, if its home was moved or copied here since they were written.

    The store is backed up beside itself first. Places outside of the old home stay as they are, and so do stores
    that are elsewhere. A store that cannot be read or changed is left as it is, and that is said.
    """
    if not home.is_local or not home.database.exists():
        return
    try:
        with closing(open_database(home.database)) as store:
            if _old_homes(store, home):
                with home.store_lock():
                    _rewrite(store, home)
    except (sqlite3.Error, OSError, StorageError) as error:
        logger.warning(
            f"{home.database} cannot be read and changed ({one_line(error)}); if these runs were moved "
            "here, their artifacts are not found until it can be"
        )


def _rewrite(store: sqlite3.Connection, home: RunStore) -> None:
    """Back up the store and change its places, in one transaction that holds other writers off."""
    store.execute("BEGIN IMMEDIATE")
    old_homes = _old_homes(store, home)
    if not old_homes:
        return  # another process was faster
    backup = name_aside(home.database, "before-move")
    write_with(backup, lambda target: copy_database(home.database, target))
    store.create_function("moved", 1, lambda place: _moved(place, home.root, old_homes))
    for table, column in _known(store, PATH_COLUMNS):
        store.execute(f"UPDATE {table} SET {column} = moved({column}) WHERE {column} != moved({column})")
    store.execute("COMMIT")
    logger.info(
        f"the runs were moved or copied from {' and '.join(map(str, sorted(old_homes)))}: their artifacts are now "
        f"looked for in {home.root}; MLflow's database as it was is {backup.name} there"
    )


def _old_homes(store: sqlite3.Connection, home: RunStore) -> set[Path]:
    """Folders that artifacts of runs and models lie in, by the store, though in truth they lie in this home.

    That the files are here tells a home that was moved from a place that somebody chose for an experiment.
    """
    found = {_home_of(path, home.root) for path in _places_elsewhere(store, home)}
    return {old for old in found if old and not (old.exists() and old.samefile(home.root))}  # one may be a link


def _home_of(path: Path, root: Path) -> Path | None:
    """The beginning of the path without which it names something below `root`: two parts at least, the last but
    one of which is the id of a run or model.
    """
    return next((above for above in path.parents[1:] if (root / path.relative_to(above)).exists()), None)


def _places_elsewhere(store: sqlite3.Connection, home: RunStore) -> Iterator[Path]:
    """Where the artifacts of runs and models are by the store, but for those in this home's own folder."""
    here = f"{home.artifacts.as_uri()}/"
    for table, column in _known(store, OF_RUNS):
        query = f"SELECT {column} FROM {table} WHERE substr({column}, 1, ?) != ?"  # LIKE would take _ as a wildcard
        for (place,) in store.execute(query, (len(here), here)):
            if path := _path(place):
                yield path


def _known(store: sqlite3.Connection, columns: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Those of the columns that the store has; other versions of MLflow have fewer."""
    there = {table: {name for _, name, *_ in store.execute(f"PRAGMA table_info({table})")} for table, _ in columns}
    return [(table, column) for table, column in columns if column in there[table]]


def _moved(place: str | None, root: Path, old_homes: set[Path]) -> str | None:
    """The place below `root` for one below an old home, written as that was; any other as it is."""
    path = _path(place)
    if place is None or path is None:
        return place
    homes = [home for home in (root, *old_homes) if path.is_relative_to(home)]
    innermost = max(homes, key=lambda home: len(home.parts), default=root)  # one home may lie in another
    if innermost == root:
        return place
    new = root / path.relative_to(innermost)
    return new.as_uri() if place.startswith("file:") else str(new)


def _path(place: str | None) -> Path | None:
    """The path that a place names; None for one that is not in a file system, as s3://… and models:/…"""
    if place and place.startswith("file:"):
        return Path(unquote(urlsplit(place).path))
    return Path(place) if place and place.startswith("/") else None
