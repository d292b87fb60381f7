import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import anomaly_ae
from anomaly_ae.calibration.odd import odd_normals
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.evaluation import Evaluation
from anomaly_ae.reporting.run_figures import draw_odd_normals
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows.draw import draw_again
from tests.conftest import Trained

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


def test_what_is_odd_in_its_group_is_drawn_from_the_images_of_that_group(trained: Trained) -> None:
    """Of the second group, whose scores are all far above those of the first."""
    detector = trained.detector()
    digits = load_dataset("digits").files["train"]
    usual = digits.take(detector.split.calibration.indices)
    other = digits.take(torch.nonzero(digits.labels == 7).flatten()[:30])
    other.images[17] = 255 * (torch.arange(64).reshape(1, 8, 8) % 2)
    scores = [detector.score(part.images) for part in (usual, other)]
    groups = torch.tensor([0] * len(usual) + [1] * len(other))
    calibration = detector.calibration.at(scores=torch.cat(scores), groups=groups)
    odd = odd_normals(calibration)
    assert odd is not None
    drawn = draw_odd_normals(dataclasses.replace(detector, calibration=calibration), [usual, other])
    images, _, _, titles, _, _ = drawn["odd_normals"].arguments
    count = len(odd.scores)
    assert [title.startswith("odd") for title in titles] == [True] * count + [False] * 3
    assert titles[:count] == [f"odd\nscore {score:.4g}" for score in odd.scores]
    assert np.array_equal(images[0], other.images[17].numpy() / np.float32(255))


def test_what_was_measured_is_told_before_it_is_drawn(home: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    anomaly_ae.train(SHORT, home=home, tracking=False, figures=False)
    done = list[str]()
    monkeypatch.setattr("anomaly_ae.workflows.evaluate.save_figures", lambda *_: done.append("drawn"))
    anomaly_ae.evaluate(home=home, tell=lambda _: done.append("told"))
    assert done == ["told", "drawn"]
