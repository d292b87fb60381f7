import dataclasses
import json

import pytest

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UnknownName
from anomaly_ae.runs.query import list_home, select
from anomaly_ae.runs.record import RunRecord, now
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.run_results import Listed
from anomaly_ae.runs.store import RunStore
from tests.conftest import Cli, Trained


def names_of(rows: list[Listed]) -> list[str]:
    return [row.name for row in rows]


def test_a_row_has_record_settings_and_figures(trained: Trained) -> None:
    row = next(row for row in list_home(trained.home) if row.run_id == trained.run.record.id)
    assert (row.status, row.auroc) == ("FINISHED", trained.evaluation.auroc)
    assert row.seconds == trained.result.train_seconds
    assert row.settings["normal"] == "0,1,2"


def test_runs_are_filtered_and_sorted_with_what_has_no_figure_last(home: RunStore) -> None:
    for scorer in ("pixel-knn", "mse"):
        anomaly_ae.train(RunConfig(normal="0,1,2", epochs=1, scorer=scorer), home=home, tracking=False)
        anomaly_ae.evaluate(home=home)
    anomaly_ae.train(RunConfig(normal="5", epochs=1, seed=4), home=home, tracking=False)
    names = ["digits 5 · conv · aligned-knn", "digits 0,1,2 · conv · mse", "digits 0,1,2 · conv · pixel-knn"]
    newest, mse, knn = names
    runs = list_home(home)
    assert names_of(select(reversed(runs))) == names
    assert names_of(select(runs, sort="auroc")) == [knn, mse, newest]
    assert names_of(select(runs, sort="name")) == [mse, knn, newest]
    assert names_of(select(runs, ["scorer=mse"])) == [mse]
    assert names_of(select(runs, ["digits 0", "seed=0"], "auroc")) == [knn, mse]
    assert select(runs, ["status=KILLED"]) == []
    assert len(select(runs, ["target_fpr=0.050"])) == 3  # numbers are compared as numbers
    (found,) = select(runs, ["knn", "seed=4"])
    assert select(runs, [found.run_id[:6]]) == [found]


def test_a_run_of_another_version_is_left_out(home: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    run = home.find_run(anomaly_ae.train(RunConfig(normal="1", epochs=1), home=home, tracking=False).run_id)
    config = json.loads((run.path / "config.json").read_text()) | {"warp": 9}
    (run.path / "config.json").write_text(json.dumps(config))
    assert list_home(home) == []
    assert "of another version (unknown setting 'warp'" in capsys.readouterr().err


def test_a_list_is_as_long_as_was_asked_and_says_what_it_leaves_out(cli: Cli, home: RunStore) -> None:
    for name in "abc":
        RunFolder(home.root / "runs" / (name * 4)).write_record(RunRecord(name * 4, None, name, now(), "FINISHED"))
    listed = cli("runs", "--limit", "2")
    assert [word in listed.out for word in ("cccc", "bbbb", "aaaa", "1 more")] == [True, True, False, True]
    assert cli("runs", "--limit", "3", "--json").json()["more"] == 0
    assert cli("runs", "--limit", "0").code == 2


def test_an_unknown_column_or_order_is_said(trained: Trained) -> None:
    with pytest.raises(UnknownName, match="did you mean 'scorer'"):
        select(list_home(trained.home), ["scoer=mse"])
    with pytest.raises(UnknownName, match="unknown order 'size'"):
        select([], sort="size")


def test_a_folder_is_filtered_by_its_whole_name_and_by_the_one_that_is_shown(trained: Trained) -> None:
    row = next(row for row in list_home(trained.home) if row.run_id == trained.run.record.id)
    one, other = (
        dataclasses.replace(row, name=name, settings=row.settings | {"dataset": f"/data/{name}"})
        for name in ("f1", "f12")
    )
    for asked in ("f1", "/data/f1"):
        assert select([one, other, row], [f"dataset={asked}"]) == [one]
    assert select([one, other, row], ["dataset=data"]) == []
