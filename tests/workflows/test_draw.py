from pathlib import Path

import pytest

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.evaluation import Evaluation
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows.draw import draw_again

SHORT = RunConfig(normal="0", epochs=2, scorer="mse", preset="fast")


@pytest.mark.usefixtures("figures")
def test_figures_can_be_left_out_and_drawn_later(home: RunStore) -> None:
    result = anomaly_ae.train(SHORT, home=home, tracking=False, figures=False)
    run = home.find_run(result.run_id)
    told = list[Evaluation]()
    evaluation = anomaly_ae.evaluate(home=home, figures=False, tell=told.append)
    assert told == [evaluation]
    assert (run.path / "evaluation" / "metrics.json").exists()
    assert not (run.path / "figures").exists()
    drawn = draw_again(home=home)
    assert {"loss_curves", "reconstructions", "score_histogram", "missed"} <= {path.stem for path in map(Path, drawn)}
    again = anomaly_ae.train(SHORT, home=home, tracking=False)
    names = {path.name for path in (home.find_run(again.run_id).path / "figures").iterdir()}
    assert names < {path.name for path in map(Path, drawn)}


def test_what_was_measured_is_told_before_it_is_drawn(home: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    anomaly_ae.train(SHORT, home=home, tracking=False, figures=False)
    done = list[str]()
    monkeypatch.setattr("anomaly_ae.workflows.evaluate.save_figures", lambda *_: done.append("drawn"))
    anomaly_ae.evaluate(home=home, tell=lambda _: done.append("told"))
    assert done == ["told", "drawn"]
