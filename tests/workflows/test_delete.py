from collections.abc import Sequence

import pytest
from mlflow import MlflowClient

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import RunBusy, UsageError
from anomaly_ae.runs.lifecycle import start_run
from anomaly_ae.runs.record import FINISHED, RunRecord
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking.run_logger import RunLogger
from anomaly_ae.workflows.delete import delete, find_deletable
from tests.conftest import Cli


def finished(home: RunStore, name: str, parent: RunFolder | None = None, *, tracked: bool = False) -> RunFolder:
    """A run that does nothing and is finished."""
    files = {"config.json": RunConfig(normal="0").to_dict(), "split.json": {"digest": "", "parts": {}}}
    record = RunRecord.new(name, tracked, parent.record.id if parent else None)
    with start_run(home, "ours", record, files, RunLogger(home, None)) as run:
        run.update(status=FINISHED)
    return run


def ids(runs: Sequence[RunFolder]) -> set[str]:
    return {run.path.name for run in runs}


def test_a_run_goes_with_what_is_below_it_when_its_user_agrees(cli: Cli, home: RunStore) -> None:
    above = finished(home, "a pipeline")
    cell, other = finished(home, "a cell", above), finished(home, "another")
    calibration = finished(home, "its calibration", cell)
    for answer in ("", "n\n", "\n"):
        kept = cli("runs", "--delete", above.path.name, input=answer)
        assert kept.code == 1
        assert "nothing was deleted" in kept.err
    assert len(home.runs()) == 4
    asked = cli("runs", "--delete", above.path.name[:8], "--json", input="y\n")
    assert set(asked.json()["deleted"]) == ids([above, cell, calibration])
    assert all(name in asked.err for name in ("a pipeline", "a cell", "its calibration", "delete 3"))
    assert home.runs() == [other]
    assert [path.name for path in (home.root / "runs").iterdir()] == [other.path.name]
    assert cli("runs", "--delete", above.path.name, input="y\n").code == 1


def test_a_run_that_is_worked_on_stays_and_so_do_cells_of_a_pipeline_under_way(home: RunStore) -> None:
    above = finished(home, "a pipeline")
    cell = finished(home, "a cell", above)
    with cell.lock(), pytest.raises(RunBusy):
        delete(home, find_deletable(home, above.path.name))
    with above.lock(), pytest.raises(RunBusy, match="under way"):
        delete(home, find_deletable(home, cell.path.name))
    assert len(home.runs()) == 2
    delete(home, find_deletable(home, cell.path.name))
    assert home.runs() == [above]


def test_it_is_gone_from_mlflow_too_unless_it_is_registered(home: RunStore) -> None:
    run, registered = (finished(home, name, tracked=True) for name in ("one", "registered"))
    client = MlflowClient(home.tracking_uri)
    client.create_registered_model("parts")
    client.create_model_version("parts", "somewhere", registered.path.name)
    with pytest.raises(UsageError, match="version 1 of parts"):
        delete(home, find_deletable(home, registered.path.name))
    delete(home, find_deletable(home, run.path.name))
    assert home.runs() == [registered]
    assert client.get_run(run.path.name).info.lifecycle_stage == "deleted"
    assert client.get_run(registered.path.name).info.lifecycle_stage == "active"
    client.delete_run(finished(home, "deleted there", tracked=True).path.name)
    (there,) = (each for each in home.runs() if each != registered)
    delete(home, find_deletable(home, there.path.name))
    assert home.runs() == [registered]
