import errno
import os
import resource
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from anomaly_ae.errors import StorageError
from anomaly_ae.storage import atomic
from anomaly_ae.storage.atomic import (
    restore,
    sha256,
    storage_errors,
    sweep,
    write_bytes,
    write_csv,
    write_folder,
    write_json,
    write_text,
    write_with,
)


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")

    def half(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device"):
        write_with(file, half)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "; see to its permissions or name another one"),
        (errno.ENOSPC, "; make room there or name another place"),
        (errno.EDQUOT, "; make room there or name another place"),
        (errno.EROFS, "; name a place that can be written to"),
        (errno.EADDRINUSE, ""),
    ],
)
def test_what_cannot_be_written_says_what_to_do_where_that_is_known(number: int, said: str) -> None:
    with pytest.raises(StorageError) as raised, storage_errors("write a"):
        raise OSError(number, os.strerror(number))
    assert str(raised.value) == f"cannot write a: {os.strerror(number)}{said}"


def test_the_system_s_own_refusals_each_have_their_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to("circle")
    refused = {
        "file/below": "a file is in its path where a folder should be; name another one",
        "circle": "its links lead in a circle; name what they should lead to",
        "absent": "name a place that is there",
        "": "a folder has that name; name a file",
        "x" * 300: "name a shorter one",
    }
    for name, remedy in refused.items():
        with pytest.raises(StorageError) as raised, storage_errors("read it"):
            (tmp_path / name).read_bytes()
        assert str(raised.value).endswith(f"; {remedy}")
    with pytest.raises(StorageError, match="; move away what is there or name another place"):
        write_bytes(tmp_path / "file" / "below", b"")


def test_a_folder_that_cannot_be_filled_is_not_there_at_all(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "one").write_text("1")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError):
        write_folder(tmp_path / "detector", half)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_storage_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A real refusal by the system: no file of this process may grow beyond a kilobyte."""
    code = (
        "from pathlib import Path\nfrom anomaly_ae.storage.atomic import write_bytes\n"
        "from anomaly_ae.errors import StorageError\n"
        f"try: write_bytes(Path({str(tmp_path / 'big')!r}), bytes(100_000))\n"
        "except StorageError as error: print(error)"
    )
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (1024, 1024))
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_none_is_an_empty_cell(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"a": 1, "b": None}, {"a": "x,y", "b": 2}])
    assert (tmp_path / "a.csv").read_text() == 'a,b\n1,\n"x,y",2\n'


def test_digest_is_sha256() -> None:
    assert sha256(b"a", b"bc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def contents(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.iterdir()}


def write_both(folder: Path, text: str) -> None:
    def fill(new: Path) -> None:
        for name in ("one", "two"):
            (new / name).write_text(text)

    write_folder(folder, fill)


def die_at_call(number: int) -> None:
    """End this process at that call to the system from now on."""
    calls = count(1)

    def hear(*_: object) -> None:
        if next(calls) == number:
            os._exit(9)

    sys.addaudithook(hear)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchanged", "in two steps"])
def test_a_folder_is_the_old_or_the_new_whenever_its_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """Its writer is killed at its first call to the system, at its second, and so on until it comes through."""
    if not exchanges:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    folder = tmp_path / "detector"
    seen = list[str]()
    for last in count(1):
        write_both(folder, "old")
        child = os.fork()
        if child == 0:
            die_at_call(last)
            write_both(folder, "new")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        restore(folder)
        (found,) = contents(folder)
        seen.append(found)
        if status == 0:
            break
    assert seen == sorted(seen, reverse=True)  # once it is the new one, it stays so
    assert {"old", "new"} == set(seen)
    write_both(folder, "next")
    assert [path.name for path in tmp_path.iterdir()] == ["detector"]  # nothing is left of the kills


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append((path.name.split(".")[1] if path.name.startswith(".") else path.name, file.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    file = tmp_path / "new" / "a"
    write_text(file, "text")
    assert done == [(tmp_path.name, False), ("a", False), ("new", True)]
    done.clear()
    file = tmp_path / "folder"
    write_both(file, "text")
    assert sorted(done[:3]) == [("folder", False), ("one", False), ("two", False)]
    assert done[3:] == [(tmp_path.name, True)]


def test_what_killed_writers_left_is_swept_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "figures").mkdir()
    kept = [".hidden", f".a.png.{os.getppid()}.tmp", "a.1.tmp", ".notes.tmp"]
    for name in (*kept, f"figures/.a.png.{gone.pid}.tmp", f".run.json.{os.getpid()}.tmp"):
        (tmp_path / name).touch()
    (tmp_path / f".detector.{gone.pid}-x_1.tmp").mkdir()
    (tmp_path / f".detector.{gone.pid}-x_1.tmp" / "detector.json").touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {*kept, "figures"}
