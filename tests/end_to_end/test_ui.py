"""MLflow's own pages, served for real."""

import json
import signal
import socket
import time
import urllib.request

import pytest

from tests.conftest import Cli, Trained, start
from tests.end_to_end.conftest import free_port

pytestmark = pytest.mark.slow  # MLflow's server


def test_the_ui_shows_the_runs_and_stops_with_ctrl_c(trained: Trained, cli_process: Cli) -> None:
    port, place = free_port(), ("--mlruns", str(trained.home.root))
    process = start(trained.home.root, "ui", "--port", str(port), *place)
    try:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "MLflow is at" in line)
        assert f"http://127.0.0.1:{port}/" in said
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
            assert "MLflow" in page.read().decode()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={trained.run.record.id}"
        ) as answer:
            metrics = {m["key"]: m["value"] for m in json.load(answer)["run"]["data"]["metrics"]}
        assert metrics["test/auroc"] == trained.evaluation.auroc

        taken = cli_process("ui", "--port", str(port), *place)
        assert taken.code == 2
        assert f"port {port} is taken by another program; try: anomaly-ae ui --port" in taken.err
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    ends = time.monotonic() + 60
    while answers(port):  # until the processes below it are gone, too
        assert time.monotonic() < ends, "something still answers there"
        time.sleep(0.1)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
