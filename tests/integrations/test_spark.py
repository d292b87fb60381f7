"""Spark scores as the detector does. Skipped where there is no Spark."""

import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from anomaly_ae.datasets.builtin import load_dataset
from tests.conftest import Trained

pytestmark = pytest.mark.slow  # Spark

sql = pytest.importorskip("pyspark.sql")


def test_files_get_the_scores_of_the_command(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.home.tracking_uri)
    for i, image in enumerate(next(iter(load_dataset("digits").files.values())).images[:20]):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{i:02}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    wanted = {Path(row["path"]).name: row["score"] for row in trained.detector().score_folder(tmp_path)}
    spark = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        row = "score float, p_value double, threshold float, error string"
        uri = f"runs:/{trained.run.record.id}/model"
        detect = mlflow.pyfunc.spark_udf(spark, uri, result_type=row, env_manager="local")
        files = spark.read.format("binaryFile").load(str(tmp_path))
        rows = files.select("path", detect("content").alias("row")).select("path", "row.*").collect()
    finally:
        spark.stop()
    found = {Path(row["path"]).name: row["score"] for row in rows}
    assert (found.pop("bad.png"), wanted.pop("bad.png")) == (None, None)
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose([found[name] for name in wanted], [*wanted.values()], rtol=1e-5)
