import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import predictions_to_json
from PIL import Image

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.regions import read_regions
from tests.conftest import Trained, clean_environment

COLUMNS = ["score", "p_value", "threshold", "is_anomaly", "error", "regions"]
NOTHING = {"score": None, "p_value": None, "threshold": None, "is_anomaly": None, "regions": None}


@pytest.fixture(scope="module")
def uri(trained: Trained) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", trained.home.tracking_uri)
        yield f"runs:/{trained.run.record.id}/model"


@pytest.fixture(scope="module")
def model(uri: str) -> Iterator[Any]:
    model = mlflow.pyfunc.load_model(uri)
    yield model
    model.unwrap_python_model().decoders.close()


def png(image: torch.Tensor) -> bytes:
    """The file of an image, uint8 (1, H, W)."""
    file = io.BytesIO()
    Image.fromarray(image[0].numpy()).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return next(iter(load_dataset("digits").files.values())).images[:300]  # more than one batch of the network


def frame(*cells: Any) -> pd.DataFrame:
    return pd.DataFrame({"content": pd.Series(cells, dtype=object)})


def test_files_get_the_scores_and_verdicts_of_the_detector(
    trained: Trained, model: Any, digits: torch.Tensor
) -> None:
    detector = trained.detector()
    rows = model.predict(frame(*map(png, digits)))
    scores = detector.score(digits)
    assert list(rows) == COLUMNS
    np.testing.assert_allclose(rows["score"].astype(float), scores, rtol=1e-5)
    np.testing.assert_allclose(rows["p_value"].astype(float), detector.p_values(scores))
    assert rows["is_anomaly"].tolist() == (scores > detector.threshold).tolist()
    assert 0 < rows["is_anomaly"].sum() < len(rows)
    assert set(rows["threshold"]) == {detector.threshold}
    assert set(rows["error"]) == {None}
    boxes = [[region.box for region in read_regions(text)] for text in rows["regions"]]
    assert boxes == [[region.box for region in regions] for regions in detector.regions(digits)]
    assert any(boxes)


def test_rows_keep_the_index_of_those_that_were_given(model: Any, digits: torch.Tensor) -> None:
    files = frame(*map(png, digits[:4])).set_index(pd.Index(["a", "b", "c", "d"])).sort_index(ascending=False)
    files["score"] = model.predict(files)["score"]
    expected = model.predict(frame(*map(png, digits[:4])))["score"]
    assert files.sort_index()["score"].tolist() == expected.tolist()


def test_one_file_costs_about_one_image(model: Any, digits: torch.Tensor) -> None:
    seen, network = list[int](), model.unwrap_python_model().detector.network
    hook = network.encoder[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    model.predict(frame(png(digits[0])))
    model.predict(frame(*map(png, digits[:3])))
    hook.remove()
    assert seen == [1, 4]


def test_a_bad_file_is_a_row_with_an_error_and_costs_no_other(model: Any, digits: torch.Tensor) -> None:
    good = png(digits[0])
    alone = model.predict(frame(good)).to_dict("records")[0]
    *bad, last = model.predict(frame(b"no picture", good[:60], b"", None, good)).to_dict("records")
    assert [{key: row[key] for key in NOTHING} for row in bad] == [NOTHING] * 4
    assert all("cannot be read as an image" in row["error"] for row in bad)
    assert last == pytest.approx(alone)


def test_rows_become_strict_json(model: Any, digits: torch.Tensor) -> None:
    text = io.StringIO()
    predictions_to_json(model.predict(frame(b"", png(digits[0]))), text)
    bad, good = json.loads(text.getvalue(), parse_constant=pytest.fail)["predictions"]
    assert (bad["score"], good["error"]) == (None, None)
    assert isinstance(good["score"], float)


def test_nothing_in_nothing_out(model: Any) -> None:
    assert list(model.predict(frame())) == COLUMNS


@pytest.mark.parametrize("cell", ["digits/0.png", 7, [b"x"]])
def test_what_is_no_bytes_is_refused_with_what_is_wanted(model: Any, cell: object) -> None:
    with pytest.raises(MlflowException) as caught:
        model.predict(frame(b"", cell))
    assert type(cell).__name__ in str(caught.value) or "binary" in str(caught.value)


def test_paths_are_refused_with_how_to_read_them(model: Any) -> None:
    with pytest.raises(MlflowException, match=r"as bytes, and one is of type str; read the files"):
        model.predict(frame("digits/0.png"))


@pytest.fixture
def served(model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model as MLflow's server has it."""
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    return model


def test_a_server_refuses_what_is_empty_as_text_that_is_no_base64_becomes(served: Any, digits: torch.Tensor) -> None:
    with pytest.raises(MlflowException, match="one is empty or no base64"):
        served.predict(frame(png(digits[0]), base64.decodebytes(b"%%%")))


def test_a_server_refuses_pictures_that_would_keep_it_from_others(served: Any, digits: torch.Tensor) -> None:
    bomb = png(torch.zeros(1, 4_096, 4_096, dtype=torch.uint8))
    assert len(bomb) < 100_000
    with pytest.raises(
        MlflowException, match=r"268,435,456 pixels in all, and these have 1,073,741,824; ask for fewer"
    ):
        served.predict(frame(*[bomb] * 64))
    assert served.predict(frame(png(digits[0]), bomb))["error"].tolist() == [None, None]


def test_another_rate_can_be_asked_for(trained: Trained, model: Any, digits: torch.Tensor) -> None:
    rows = model.predict(frame(png(digits[0])), params={"target_fpr": 0.2})
    assert rows["threshold"][0] == trained.detector().calibration.at(target_fpr=0.2).threshold
    with pytest.raises(MlflowException, match=r"0\.0001"):
        model.predict(frame(png(digits[0])), params={"target_fpr": 0.0001})


def test_the_signature_says_what_comes_out(model: Any) -> None:
    assert model.metadata.signature.inputs.input_names() == ["content"]
    assert model.metadata.signature.outputs.input_names() == COLUMNS


def test_the_model_holds_the_detector_and_no_pickle(trained: Trained, uri: str, tmp_path: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path)))
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"pyfunc.py", "detector.json", "weights.safetensors"} <= names
    assert not [name for name in names if name.endswith(".pkl")]
    weights = folder / "artifacts" / "detector" / "weights.safetensors"
    assert weights.read_bytes() == (trained.run.path / "detector" / "weights.safetensors").read_bytes()


@pytest.mark.slow  # MLflow in another process
def test_it_loads_in_another_process_elsewhere(trained: Trained, uri: str, tmp_path: Path) -> None:
    code = (
        f"import mlflow, pandas as pd; mlflow.set_tracking_uri({trained.home.tracking_uri!r})\n"
        f"print(mlflow.pyfunc.load_model({uri!r}).predict(pd.DataFrame({{'content': [b'']}})).error[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("cannot be read as an image (is empty)")
    assert not [*tmp_path.iterdir()]
