import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import anomaly_ae
from anomaly_ae import AutoencoderDetector
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import Interrupted
from anomaly_ae.integrations import sklearn as estimators
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.torch_state import left_as_found, threads_for
from anomaly_ae.workflows.train import resume

SETTINGS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")


def settings_after(code: str, **own: str) -> str:
    """Those of a new Python that runs the code, one a line."""
    code += f"\nimport os\nprint(*[os.environ.get(name) for name in {SETTINGS}])"
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | own, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_package_tames_threads_that_wait_when_it_is_imported_before_torch() -> None:
    assert settings_after("import anomaly_ae") == "2000 1 None"


def test_what_a_user_has_set_stays() -> None:
    assert settings_after("import anomaly_ae", GOMP_SPINCOUNT="7") == "7 None None"
    assert settings_after("import anomaly_ae", OMP_WAIT_POLICY="active") == "None None active"


def test_where_torch_came_first_it_is_said_what_to_set() -> None:
    code = "import torch; torch.set_num_threads(2)\nimport anomaly_ae, anomaly_ae.runtime.torch_state as state"
    assert settings_after(f"{code}\nassert 'GOMP_SPINCOUNT=2000' in state.spinning()") == "None None None"
    assert settings_after(f"{code}\nassert state.spinning() is None", GOMP_SPINCOUNT="7") == "7 None None"


def test_the_estimator_warns_whoever_called_it_where_torch_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimators, "spinning", lambda: "import anomaly_ae first")
    with pytest.warns(RuntimeWarning, match="import anomaly_ae first") as caught:
        AutoencoderDetector(epochs=1, device="cpu").fit(np.random.default_rng(0).random((60, 4)))
    assert caught[0].filename == __file__


def test_a_small_batch_gets_one_thread_and_a_large_one_all() -> None:
    with left_as_found():
        torch.set_num_threads(3)
        for pixels, threads in ((128 * 64, 1), (128 * 28 * 28, 3), (10**8, 3)):
            with threads_for(pixels):
                assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize("fit", ["train", "estimator"])
def test_training_leaves_random_numbers_and_threads_as_they_were(home: RunStore, fit: str) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist()
    torch.manual_seed(5)
    np.random.seed(5)
    if fit == "train":
        anomaly_ae.train(RunConfig(normal="0", preset="fast", epochs=1), home=home, tracking=False)
    else:
        AutoencoderDetector(epochs=1, random_state=0).fit(np.random.default_rng(0).random((60, 4)))
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist()) == expected
    assert torch.get_num_threads() == threads


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_resuming_leaves_random_numbers_and_threads_as_they_were(
    home: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with left_as_found():
        torch.set_num_threads(2)
        with monkeypatch.context() as patch:
            patch.setattr("anomaly_ae.detector.fit.make_detector", stop)
            with pytest.raises(Interrupted):
                anomaly_ae.train(RunConfig(normal="0", preset="fast", epochs=1), home=home, tracking=False)
        torch.set_num_threads(1)
        state = torch.get_rng_state()
        resume("latest", home=home)
        assert torch.get_num_threads() == 1
        assert torch.equal(torch.get_rng_state(), state)
