"""MLflow's own pages, on this machine only."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from anomaly_ae.errors import StorageError, UsageError
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import command, setting
from anomaly_ae.tracking.client import mlflow_errors, open_client
from anomaly_ae.tracking.run_logger import mark_dead_runs
from anomaly_ae.tracking.ui_view import runs_page

LOOPBACK = "127.0.0.1"
LOG = "server.log"


def browse(home: RunStore, port: int) -> None:
    """Run MLflow's server for this home on the loopback address until Ctrl-C; of a server that is there already say
    where it shows the runs.

    Raises `UsageError` when the port is taken, or the runs are kept in what is neither a server nor SQLite.
    """
    mark_dead_runs(home)
    if not home.tracking_uri.startswith(("http", "sqlite:")):
        raise UsageError("the runs are kept in a database of a server's; open that server's address in a browser")
    if home.tracking_uri.startswith("http"):
        logger.info(f"the runs are at {home.tracking_uri.rstrip('/')}/{runs_page(home)}")
        return
    if home.has_no_store():
        raise UsageError(
            f"there are no runs in {home.root} yet; train with: {command('train', normal='0,1,2')}, or name another "
            f"place with {setting('mlruns')}"
        )
    if not _is_free(port):
        near = next(other for other in (*range(port + 1, 65_536), *range(5000, port)) if _is_free(other))
        raise UsageError(f"port {port} is taken by another program; try: {command('ui', port=near)}")
    home.root.mkdir(parents=True, exist_ok=True)
    with mlflow_errors(home, "there is nothing to show"):
        open_client(home)  # so that the server finds a database that it can use
    logger.info(f"MLflow's server starts, in some seconds it is at http://{LOOPBACK}:{port}")
    light = os.environ | {"PYTHONWARNINGS": "ignore", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (home.root / LOG).open("wb") as log:
        server = subprocess.Popen(
            _server_command(home, port), env=light, stdout=log, stderr=log, start_new_session=True
        )
    try:
        page = runs_page(home)
        _wait_until_up(server, port, home.root / LOG)
        logger.info(f"MLflow is at http://{LOOPBACK}:{port}/{page} (stop it with Ctrl-C)")
        server.wait()
    except KeyboardInterrupt:
        logger.info("stopping")
    finally:
        _stop(server)


def _server_command(home: RunStore, port: int) -> list[str]:
    """MLflow's own server: loopback only, one worker."""
    options = {
        "--host": LOOPBACK,
        "--port": str(port),
        "--workers": "1",
        "--backend-store-uri": home.tracking_uri,
        "--registry-store-uri": home.tracking_uri,
        "--default-artifact-root": home.artifacts.as_uri(),
        "--uvicorn-opts": "--log-level warning",
    }
    return [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]


def _wait_until_up(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Return when the port answers. Raises `StorageError` when the server has given up."""
    while _is_free(port):
        if server.poll() is not None:
            raise StorageError(f"MLflow's server did not start; its own words are in {log}")
        time.sleep(0.1)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """End the server and what it has started."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) != 0
