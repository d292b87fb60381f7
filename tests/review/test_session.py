import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

import anomaly_ae
from anomaly_ae.errors import DataChanged, DataMissing, UnknownName, UsageError
from anomaly_ae.review.review_results import Axis, Query, Shown, SortedBy
from anomaly_ae.review.session import Session
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows.marked import MarkedImages
from tests.conftest import Trained


def indices(session: Session, **query: object) -> list[int]:
    asked = Query(**{"threshold": session.threshold} | query)
    return [item.index for item in session.window(asked, 0, 500).items]


def test_counts_and_rates_at_any_threshold_are_those_of_the_rows(session: Session, scored: Path) -> None:
    table, calibration = pd.read_parquet(scored), session.detector.calibration.scores.numpy()
    good = table.score.dropna().to_numpy()
    assert session.at(session.threshold).anomalous == table.is_anomaly.sum()
    for threshold in (*np.quantile(good, [0, 0.3, 0.7, 1]), float(good[0])):
        at = session.at(float(threshold))
        assert (at.anomalous, at.normal) == ((good > threshold).sum(), (good <= threshold).sum())
        above = (calibration > threshold).sum()
        assert at.held.rate == (1 + above) / (len(calibration) + 1)
        n = len(calibration)
        upper = binomtest(int(above), n).proportion_ci(0.9).high if above < n else 1.0  # 0.9 of two sides
        assert at.held.at_most == pytest.approx(upper)
    with pytest.raises(UsageError, match="finite"):
        session.at(float("nan"))


def test_what_is_shown_and_in_which_order(session: Session) -> None:
    scores, threshold = session.rows.scores, session.threshold
    nearest, highest, by_path, mixed = (indices(session, sort=sort) for sort in SortedBy)
    assert sorted(nearest) == sorted(highest) == sorted(by_path) == sorted(mixed) == list(range(61))
    assert mixed == indices(session, sort="random") != by_path
    distances = np.abs(session.axis.along(scores[nearest[:60]]) - session.axis.along(threshold))
    assert (np.diff(distances) >= 0).all()
    assert (np.diff(scores[highest[:60]]) <= 0).all()
    assert np.isnan(scores[nearest[60]])  # what has no score comes last
    assert by_path == sorted(range(61), key=session.rows.paths.__getitem__)
    anomalous, normal, errors = (indices(session, filter=name) for name in ("anomalous", "normal", "errors"))
    assert (scores[anomalous] > threshold).all()
    assert len(anomalous) + len(normal) == 60
    assert [session.item(i).path for i in errors] == ["left/empty.png"]
    assert session.item(errors[0]).error
    left = indices(session, folder="left")
    assert len(left) == session.about().folders["left"] == 31
    assert indices(session, folder="lef") == []
    with pytest.raises(UnknownName, match="did you mean 'anomalous'"):
        Query(filter="anomalou")


def test_marks_are_kept_counted_and_found_by_others(session: Session, trained: Trained, scored: Path) -> None:
    other = Session.open(scored, None, trained.home)
    anomalous, normal = (indices(session, filter=name) for name in ("anomalous", "normal"))
    for i in (*anomalous[:3], normal[0]):
        assert session.mark(i, "bad").mark == "bad"
    session.mark(anomalous[3], "good")
    session.mark(normal[1], "good")
    session.mark(normal[2], "undecided")
    at = session.at(session.threshold)
    assert (at.detected.above, at.detected.marked) == (3, 4)
    ours = binomtest(3, 4).proportion_ci()
    assert at.detected.interval == pytest.approx((ours.low, ours.high))
    assert (at.false_alarms.above, at.false_alarms.marked) == (1, 2)
    assert at.marks == {"bad": 4, "good": 2, "undecided": 1, "lost": 0, "contradicting": 0, "changed": 0}
    before = other.version
    other.refresh()
    assert other.version > before
    assert other.at(session.threshold).marks == at.marks
    assert sorted(indices(other, filter="bad")) == sorted((*anomalous[:3], normal[0]))
    assert len(indices(other, filter="unmarked")) == 61 - 7
    session.mark(normal[0], "none")
    assert session.at(session.threshold).marks["bad"] == 3
    lines = Path(f"{scored}.marks.jsonl").read_text().splitlines()
    assert len(lines) == 8  # what was taken back is still to be read
    assert json.loads(lines[-1]) | {"sha256": "", "time": "", "name": "", "path": ""} == {
        "path": "",
        "path_bytes": None,
        "mark": "none",
        "sha256": "",
        "time": "",
        "name": "",
        "source": session.source.identity,
        "place": session.source.name,
    }


def test_a_file_that_has_changed_loses_its_mark_visibly_and_gets_it_back(session: Session) -> None:
    (one,) = indices(session, filter="anomalous")[:1]
    file = Path(os.fsdecode(session.source.locate(session.rows.paths[one])))
    session.mark(one, "bad")
    assert not session.item(one).lost
    content, about = file.read_bytes(), file.stat()
    file.write_bytes(content + b" ")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))  # as whoever copies or unpacks files sets it
    assert session.item(one).lost
    assert session.at(session.threshold).marks == {"lost": 1, "contradicting": 0, "changed": 0}
    assert indices(session, filter="lost") == [one]
    assert one in indices(session, filter="unmarked")
    file.write_bytes(content)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert session.at(session.threshold).marks == {"bad": 1, "lost": 0, "contradicting": 0, "changed": 0}
    file.unlink()
    assert session.item(one).lost
    with pytest.raises(DataMissing, match="cannot be opened"):
        session.mark(one, "good")


def test_what_has_changed_since_it_was_shown_is_not_marked(session: Session) -> None:
    (one,) = indices(session, filter="anomalous")[:1]
    file = Path(os.fsdecode(session.source.locate(session.rows.paths[one])))
    seen, content, about = session.item(one), file.read_bytes(), file.stat()
    assert seen.state
    file.write_bytes(content[::-1])
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))  # of the same size and time, as if it were the same
    with pytest.raises(DataChanged, match="has changed since it was shown, and is not marked; look again"):
        session.mark(one, "bad", seen.state)
    assert not session.marks.path.exists()
    assert session.mark(one, "bad", session.item(one).state).mark == "bad"
    file.unlink()
    file.write_bytes(content)
    assert session.mark(one, "none", seen.state).mark == "none"  # what is taken back need not be seen


def test_copies_marked_good_and_bad_are_found_and_count_for_nothing(session: Session) -> None:
    some = indices(session, filter="anomalous")[:4]
    one, other, *rest = (Path(os.fsdecode(session.source.locate(session.rows.paths[i]))) for i in some)
    other.write_bytes(one.read_bytes())
    rest[0].write_bytes(rest[1].read_bytes())
    for file in (other, rest[0]):
        os.utime(file, (session.written - 10, session.written - 10))
    for i, mark in zip(some, ("bad", "good", "bad", "bad"), strict=True):
        session.mark(i, mark)
    at = session.at(session.threshold)
    assert (at.detected.marked, at.false_alarms.marked) == (2, 0)
    assert at.marks == {"bad": 3, "good": 1, "lost": 0, "contradicting": 2, "changed": 0}
    assert sorted(indices(session, filter="contradicting")) == sorted(some[:2])
    session.mark(some[1], "bad")
    assert session.at(session.threshold).detected.marked == 4


def test_the_score_of_a_file_that_changed_since_counts_for_nothing_and_a_mark_made_since_holds(
    session: Session,
) -> None:
    one, other = indices(session, filter="anomalous")[:2]
    file = Path(os.fsdecode(session.source.locate(session.rows.paths[one])))
    file.write_bytes(Path(os.fsdecode(session.source.locate(session.rows.paths[other]))).read_bytes())
    later = session.written + 10
    os.utime(file, (later, later))
    assert session.item(one).changed
    assert not session.item(other).changed
    session.mark(one, "bad")
    session.mark(other, "bad")
    at = session.at(session.threshold)
    assert at.detected.marked == 1
    assert at.marks == {"bad": 2, "lost": 0, "contradicting": 0, "changed": 1}
    assert not session.item(one).lost
    assert sorted(indices(session, filter="bad")) == sorted([one, other])
    used = MarkedImages(session.marks.path).used
    assert (used.bad, used.changed) == (2, 0)  # as calibrate, evaluate and train have them


def test_marks_on_another_folder_with_the_same_names_are_not_ours(
    session: Session, trained: Trained, tmp_path: Path
) -> None:
    (one,) = indices(session, filter="anomalous")[:1]
    session.mark(one, "bad")
    shutil.copytree(session.source.name, tmp_path / "other")
    anomaly_ae.score(tmp_path / "other", output=session.output, home=trained.home)
    again = Session.open(session.output, None, trained.home)
    assert again.item(one).mark == "none"
    assert again.at(again.threshold).marks == {"lost": 0, "contradicting": 0, "changed": 0}


def test_a_threshold_is_kept_as_a_calibration_of_the_same_detector(session: Session, trained: Trained) -> None:
    middle = float(np.median(session.rows.scores[session.rows.scored]))
    kept = session.keep(middle)
    assert kept.run_id in kept.command
    detector = anomaly_ae.load(kept.run_id, mlruns=str(trained.home.root))
    assert detector.threshold == session.at(middle).threshold
    again = Session.open(session.output, kept.run_id, trained.home)  # the same scores, so it may be looked at so
    assert again.threshold == detector.threshold


def test_the_detector_and_the_pictures_are_those_that_were_scored(
    session: Session, trained: Trained, home: RunStore, tmp_path: Path
) -> None:
    other = anomaly_ae.train(anomaly_ae.RunConfig(normal="3", epochs=2), home=home, tracking=False)
    with pytest.raises(UsageError, match="are not those of the detector"):
        Session.open(session.output, str(home.find_run(other.run_id).detector_folder()), trained.home)
    for path in Path(session.source.name).rglob("*.png"):
        os.utime(path, (session.written + 10, session.written + 10))
    with pytest.raises(UsageError, match="cannot be compared"):
        Session.open(session.output, str(home.find_run(other.run_id).detector_folder()), trained.home)
    for path in Path(session.source.name).rglob("*.png"):
        os.utime(path, (session.written - 10, session.written - 10))
    moved = tmp_path / "moved.parquet"
    session.output.rename(moved)
    with pytest.raises(UsageError, match="which pictures"):
        Session.open(moved, trained.run.record.id, trained.home)
    with pytest.raises(UsageError, match="what scored"):
        Session.open(moved, None, trained.home, folder=session.source.name)
    reopened = Session.open(moved, trained.run.record.id, trained.home, folder=session.source.name)
    assert reopened.at(0.5).anomalous == session.at(0.5).anomalous


def test_every_filter_and_order_has_its_words_on_the_page() -> None:
    script = (Path(anomaly_ae.__file__).parent / "review" / "page.js").read_text()
    kinds = script.split("const KINDS = {")[1].split("};")[0]
    assert all(f"{name}: " in kinds for name in Shown)
    page = (Path(anomaly_ae.__file__).parent / "review" / "page.html").read_text()
    assert all(f'value="{name}"' in page for name in SortedBy)


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0], [-3.0, 4.0], [0.1, 0.2, 50.0], [0.0, 1.0, 100.0]])
def test_an_axis_has_all_scores_on_it_in_their_order(scores: list[float]) -> None:
    axis = Axis.of(np.array(scores))
    along = axis.along(sorted(scores))
    assert ((along >= 0) & (along <= 1)).all()
    assert (np.diff(along) >= 0).all()


def test_items_have_the_regions_of_their_rows(session: Session, scored: Path, trained: Trained) -> None:
    texts = pd.read_parquet(scored).regions.fillna("[]")
    boxes = [[region.box for region in session.item(i).regions] for i in range(61)]
    assert boxes == [[tuple(each["box"]) for each in json.loads(text)] for text in texts]
    assert any(boxes)
    pd.read_parquet(scored).drop(columns="regions").to_parquet(scored)  # as rows of before
    assert not any(Session.open(scored, None, trained.home).item(i).regions for i in range(61))
