"""What MLflow's page shows of a description, by a renderer of Markdown that lets HTML through."""

import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.runs.record import CALIBRATION, RunRecord, now
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.storage.atomic import write_json
from anomaly_ae.tracking.descriptions import describe, describe_pipeline

ODD = "<b>fat</b>|`a`"
SHOWN = "&lt;b&gt;fat&lt;/b&gt;|`a`"


def rendered(note: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(note))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_names_in_the_description_of_a_run_are_shown_as_they_are(run: RunFolder) -> None:
    run.write_start(RunConfig(normal=ODD, dataset=f"/data/{ODD}"), {})
    run.write_record(RunRecord("run", None, "odd", now(), kind=CALIBRATION))
    result: dict[str, Any] = {
        "images": 5,
        "calibrated_on": f"/new/{ODD}",
        "guarantee": "marginal",
        "target_fpr": 0.05,
    }
    write_json(run.path / "result.json", result | {"threshold": 1.0, "threshold_before": 2.0})
    page = rendered(describe(run))
    assert f"Normal: <strong>{SHOWN}</strong> of <strong>{SHOWN.partition('/')[2]}</strong>" in page
    assert f"<code>/new/{SHOWN}</code>" in page
    assert "<b>" not in page


def test_the_tables_of_a_pipeline_stand_apart_and_so_do_their_columns(run: RunFolder) -> None:
    cells = [
        {"cell": name, "normal": name, "autoencoder": "conv", "objective": "mse", "scorer": "mse", "seed": 1}
        | {"auroc": None, "test_mse": 0.5, "seconds": 2.0}
        for name in (ODD, "2")
    ]
    scorers = [dict.fromkeys(("system", "scorer"), ODD) | dict.fromkeys(("auroc", "low", "high"), 0.5)]
    scorers[0] |= dict.fromkeys(("seeds", "better", "worse", "cells"), 1)
    about = {"name": "odd", "about": "Is <this> right?", "command": f"anomaly-ae run '{ODD}.yaml'"}
    write_json(run.path / "pipeline.json", about | {"experiment": "ours", "digest": "", "cells": {}})
    write_json(run.path / "result.json", {"cells": cells, "scorers": scorers})
    page = rendered(describe_pipeline(run))
    assert page.count("<table>") == 2
    assert re.search("<strong>Cells</strong></p>\\s*<table>", page)
    assert re.search("<strong>Scorers</strong></p>\\s*<table>", page)
    assert page.count(f"{SHOWN}\u2003</td>") == 3
    for row in re.findall("<tr>(.*?)</tr>", page, re.DOTALL):
        assert all(cell.endswith("\u2003") for cell in re.findall(">([^<]*)</t[hd]>", row)[:-1])
    assert "Is &lt;this&gt; right?" in page
    assert "<b>" not in page
