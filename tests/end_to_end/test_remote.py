"""A team's server: a real `mlflow server` that keeps runs in SQLite or PostgreSQL, and artifacts itself."""

import dataclasses
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

import anomaly_ae
from anomaly_ae.errors import ModelNotFound
from anomaly_ae.runs.query import list_home
from anomaly_ae.runs.record import FINISHED
from anomaly_ae.runs.store import RunStore
from anomaly_ae.storage.atomic import sha256
from anomaly_ae.tracking.remote_runs import list_runs
from anomaly_ae.workflows.find_model import find_model
from tests.conftest import Cli, clean_environment
from tests.end_to_end.conftest import free_port

pytestmark = pytest.mark.slow  # MLflow servers, and PostgreSQL

PLAN = "normal: 0,1\nepochs: 2\nmatrix:\n  scorer: [mse, latent-knn]\n"


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port}")


@contextmanager
def running(command: list[str], port: int, user: str | None = None) -> Iterator[None]:
    """A server on the loopback address, from when it answers."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    light = clean_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env=light, user=user, cwd="/", **silent)
    try:
        wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/store.db"


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL of our own, where its programs and a user that may run them are at hand."""
    pytest.importorskip("psycopg2")
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if not found:
        pytest.skip("there is no PostgreSQL")
    user = account() if os.geteuid() == 0 else None  # it does not run as root
    port, programs = free_port(), Path(found).resolve().parent
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/data"
        if user:
            shutil.chown(folder, user)
        initialise = [str(programs / "initdb"), "--auth", "trust", "--username", "mlflow", "--pgdata", data]
        subprocess.run(initialise, user=user, cwd="/", check=True, capture_output=True)
        options = ["-h", "127.0.0.1", "-p", str(port), "-c", "unix_socket_directories="]
        with running([str(programs / "postgres"), "-D", data, *options], port, user):
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"


def account() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root")


@pytest.fixture(params=[sqlite, postgresql], ids=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a server that hands out artifacts itself."""
    port = free_port()
    with request.param() as store:
        options = ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "on the server")]
        command = [sys.executable, "-m", "mlflow", "server", *options, "--host", "127.0.0.1", "--port", str(port)]
        with running([*command, "--workers", "1"], port):
            yield f"http://127.0.0.1:{port}"


def test_runs_are_kept_on_a_server_and_used_from_elsewhere(server: str, cli_process: Cli, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    ran = cli_process("run", "plan.yaml", "--json", env={"MLFLOW_TRACKING_URI": server})
    assert ran.json()["failed"] == {}
    assert "warning" not in ran.err
    client, home = MlflowClient(server), RunStore(tmp_path / "mlruns", server)
    cells = [run for run in home.runs() if run.record.parent]
    assert len(cells) == 2
    assert not home.database.exists()
    for cell in cells:
        logged = client.get_run(cell.record.id)
        assert (logged.info.status, cell.record.unlogged) == (FINISHED, False)
        assert logged.data.tags["mlflow.parentRunId"] == ran.json()["run_id"]
        assert logged.data.metrics["test/auroc"] == cell.read("evaluation/metrics.json")["auroc"]
        assert [metric.step for metric in client.get_metric_history(cell.record.id, "val/loss")] == [1, 2]
        assert logged.info.artifact_uri.startswith("mlflow-artifacts:/")
        folder = Path(client.download_artifacts(cell.record.id, "detector", str(tmp_path)))
        for file in folder.iterdir():
            assert sha256(file.read_bytes()) == sha256((cell.path / "detector" / file.name).read_bytes())

    elsewhere = RunStore(tmp_path / "elsewhere" / "mlruns", server)
    new = anomaly_ae.calibrate(cells[0].record.id, target_fpr=0.2, home=elsewhere)
    assert new.threshold_before == anomaly_ae.load(cells[0].path / "detector").threshold
    child = client.get_run(new.run_id)
    assert (child.info.status, child.data.tags["mlflow.parentRunId"]) == (FINISHED, cells[0].record.id)
    assert child.data.metrics["calibration/threshold"] == new.threshold
    assert {run.record.id for run in elsewhere.runs()} == {cells[0].record.id, new.run_id}
    third = RunStore(tmp_path / "third" / "mlruns", server)
    listed = {row.run_id: row for row in list_runs(third).runs}
    assert set(listed) == {new.run_id, *(run.record.id for run in home.runs())}
    for row in list_home(home):
        there = listed[row.run_id]
        assert dataclasses.replace(row, here=False, started="") == dataclasses.replace(there, started="")
        later = datetime.fromisoformat(there.started) - datetime.fromisoformat(row.started)
        assert abs(later) < timedelta(minutes=1)
    assert [row.run_id for row in list_runs(third, ["scorer=mse", "epochs=2"]).runs] == [cells[1].record.id]
    promoted = anomaly_ae.promote(cells[1].record.id[:8], home=third)
    assert [row.run_id for row in list_runs(third).runs if row.here] == [cells[1].record.id]
    assert promoted.auroc == cells[1].read("evaluation/metrics.json")["auroc"]
    _, found = find_model(elsewhere, promoted.uri)
    assert found
    assert found.record.id == cells[1].record.id
    assert len(anomaly_ae.compare([promoted.uri, cells[0].record.id], home=elsewhere).runs) == 2
    with pytest.raises(ModelNotFound, match="no run '0123456789' with a detector"):
        find_model(elsewhere, "0123456789")
