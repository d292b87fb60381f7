"""Files written whole or not at all, on the disk before they have their name, and digests of what they hold."""

import contextlib
import csv
import ctypes
import errno
import glob
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anomaly_ae.errors import StorageError, UsageError
from anomaly_ae.escaping import csv_text

LEFT = re.compile(r"\..+\.(?P<pid>\d+)(-\w+)?\.tmp")  # what a writer that was killed leaves behind
NO_SUCH_THING = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # a file system's way of saying that it cannot do it
MORE_ROOM = "make room there or name another place"
REMEDIES_BY_ERRNO = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "see to its permissions or name another one"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), MORE_ROOM),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "close other programs, or allow more open files (ulimit -n)"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTEMPTY), "move away what is there or name another place"),
    errno.ENOENT: "name a place that is there",
    errno.ENOTDIR: "a file is in its path where a folder should be; name another one",
    errno.EISDIR: "a folder has that name; name a file",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.ELOOP: "its links lead in a circle; name what they should lead to",
    errno.EROFS: "name a place that can be written to",
    errno.EIO: "see to the disk",
}
AT_HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def expand(path: str | Path) -> Path:
    """The path with `~` and `~name` filled in. Raises `UsageError` when there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path} names the home folder of a user who does not exist; write the path out") from error


@contextmanager
def storage_errors(doing: str, consolation: str = "") -> Iterator[None]:
    """Turn any `OSError` inside into a `StorageError` that says what was being done, and then what is not lost."""
    try:
        yield
    except OSError as error:
        message = f"cannot {doing}: {with_remedy(error.strerror or str(error), error)}"
        raise StorageError("; ".join(filter(None, (message, consolation)))) from error


def with_remedy(message: str, error: OSError) -> str:
    """The message, and what to do about a place that cannot be read or written, where the error says it."""
    remedy = REMEDIES_BY_ERRNO.get(error.errno or 0)
    return f"{message}; {remedy}" if remedy else message


def write_with(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    durable: whether it must outlive a power cut; a picture that is only looked at need not
    """
    path = _behind_links(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(f"write {path}"):
        make_folder(path.parent)
        try:
            write(temporary)
            if durable:
                flush(temporary)
            temporary.replace(path)
            if durable:
                flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where lies what can be made again, as decoded pictures: ANOMALY_AE_CACHE, else the user's cache folder."""
    named = os.environ.get("ANOMALY_AE_CACHE")
    general = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "anomaly-ae"
    return expand(named or general)


def remembered(name: str, find: Callable[[], Any]) -> Any:
    """Plain JSON that `find` takes long to find, from the cache folder if it is there under that name."""
    path = cache_folder() / name
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_bytes())
    found = find()
    with contextlib.suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    return found


def flush(path: Path) -> None:
    """Have the system put what a file holds, or the names in a folder, on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to and not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SUCH_THING:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, if they are not there, with their names on the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        flush(each.parent)


def require_writable(folder: Path) -> None:
    """Make a folder if it is not there; raise `StorageError` when nothing can be written to it."""
    with storage_errors(f"write to {folder}"):
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _behind_links(path: Path) -> Path:
    """The file that a link is to, which is written in its place; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def remove_temporary(path: Path) -> None:
    """Remove what writers of `path` that were killed have left beside it; no other may be at work."""
    path = _behind_links(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left anywhere in a folder that nobody else is at work in."""
    for path in sorted(folder.rglob(".*.tmp")):
        left = LEFT.fullmatch(path.name)
        # in a container a process often has the number that the last one had
        if left and (int(left["pid"]) == os.getpid() or not _is_alive(int(left["pid"]))):
            _remove(path)


def sweep_top(folder: Path) -> None:
    """Remove what writers that were killed have left right in a folder, where others may be at work."""
    _remove_left(folder.glob(".*.tmp"))


def _remove_left(paths: Iterable[Path]) -> None:
    """Remove those whose writers are gone."""
    for path in paths:
        if (left := LEFT.fullmatch(path.name)) and not _is_alive(int(left["pid"])):
            _remove(path)


def _is_alive(pid: int) -> bool:
    """Whether there is a process with that number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step; a reader sees the old content or the new, never a part."""
    write_with(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    r"""Write a text file in one step; what no UTF-8 can hold, as in odd names of files, becomes \udcNN."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON that people can read, in one step."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same keys as CSV, in one step; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: csv_text(value) if isinstance(value, str) else value for key, value in row.items()})
    write_text(path, text.getvalue())


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder beside `folder`, then put it in place; replaces what was there.

    Whenever it ends, and however, there is the old folder or the new one, where `restore` is called before reading.
    """
    with storage_errors(f"write {folder}"):
        make_folder(folder.parent)
        _remove_left(folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"))
        prefix = f".{folder.name}.{os.getpid()}-"
        temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=folder.parent))
        try:
            temporary.chmod(0o755)  # mkdtemp's own 0700 would shut others out
            write(temporary)
            for path in [*temporary.rglob("*"), temporary]:
                flush(path)
            _put_in_place(temporary, folder)
            flush(folder.parent)
        finally:
            restore(folder)
            _remove(temporary)


def restore(folder: Path) -> None:
    """Give a folder its name back, if whoever replaced it was killed between taking that away and giving it anew."""
    with contextlib.suppress(OSError):  # it is there, or there is none
        if not folder.exists():
            _aside(folder).rename(folder)


def _put_in_place(new: Path, folder: Path) -> None:
    """Give a folder its name; what had that before is called `new` then, or is gone."""
    restore(folder)
    if not folder.exists():
        new.rename(folder)
    elif not _exchange(new, folder):
        aside = _aside(folder)
        _remove(aside)
        folder.rename(aside)
        new.rename(folder)
        _remove(aside)


def _aside(folder: Path) -> Path:
    """Where a folder is for a moment while another takes its name."""
    return folder.with_name(f".{folder.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Give two folders each other's name in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_HERE, os.fsencode(one), AT_HERE, os.fsencode(other), EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in NO_SUCH_THING:
        return False
    raise OSError(number, os.strerror(number), str(other))


def sha256(*parts: bytes | memoryview) -> str:
    """The SHA-256 of the parts one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
