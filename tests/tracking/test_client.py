from concurrent.futures import ThreadPoolExecutor

import pytest

from anomaly_ae.runs import Home
from anomaly_ae.tracking.mirror import Tracker


def test_who_logs_waits_while_another_holds_the_store(home: Home) -> None:
    Tracker.begin(home, "ours", "first")
    with ThreadPoolExecutor() as pool:
        with home.store_lock():
            second = pool.submit(Tracker.begin, home, "ours", "second")
            with pytest.raises(TimeoutError):
                second.result(timeout=2)  # alone it takes some hundredths
        assert second.result(timeout=60).run_id is not None
