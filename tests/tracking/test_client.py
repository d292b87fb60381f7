import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest

from anomaly_ae.runs.record import RunRecord
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking.client import tracking_at
from anomaly_ae.tracking.run_logger import RunLogger


def test_who_logs_waits_while_another_holds_the_store(home: RunStore) -> None:
    RunLogger(home, None).begin("ours", RunRecord.new("first", tracked=True))
    with ThreadPoolExecutor() as pool:
        with home.store_lock():
            run_logger = RunLogger(home, None)
            second = pool.submit(run_logger.begin, "ours", RunRecord.new("second", tracked=True))
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)  # alone it takes some hundredths
        second.result(timeout=60)
        assert run_logger.run_id is not None


INTERRUPTED_AT_ANY_MOMENT = """
import random, signal, sys
from filelock import FileLock
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking.client import store_held

def again(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, again)
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
home, whole, ended = RunStore.find(sys.argv[1]), 0, 0
for _ in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-3), 10)  # again: Python may drop one
        while True:
            with store_held(home), store_held(home):
                whole += 1
                ended = whole
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert ended == whole  # nothing was cut off
    with FileLock(home.root / "mlflow.lock", timeout=0):  # as another process has it
        pass
    assert signal.getsignal(signal.SIGINT) is again
"""


INTERRUPTED_WHILE_IT_WAITS = """
import signal, sys
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking.client import store_held

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("waits", flush=True)
    with store_held(RunStore.find(sys.argv[1])):
        print("holds it")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_ctrl_c_leaves_the_store_free_for_others(home: RunStore) -> None:
    home.root.mkdir()
    subprocess.run([sys.executable, "-c", INTERRUPTED_AT_ANY_MOMENT, str(home.root)], check=True, timeout=100)


def test_a_ctrl_c_is_answered_at_once_by_who_waits_for_the_store(home: RunStore) -> None:
    home.root.mkdir()
    command = [sys.executable, "-c", INTERRUPTED_WHILE_IT_WAITS, str(home.root)]
    with home.store_lock():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted\n"


@pytest.mark.parametrize("named", [None, "sqlite:///named.db"])
def test_what_mlflow_was_told_stands_again_afterwards(
    home: RunStore, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if named:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
    before = mlflow.get_tracking_uri()
    with tracking_at(home):
        assert mlflow.get_tracking_uri() == home.tracking_uri
    assert (mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")) == (before, named)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///later.db")
    assert mlflow.get_tracking_uri() == "sqlite:///later.db"


WITHOUT_A_HOME_FOLDER = """
import os, pwd, sys

def unknown(number):
    raise KeyError(number)

pwd.getpwuid = unknown  # as in a container that is run for a user whom it lacks
del os.environ["HOME"]
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking import registry
from anomaly_ae.tracking.run_logger import RunLogger
from anomaly_ae.runs.record import RunRecord
from anomaly_ae.errors import StorageError

home = RunStore.find(sys.argv[1])
RunLogger(home, None).begin("ours", RunRecord.new("first", tracked=True))
home.database.touch()
try:
    registry.run_of(home, "models:/parts@champion")
except StorageError as error:
    print(error)
"""


def test_without_a_home_folder_it_is_said_what_to_set(home: RunStore) -> None:
    home.root.mkdir()
    called = [sys.executable, "-c", WITHOUT_A_HOME_FOLDER, str(home.root)]
    done = subprocess.run(called, env=os.environ | {"HOME": "/"}, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("warning: going on without MLflow: MLflow needs a home folder")
    assert done.stdout == "MLflow needs a home folder, and the user has none; set HOME to a folder\n"
