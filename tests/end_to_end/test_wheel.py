"""The package as it is handed over: what its wheel has, and that it works away from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

from anomaly_ae import __version__
from tests.conftest import clean_environment

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Distributions:
    """What `make build` makes, and the wheel that is built without the source distribution between."""

    sdist: Path
    wheel: Path
    direct_wheel: Path


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that git tracks, which is what a release is made of."""
    if not (CHECKOUT / ".git").exists():
        pytest.skip("this is no checkout, so that nothing says which files there are to be")
    command = ["git", "-C", str(CHECKOUT), "ls-files", "-z"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if (CHECKOUT / name).is_file()]


@pytest.fixture(scope="module")
def distributions(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Built from a copy, for setuptools leaves files beside what it builds."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, source / name)
    for options in (["--outdir", "dist"], ["--outdir", "direct", "--wheel"]):
        build = [sys.executable, "-m", "build", "--no-isolation", *options]
        subprocess.run(build, cwd=source, check=True, capture_output=True)
    (sdist,), (wheel,), (direct,) = (source.glob(each) for each in ("dist/*.tar.gz", "dist/*.whl", "direct/*.whl"))
    return Distributions(sdist, wheel, direct)


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_is_the_package_as_git_has_it(distributions: Distributions, tracked: list[str]) -> None:
    packaged = {name for name in contents(distributions.wheel) if ".dist-info/" not in name}
    assert packaged == {name for name in tracked if name.startswith("anomaly_ae/")}


def test_the_source_distribution_builds_the_same_wheel(distributions: Distributions) -> None:
    assert contents(distributions.wheel) == contents(distributions.direct_wheel)


def test_licence_notice_and_version_go_with_it(distributions: Distributions) -> None:
    in_wheel = contents(distributions.wheel)
    about = f"anomaly_ae-{__version__}"
    metadata = in_wheel[f"{about}.dist-info/METADATA"].decode()
    for line in (f"Version: {__version__}", "License-Expression: Apache-2.0"):
        assert line in metadata.splitlines()
    with tarfile.open(distributions.sdist) as archive:
        in_sdist = archive.getnames()
    for name in ("LICENSE", "NOTICE"):
        assert in_wheel[f"{about}.dist-info/licenses/{name}"] == (CHECKOUT / name).read_bytes()
        assert f"{about}/{name}" in in_sdist
    assert f"{about}/CHANGELOG.md" in in_sdist


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel, which finds all that the package needs where the tests have it."""

    folder: Path

    def run(self, cwd: Path, command: str, *arguments: str) -> str:
        """What a command says on standard output, at home in a folder of its own, with the checkout out of sight."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**clean_environment(), "PYTHONPATH": "", "PATH": path, "HOME": str(cwd)}
        whole = [shutil.which(command, path=path), *arguments]
        return subprocess.run(
            whole, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, timeout=200, check=True
        ).stdout


@pytest.fixture(scope="module")
def installed(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The folders with the packages are added by name, so that their .pth files, by which a checkout is installed
    for editing, are not heeded.
    """
    folder = tmp_path_factory.mktemp("environment").resolve()
    venv.create(folder, with_pip=False, symlinks=True)
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, str(distributions.wheel)], check=True, capture_output=True)
    (own,) = folder.glob("lib/python*/site-packages")
    others = [each for each in sys.path if Path(each).name in ("site-packages", "dist-packages")]
    (own / "what-the-tests-have.pth").write_text("\n".join(others) + "\n")
    return Environment(folder)


@pytest.mark.slow
def test_an_installed_wheel_trains_and_evaluates(installed: Environment, tmp_path: Path) -> None:
    imported = installed.run(tmp_path, "python", "-c", "import anomaly_ae; print(anomaly_ae.__file__)")
    assert Path(imported.strip()).is_relative_to(installed.folder)
    assert installed.run(tmp_path, "anomaly-ae", "--version") == f"{__version__}\n"

    train = ("train", "--normal", "0,1,2", "--epochs", "20", "--no-figures", "--json")
    trained = json.loads(installed.run(tmp_path, "anomaly-ae", *train))
    evaluated = json.loads(installed.run(tmp_path, "anomaly-ae", "evaluate", "--json"))
    assert evaluated["run_id"] == trained["run_id"]
    assert evaluated["auroc"] > 0.9
    assert [*(tmp_path / "mlruns" / "runs" / trained["run_id"] / "figures").glob("*.png")]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_completion_is_installed_for_the_shell(installed: Environment, tmp_path: Path) -> None:
    """bash, for it can be asked without a terminal."""
    installed.run(tmp_path, "bash", "-c", "anomaly-ae --install-completion; true")
    tab = "COMP_WORDS=(anomaly-ae train --dataset fash); COMP_CWORD=3; _anomaly_ae_completion anomaly-ae"
    script = f'source ~/.bashrc; {tab}; echo "${{COMPREPLY[@]}}"'
    assert installed.run(tmp_path, "bash", "-c", script) == "fashion-mnist\n"
