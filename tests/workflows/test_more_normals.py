import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DataChanged, DataMissing, UsageError
from anomaly_ae.images.sources import open_source
from anomaly_ae.runs.store import RunStore
from anomaly_ae.scoring.marks import Mark, MarkFile
from anomaly_ae.workflows import marked
from anomaly_ae.workflows.draw import draw_again
from anomaly_ae.workflows.train import resume
from tests.conftest import Cli, Ended, Trained

WithMarks = Callable[..., Ended]

SLANT = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0]])


def slanted(images: torch.Tensor) -> torch.Tensor:
    """Images as another writer's hand would have them."""
    grid = functional.affine_grid(SLANT[None].expand(len(images), 2, 3), list(images.shape), align_corners=False)
    sampled = functional.grid_sample(images.float(), grid, align_corners=False)
    return sampled.round().clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def new_style() -> torch.Tensor:
    """All the digits 0, 1 and 2, slanted, in no order: those of one writer follow each other in the file."""
    digits = load_dataset("digits").files["train"]
    images = slanted(digits.images[digits.labels < 3])
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]


@pytest.fixture
def marks(new_style: torch.Tensor, tmp_path: Path) -> Path:
    """A hundred of them marked good, and one that is marked bad."""
    (tmp_path / "in").mkdir()
    for i in range(101):
        Image.fromarray(new_style[i, 0].numpy()).save(tmp_path / "in" / f"{i:03}.png")
    file, source = MarkFile.beside(tmp_path / "scores.csv"), open_source(tmp_path / "in")
    for i, path in enumerate(source.pictures().paths):
        file.append(Mark.of(source, path, "good" if i < 100 else "bad"))
    return file.path


@pytest.fixture
def own_home(trained: Trained, home: RunStore) -> RunStore:
    """A home with a copy of the run, so that the others' latest run stays what it is."""
    shutil.copytree(trained.run.path, home.root / "runs" / trained.run.path.name)
    return home


@pytest.fixture
def with_marks(trained: Trained, own_home: RunStore, marks: Path, cli: Cli) -> WithMarks:
    """The command that goes on from the run with what is marked by then, for an epoch."""
    start = ("train", "--from", trained.run.record.id, "--add-marks", str(marks), "--epochs", "1", "--no-figures")
    return partial(cli, *start, "--no-tracking", "--mlruns", str(own_home.root))


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def alarms(run_id: str, home: RunStore, images: torch.Tensor) -> float:
    detector = anomaly_ae.load(run_id, mlruns=str(home.root))
    return float(detector.predict(images).float().mean())


def test_a_new_style_is_learned_and_the_old_is_kept(
    trained: Trained, own_home: RunStore, new_style: torch.Tensor, marks: Path
) -> None:
    fresh = new_style[101:]
    before = alarms(trained.run.record.id, own_home, fresh)
    result = anomaly_ae.train_from(trained.run.record.id, marks, home=own_home, tracking=False, figures=False)
    after = alarms(result.run_id, own_home, fresh)
    rate = trained.detector().calibration.target_fpr
    assert before > 3 * rate
    assert after < rate + 3 * (rate * (1 - rate) / 50) ** 0.5  # as 50 images can hold it
    old = anomaly_ae.evaluate(result.run_id, home=own_home, figures=False)
    assert old.auroc is not None
    assert trained.evaluation.auroc is not None
    assert old.auroc > trained.evaluation.auroc - 0.005
    assert old.images == trained.evaluation.images


def test_marked_images_are_learned_from_or_set_the_threshold_and_never_both(
    trained: Trained, own_home: RunStore, new_style: torch.Tensor, marks: Path
) -> None:
    result = anomaly_ae.train_from(
        trained.run.record.id, marks, [{"epochs": 2}], home=own_home, tracking=False, figures=False
    )
    run = own_home.find_run(result.run_id)
    detector = anomaly_ae.load(result.run_id, mlruns=str(own_home.root))
    assert run.split["marked"][0]["images"] == 100
    assert run.split["parts"] == trained.run.split["parts"]
    assert run.config.from_run == trained.run.record.id
    assert run.record.name.endswith(f"from {trained.run.record.id[:8]}")
    assert result.epochs == 2
    with pytest.raises(anomaly_ae.AnomalyAEError, match="made with all"):
        detector.unseen(new_style[:100])
    scores = detector.score(new_style[:100])
    calibrating = detector.calibration.scores
    theirs = [bool((calibrating - score).abs().min() < 1e-6) for score in scores]
    assert sum(theirs) == 50
    memory = detector.scorer.state()
    assert memory.keys() == trained.detector().scorer.state().keys()


def test_it_begins_with_the_weights_of_the_run(trained: Trained, own_home: RunStore, marks: Path) -> None:
    still = anomaly_ae.train_from(
        trained.run.record.id,
        marks,
        [{"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0}],
        home=own_home,
        tracking=False,
        figures=False,
    )
    ours = anomaly_ae.load(still.run_id, mlruns=str(own_home.root)).network.state_dict()
    for name, value in trained.detector().network.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(ours[name], value, atol=1e-6), name


def test_photos_in_folds_are_learned_anew_with_the_marked_ones(home: RunStore, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, count in (("train/good", 14), ("test/good", 2), ("test/bad", 2), ("new", 8)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(100, 140, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos" / "new").rename(tmp_path / "new")
    config = RunConfig(dataset=str(tmp_path / "photos"), preset="surface", image_size="48", target_fpr=0.2, steps=4)
    first = anomaly_ae.train(config, home=home, tracking=False, figures=False)
    file, source = MarkFile(tmp_path / "x.marks.jsonl"), open_source(tmp_path / "new")
    for path in source.pictures().paths:
        file.append(Mark.of(source, path, "good"))
    second = anomaly_ae.train_from(first.run_id, file.path, home=home, tracking=False, figures=False)
    folds = home.find_run(first.run_id).config.folds
    assert second.guarantee.startswith(f"cross, {folds} folds")
    assert second.calibration_images > first.calibration_images
    assert anomaly_ae.evaluate(second.run_id, home=home, figures=False).images == 4


def test_an_interrupted_one_goes_on_with_the_same_images(
    trained: Trained, own_home: RunStore, marks: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--mlruns", str(own_home.root))
    with monkeypatch.context() as patch:
        patch.setattr("anomaly_ae.detector.fit.fit_scorer", interrupt)
        start = ("train", "--from", trained.run.record.id, "--add-marks", str(marks), "--epochs", "2", "--no-figures")
        stopped = cli(*start, "--no-tracking", *place)
        assert stopped.code == 130
    unfinished = own_home.latest_unfinished()
    kept = unfinished.path / "marks.jsonl"
    lines = marks.read_text().splitlines(keepends=True)
    marks.write_text("".join(lines[5:]))  # others may go on marking: it has its own copy
    kept.write_text("".join(lines[1:]))
    changed = cli("train", "--resume", unfinished.record.id, *place)
    assert changed.code == 1
    assert "are not those of this training any more" in changed.err
    kept.write_text("".join(lines))
    assert cli("train", "--resume", unfinished.record.id, *place, "--no-figures", "--json").json()["epochs"] == 2


def test_few_marked_images_set_the_threshold_with_the_others_and_that_is_said(
    marks: Path, with_marks: WithMarks
) -> None:
    marks.write_text("".join(marks.read_text().splitlines(keepends=True)[:20]))
    ended = with_marks("--json")
    assert ended.json()["calibration_images"] == 108 + 10
    assert "10 images marked normal are too few to hold the rate 0.05 by themselves" in ended.err
    assert "marks: 20 good, 0 bad" in ended.err


def test_copies_marked_good_and_bad_are_not_learned_from_and_are_listed(
    own_home: RunStore, marks: Path, with_marks: WithMarks
) -> None:
    folder = marks.parent / "in"
    shutil.copyfile(folder / "000.png", folder / "copy.png")
    MarkFile(marks).append(Mark.of(open_source(folder), b"copy.png", "bad"))
    ended = with_marks("--json")
    assert own_home.find_run(ended.json()["run_id"]).split["marked"][0]["images"] == 99
    assert "marks: 99 good, 1 bad; 2 left out, for copies of one image are marked good and bad" in ended.err
    assert "of copies of one image: 000.png is marked good; copy.png is marked bad" in ended.err


def test_both_kinds_of_images_hold_the_threshold_at_every_rate(
    own_home: RunStore, cli: Cli, with_marks: WithMarks
) -> None:
    ended = with_marks()
    assert "for a false-alarm rate of 0.05 (marginal, the higher of 2 groups of 108 and 50 images)" in ended.out
    assert "; rates from 0.01961 on can be asked for" in ended.out
    new = own_home.latest()
    detector = anomaly_ae.load(new.record.id, mlruns=str(own_home.root))
    old, marked = detector.calibration.by_group
    said = f"would set it at {old.threshold(0.05):.4g}, the 50 marked normal at {marked.threshold(0.05):.4g}"
    assert f"the 108 images for the threshold alone {said}" in ended.err
    assert detector.threshold == max(old.threshold(0.05), marked.threshold(0.05))
    for rate in (0.02, 0.3):
        child = anomaly_ae.calibrate(new.record.id, target_fpr=rate, home=own_home, tracking=False)
        assert child.threshold == max(old.threshold(rate), marked.threshold(rate))
        assert child.guarantee == "marginal, the higher of 2 groups of 108 and 50 images"
        assert child.smallest_rates["marginal"] == 0.01961
    place = ("--mlruns", str(own_home.root))
    refused = cli("calibrate", new.record.id, "--target-fpr", "0.01", "--no-tracking", *place)
    assert refused.code == 2
    assert "and there are 50 in the smallest of 2 groups; the smallest rate possible is 0.01961" in refused.err
    by_digits = anomaly_ae.calibrate(new.record.id, target_fpr=0.05, home=own_home, tracking=False)
    chosen = anomaly_ae.calibrate(by_digits.run_id, threshold=by_digits.threshold, home=own_home, tracking=False)
    assert chosen.target_fpr <= by_digits.target_fpr


def test_one_marked_image_is_learned_from_and_none_is_left_for_the_threshold(
    marks: Path, with_marks: WithMarks
) -> None:
    marks.write_text("".join(marks.read_text().splitlines(keepends=True)[:1]))
    ended = with_marks("--json")
    assert ended.json()["calibration_images"] == 108
    assert "1 image marked good more: 1 to learn from, each 16 times, 0 for the threshold" in ended.err
    assert "too few" not in ended.err


def test_a_calibration_is_not_gone_on_from(trained: Trained, own_home: RunStore, marks: Path) -> None:
    child = anomaly_ae.calibrate(trained.run.record.id, target_fpr=0.2, home=own_home, tracking=False)
    with pytest.raises(UsageError, match="is a calibration"):
        anomaly_ae.train_from(child.run_id, marks, home=own_home)


@pytest.fixture
def own_test(own_home: RunStore, trained: Trained, tmp_path: Path) -> Path:
    """All normal digits, in the training or not, as files that are marked good."""
    digits = load_dataset("digits").files["train"]
    (tmp_path / "digits").mkdir()
    for i, image in enumerate(digits.images[digits.labels < 3]):
        Image.fromarray(image[0].numpy()).save(tmp_path / "digits" / f"{i:03}.png")
    file, source = MarkFile(tmp_path / "digits.marks.jsonl"), open_source(tmp_path / "digits")
    for path in source.pictures().paths:
        file.append(Mark.of(source, path, "good"))
    return file.path


def test_what_a_run_is_measured_with_is_not_learned_from(
    trained: Trained, own_home: RunStore, marks: Path, own_test: Path, cli: Cli
) -> None:
    run, place = trained.run.record.id, ("--mlruns", str(own_home.root), "--no-tracking")
    refused = cli("train", "--from", run, "--add-marks", str(own_test), *place)
    assert refused.code == 1
    assert f"all that is new in {own_test} is " in refused.err
    assert "of the run's own test set; mark other pictures as good" in refused.err
    both = MarkFile(own_test)
    both.refresh()
    count = len(both.marks)
    own_test.write_bytes(own_test.read_bytes() + marks.read_bytes())
    ended = cli("train", "--from", run, "--add-marks", str(own_test), "--epochs", "1", "--no-figures", *place)
    assert f"{count + 100} good, 1 bad" in ended.err
    assert "images of the run's own test set, for they measure how good it is" in ended.err
    first = own_home.latest()
    assert [each["images"] for each in first.split["marked"]] == [100]
    again = cli("train", "--from", first.record.id, "--add-marks", str(own_test), *place)
    assert again.code == 1
    assert "of the run's own test set; mark other pictures as good" in again.err


def test_marks_that_come_while_the_images_are_read_are_not_those_of_the_run(
    trained: Trained, own_home: RunStore, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, score = marks.read_text().splitlines(keepends=True), marked.score_images
    marks.write_text("".join(lines[:30]))

    def slowly(*args: Any) -> Any:
        marks.write_text("".join(lines))
        return score(*args)

    with monkeypatch.context() as patch:
        patch.setattr(marked, "score_images", slowly)
        first = go_on(trained.run.record.id, marks, own_home)
    second = go_on(first, marks, own_home)
    assert [each["images"] for each in own_home.find_run(second).split["marked"]] == [30, 70]


def go_on(run: str, marks: Path, home: RunStore) -> str:
    asked = [{"epochs": 1}]
    return anomaly_ae.train_from(run, marks, asked, home=home, tracking=False, figures=False).run_id


def test_a_run_made_with_marks_is_gone_on_from_and_what_set_its_threshold_is_never_learned_from(
    trained: Trained, own_home: RunStore, new_style: torch.Tensor, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = marks.read_text().splitlines(keepends=True)
    marks.write_text("".join(lines[:60]))
    first = go_on(trained.run.record.id, marks, own_home)
    marks.write_text("".join(lines[:100]))  # somebody went on marking in the same file
    with monkeypatch.context() as patch:
        patch.setattr("anomaly_ae.detector.fit.fit_scorer", interrupt)
        with pytest.raises(anomaly_ae.AnomalyAEError):
            go_on(first, marks, own_home)
    second = own_home.latest_unfinished()
    marks.unlink()
    resume(second.record.id, home=own_home, figures=False)
    assert [each["images"] for each in second.split["marked"]] == [60, 40]
    assert second.split["marked"][:1] == own_home.find_run(first).split["marked"]
    before, after = (anomaly_ae.load(run, mlruns=str(own_home.root)) for run in (first, second.record.id))
    assert [len(group) for group in before.calibration.by_group] == [108, 30]
    assert [len(group) for group in after.calibration.by_group] == [108, 30, 20]

    def set_the_threshold(detector: Detector) -> list[bool]:
        calibrating = torch.cat([group.scores for group in detector.calibration.by_group[1:]])
        return [bool((calibrating - score).abs().min() < 1e-6) for score in detector.score(new_style[:100])]

    assert set_the_threshold(after)[:60] == set_the_threshold(before)[:60]
    assert sum(set_the_threshold(after)) == 50
    with pytest.raises(anomaly_ae.AnomalyAEError, match="made with all"):
        after.unseen(new_style[:100])


def test_what_a_run_learned_from_is_not_gone_on_from_as_bad_or_once_it_has_changed(
    trained: Trained, own_home: RunStore, marks: Path
) -> None:
    lines = marks.read_text().splitlines(keepends=True)
    marks.write_text("".join(lines[:30]))
    first = go_on(trained.run.record.id, marks, own_home)
    marks.write_text("".join(lines))
    folder = open_source(marks.parent / "in")
    MarkFile(marks).append(Mark.of(folder, b"007.png", "bad"))
    said = f"1 file that run {first} was made with as normal, now marked bad in .*; go on from run "
    with pytest.raises(UsageError, match=said + trained.run.record.id):
        go_on(first, marks, own_home)
    MarkFile(marks).append(Mark.of(folder, b"007.png", "good"))
    shutil.copyfile(marks.parent / "in" / "007.png", marks.parent / "in" / "copy.png")
    MarkFile(marks).append(Mark.of(folder, b"copy.png", "bad"))
    with pytest.raises(UsageError, match=said + trained.run.record.id):
        go_on(first, marks, own_home)
    MarkFile(marks).append(Mark.of(folder, b"copy.png", "none"))
    shutil.copyfile(marks.parent / "in" / "099.png", marks.parent / "in" / "007.png")
    with pytest.raises(DataChanged, match=r"marks\.jsonl are not those of this training any more"):
        go_on(first, marks, own_home)


@pytest.mark.usefixtures("figures")
def test_figures_are_drawn_again_though_others_have_gone_on_marking(
    trained: Trained, own_home: RunStore, marks: Path
) -> None:
    first = go_on(trained.run.record.id, marks, own_home)
    marks.write_text("".join(marks.read_text().splitlines(keepends=True)[5:]))
    assert "loss_curves.png" in {Path(path).name for path in draw_again(first, home=own_home)}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"latent": 5}, "latent is 12 and 5 was asked"),
        ({"normal": "3"}, "normal is 0,1,2 and 3 was asked"),
        ({"autoencoder": "dense"}, "autoencoder is conv and dense was asked"),
    ],
)
def test_another_network_or_other_data_are_refused(
    trained: Trained, own_home: RunStore, marks: Path, asked: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        anomaly_ae.train_from(trained.run.record.id, marks, [asked], home=own_home)


def test_what_is_missing_is_said_in_a_line(cli: Cli, trained: Trained, own_home: RunStore, marks: Path) -> None:
    place = ("--mlruns", str(own_home.root))
    alone = cli("train", "--from", "latest", *place)
    assert (alone.code, alone.err.splitlines()[-1]) == (2, "error: --from goes with --add-marks; name both")
    alone = cli("train", "--add-marks", str(marks), *place)
    assert (alone.code, alone.err.splitlines()[-1]) == (2, "error: --add-marks goes with --from; name both")
    lines = [line for line in marks.read_text().splitlines(keepends=True) if '"mark": "bad"' in line]
    marks.write_text("".join(lines))
    with pytest.raises(DataMissing, match="is marked good"):
        anomaly_ae.train_from(trained.run.record.id, marks, home=own_home)
