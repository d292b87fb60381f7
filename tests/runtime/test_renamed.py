from pathlib import Path

import pytest

import anomaly_ae
from anomaly_ae.cli.app import with_current_flags
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.runs.pipeline_file import read_pipeline_file
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runtime.messages import warn_once
from anomaly_ae.runtime.renamed import SETTINGS, renamed_arguments


@pytest.fixture(autouse=True)
def _nothing_said_before() -> None:
    warn_once.cache_clear()


def test_a_function_is_found_by_the_name_that_it_had_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert anomaly_ae.run_plan is anomaly_ae.run_pipeline
    assert capsys.readouterr().err == ("warning: run_plan is called run_pipeline now; the old name goes on to work\n")
    assert "run_plan" not in dir(anomaly_ae)


def test_a_flag_is_taken_by_the_name_that_it_had_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_current_flags(["evaluate", "--beside", "pca"]) == ["evaluate", "--compare-scorers", "pca"]
    assert with_current_flags(["--beside=--beside"]) == ["--compare-scorers=--beside"]
    assert capsys.readouterr().err.count("--beside is called --compare-scorers now") == 1


def test_an_argument_is_taken_by_the_name_that_it_had_before(capsys: pytest.CaptureFixture[str]) -> None:
    @renamed_arguments(old="new")
    def double(new: int) -> int:
        return 2 * new

    assert (double(1), double(new=2)) == (2, 4)
    assert not capsys.readouterr().err
    assert double(old=3) == 6
    assert "old is called new now" in capsys.readouterr().err


def test_a_key_of_a_pipeline_file_is_read_by_the_name_that_it_had_before(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("normal: '0'\nbeside: [pca]\n")
    (cell,) = read_pipeline_file(tmp_path / "p.yaml").cells
    assert cell.compare_scorers == ("pca",)


@pytest.mark.parametrize(("old", "value"), [("top_share", 0.01), ("fit", "pad")])
def test_a_setting_is_taken_by_the_name_that_it_had_before(
    tmp_path: Path, old: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    new = SETTINGS[old]
    for key in (old, old.replace("_", "-"), f"detection.{old}" if old == "top_share" else f"data.{old}"):
        assert getattr(RunConfig.build({key: value}), new) == value
    assert capsys.readouterr().err == f"warning: {old} is called {new} now; the old name goes on to work\n"
    (tmp_path / "p.yaml").write_text(f"normal: '0'\nmatrix: {{{old}: [{value}]}}\n")
    assert getattr(read_pipeline_file(tmp_path / "p.yaml").cells[0].config, new) == value


def test_the_settings_of_an_older_run_are_read_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path)
    (run.path / "config.json").write_text('{"normal": "0", "fit": "pad", "top_share": 0.01}')
    assert run.config == RunConfig(normal="0", resize_mode="pad", top_fraction=0.01)
    assert not capsys.readouterr().err
