import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.errors import DataDamaged, DataMissing, UsageError
from anomaly_ae.scoring.rows import RESULT, make_table
from anomaly_ae.scoring.scored_rows import ScoredRows
from anomaly_ae.scoring.writers import writer_for

PATHS = [
    b"plain.png",
    b"=1+1.png",
    b"'quoted.png",
    b'a, "b"\n.png',
    "ä/ö.png".encode(),
    b"no \xff.png",
    b"bad.png",
    b"",
]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.pq", "rows.csv", "rows.jsonl"])
def test_rows_are_read_as_they_were_written(tmp_path: Path, name: str) -> None:
    results = np.zeros(len(PATHS), RESULT)
    results["score"], results["error"], results["regions"] = np.linspace(0.1, 1e-7, len(PATHS)), None, "[]"
    results["regions"][1], results["regions"][6] = '[{"box": [0.5, 0.25, 0.125, 0.1], "p": 1e-3}]', None
    results["score"][6], results["error"][6] = np.nan, 'cannot be read, "at all"\n\''
    calibration = Calibration(torch.linspace(0, 1, 30), 0.1)
    writer = writer_for(tmp_path / name)(tmp_path / name)
    for half in (slice(0, 3), slice(3, None)):
        writer.write(make_table(PATHS[half], results[half], calibration))
    writer.close()
    rows = ScoredRows.read(tmp_path / name)
    assert rows.paths == PATHS
    assert np.array_equal(rows.scores, results["score"], equal_nan=True)
    assert rows.errors == {6: results["error"][6]}
    assert rows.threshold == calibration.threshold
    assert rows.regions == results["regions"].tolist()


def test_rows_of_nothing_but_errors_have_no_threshold(tmp_path: Path) -> None:
    row = dict.fromkeys(("path", "score", "p_value", "threshold", "is_anomaly", "error", "path_bytes"))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"path": "a.png", "error": "empty"}) + "\n")
    rows = ScoredRows.read(tmp_path / "rows.jsonl")
    assert (rows.threshold, rows.errors, rows.regions) == (None, {0: "empty"}, [None])
    assert np.isnan(rows.scores).tolist() == [True]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_other_files_are_refused_in_a_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    with pytest.raises(DataMissing, match="score a folder first"):
        ScoredRows.read(path)
    path.write_bytes(b"\x00\xff{")
    with pytest.raises((DataDamaged, UsageError)) as raised:
        ScoredRows.read(path)
    assert str(path) in str(raised.value)
    with pytest.raises(UsageError, match="ends in"):
        ScoredRows.read(tmp_path / "rows.txt")
    table = pd.DataFrame({"path": ["a"], "number": [1]})
    {"parquet": table.to_parquet, "csv": table.to_csv}.get(
        ending, lambda path: table.to_json(path, orient="records", lines=True)
    )(path)
    with pytest.raises(UsageError, match="holds no scores"):
        ScoredRows.read(path)
