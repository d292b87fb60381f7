import os
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest

from anomaly_ae.runs import Home
from anomaly_ae.tracking.client import tracking_at
from anomaly_ae.tracking.mirror import Tracker


def test_who_logs_waits_while_another_holds_the_store(home: Home) -> None:
    Tracker.begin(home, "ours", "first")
    with ThreadPoolExecutor() as pool:
        with home.store_lock():
            second = pool.submit(Tracker.begin, home, "ours", "second")
            with pytest.raises(TimeoutError):
                second.result(timeout=2)  # alone it takes some hundredths
        assert second.result(timeout=60).run_id is not None


@pytest.mark.parametrize("named", [None, "sqlite:///named.db"])
def test_what_mlflow_was_told_stands_again_afterwards(
    home: Home, named: str | None, monkeypatch: pytest.MonkeyPatch
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
