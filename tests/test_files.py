import resource
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_ae.errors import StorageError
from anomaly_ae.files import sha256, write_csv, write_folder, write_json, write_with


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
        "from pathlib import Path\nfrom anomaly_ae.files import write_bytes\n"
        "from anomaly_ae.errors import StorageError\n"
        f"try: write_bytes(Path({str(tmp_path / 'big')!r}), bytes(100_000))\n"
        "except StorageError as error: print(error)"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))  # noqa: E731
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
