"""Files written whole or not at all, and digests of what they hold."""

import csv
import glob
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anomaly_ae.errors import StorageError, UsageError


def expand(path: str | Path) -> Path:
    """The path with `~` and `~name` filled in. Raises `UsageError` when there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path} names the home folder of a user who does not exist; write the path out") from error


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn any `OSError` inside into a `StorageError` that says what was being done."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"cannot {doing}: {reason}; free the place or name another one") from error


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Make a folder if it is not there; raise `StorageError` when nothing can be written to it."""
    with storage_errors(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def remove_temporary(path: Path) -> None:
    """Remove what writers of `path` that were killed have left beside it; no other may be at work."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step; a reader sees the old content or the new, never a part."""
    write_with(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON that people can read, in one step."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same keys as CSV, in one step; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder beside `folder`, then put it in place; replaces what was there."""
    with storage_errors(f"write {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            temporary.chmod(0o755)  # mkdtemp's own 0700 would shut others out
            write(temporary)
            with tempfile.TemporaryDirectory(prefix=".old.", dir=folder.parent, ignore_cleanup_errors=True) as aside:
                if folder.exists():
                    folder.rename(Path(aside) / folder.name)
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sha256(*parts: bytes | memoryview) -> str:
    """The SHA-256 of the parts one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
