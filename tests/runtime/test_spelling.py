from pathlib import Path

import pytest

from anomaly_ae.cli.app import as_flag, as_flag_of_run, parse_setting
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import command, from_here, setting, spelt


@pytest.mark.parametrize(
    ("name", "value", "in_python", "on_the_command_line"),
    [
        ("target_fpr", None, "target_fpr", "--target-fpr"),
        ("target_fpr", 0.05, "target_fpr=0.05", "--target-fpr 0.05"),
        ("normal", "0,1,2", 'normal="0,1,2"', "--normal 0,1,2"),
        ("normal", "not good", 'normal="not good"', "--normal 'not good'"),
        ("tracking", False, "tracking=False", "--no-tracking"),
        ("again", True, "again=True", "--again"),
        ("defects", None, "defects", "--set defects"),
        ("noise", 0.1, "noise=0.1", "--set noise=0.1"),
        ("overrides", "epochs=1", 'overrides="epochs=1"', "--set epochs=1"),
    ],
)
def test_a_setting_is_spelt_as_whoever_reads_it_writes_it(
    name: str, value: object, in_python: str, on_the_command_line: str
) -> None:
    assert setting(name, value) == in_python
    with spelt(as_flag):
        assert setting(name, value) == on_the_command_line
    assert setting(name, value) == in_python


@pytest.mark.parametrize(
    ("name", "value", "of_run"),
    [
        ("dataset", "digits", "--set dataset=digits"),
        ("target_fpr", None, "--set target_fpr"),
        ("from_run", "latest", "--set from_run=latest"),
        ("data_dir", None, "--data-dir"),
        ("tracking", False, "--no-tracking"),
        ("overrides", "epochs=1", "--set epochs=1"),
    ],
)
def test_settings_of_a_pipeline_file_have_no_flag(name: str, value: object, of_run: str) -> None:
    with spelt(as_flag_of_run):
        assert setting(name, value) == of_run


def test_a_command_is_one_for_a_shell() -> None:
    assert command("train", normal="0,1,2", set=["noise=0.1", "steps=9"], jobs=None) == (
        "anomaly-ae train --normal 0,1,2 --set noise=0.1 --set steps=9"
    )
    assert command("run", "my plan.yaml", tracking=False) == "anomaly-ae run 'my plan.yaml' --no-tracking"


def test_a_setting_without_equals_is_refused() -> None:
    assert parse_setting("latent=3") == ("latent", "3")
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_setting("latent")


def test_a_path_below_the_working_folder_is_written_from_there_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    inside, beside = Path.cwd() / "mlruns" / "runs", str(Path.cwd().with_name("here too"))
    assert from_here(inside) == "mlruns/runs"
    assert from_here(beside) == beside
    (tmp_path / "here").rmdir()
    assert from_here(inside) == str(inside)
