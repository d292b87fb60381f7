"""A promoted model behind MLflow's own server, asked over HTTP."""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from anomaly_ae.detector.regions import regions_text
from anomaly_ae.runs.run_results import Promoted
from tests.conftest import Trained, clean_environment
from tests.end_to_end.conftest import free_port

pytestmark = pytest.mark.slow  # a model server


@pytest.fixture(scope="module")
def server(trained: Trained, promoted: Promoted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, bin_folder = free_port(), str(Path(sys.executable).parent)
    environment = clean_environment() | {
        "MLFLOW_TRACKING_URI": trained.home.tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
    }
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", promoted.uri, "--env-manager", "local"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        for _ in range(600):
            if process.poll() is not None:
                pytest.fail(log.read_text())
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping").close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail(f"it never answered: {log.read_text()}")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def ask(server: str, cells: list[Any], **params: float) -> tuple[int, Any]:
    body = {"dataframe_split": {"columns": ["content"], "data": [[cell] for cell in cells]}}
    body |= {"params": params} if params else {}
    request = urllib.request.Request(server, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def picture(trained: Trained) -> Path:
    return trained.run.path / "example.png"


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_a_picture_gets_the_row_of_the_detector_and_a_bad_one_a_row_with_an_error(
    trained: Trained, server: str, picture: Path
) -> None:
    status, answer = ask(server, [encoded(picture.read_bytes()), encoded(b"no picture")])
    good, bad = answer["predictions"]
    detector = trained.detector()
    score = float(detector.score(Image.open(picture)))
    assert status == 200
    assert good == {
        "score": pytest.approx(score, rel=1e-5),
        "p_value": pytest.approx(float(detector.p_values([score])[0])),
        "threshold": pytest.approx(detector.threshold),
        "is_anomaly": score > detector.threshold,
        "error": None,
        "regions": regions_text(detector.regions(Image.open(picture))[0]),
    }
    assert "cannot be read as an image" in bad["error"]
    assert bad["score"] is None


def test_another_rate_may_be_asked_for_and_one_that_cannot_be_held_is_refused(
    trained: Trained, server: str, picture: Path
) -> None:
    cell = encoded(picture.read_bytes())
    _, answer = ask(server, [cell], target_fpr=0.2)
    assert answer["predictions"][0]["threshold"] == pytest.approx(
        trained.detector().calibration.at(target_fpr=0.2).threshold
    )
    status, answer = ask(server, [cell], target_fpr=1e-6)
    assert status == 400
    assert "1e-06" in answer["message"]
    assert "stack_trace" not in answer


@pytest.mark.parametrize("cell", ["%%%", ""])
def test_what_is_no_base64_is_a_400(server: str, cell: str) -> None:
    status, answer = ask(server, [cell])
    assert (status, "base64" in answer["message"]) == (400, True)


def test_a_wrong_type_or_column_is_a_400_that_names_what_is_wanted(server: str) -> None:
    status, answer = ask(server, [7])
    assert (status, "content" in answer["message"]) == (400, True)
    body = b'{"dataframe_split": {"columns": ["picture"], "data": [["AAAA"]]}}'
    request = urllib.request.Request(server, body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400
    assert "'content': binary" in json.load(caught.value)["message"]
