"""Where an optional package is missing, the error names the extra that brings it."""

import sys
import tomllib
from pathlib import Path

import pytest

from anomaly_ae.errors import DataMissing, install_extra
from anomaly_ae.images.sources import open_source
from tests.conftest import Cli

COMMANDS = {
    "onnx": ("onnxruntime", "anomaly_ae.integrations.onnx", "export --format onnx --output detector.onnx"),
    "ray": ("ray", "anomaly_ae.integrations.ray", "score . --engine ray"),
}
ADDRESSES = {
    "s3://bucket/pictures": ("s3fs", "s3"),
    "simplecache::s3://bucket/pictures": ("s3fs", "s3"),
    "gs://bucket/pictures": ("gcsfs", "gs"),
    "gcs://bucket/pictures": ("gcsfs", "gs"),
}
POSTGRESQL = "postgresql"


@pytest.mark.parametrize("extra", COMMANDS)
def test_a_command_without_its_packages(cli: Cli, monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    package, module, command = COMMANDS[extra]
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # its import fails then
    ended = cli(*command.split())
    assert ended.code == 2
    assert ended.err.splitlines()[-1].endswith("; " + install_extra(extra))


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_without_its_driver(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    package, extra = ADDRESSES[address]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataMissing) as error:
        open_source(address).list()
    assert str(error.value) == f"{address} needs a driver that is not installed; {install_extra(extra)}"


def test_mlflow_without_the_driver_of_its_database(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    ended = cli("runs", env={"MLFLOW_TRACKING_URI": "postgresql+psycopg2://nobody@127.0.0.1:1/none"})
    assert ended.code == 0  # the runs of this folder are listed all the same
    assert f"needs a driver that is not installed; {install_extra(POSTGRESQL)}\n" in ended.err
    assert "Traceback" not in ended.err


def test_every_extra_is_named_by_an_error() -> None:
    about = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    tested = {*COMMANDS, *(extra for _, extra in ADDRESSES.values()), POSTGRESQL}
    assert tested == {*about["project"]["optional-dependencies"]} - {"dev"}
