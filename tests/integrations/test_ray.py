import contextlib
import io
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.regions import read_regions
from anomaly_ae.errors import UsageError
from anomaly_ae.images.sources import open_source
from anomaly_ae.scoring.job import Job, Scores, score_job
from anomaly_ae.scoring.ledger import Ledger
from tests.conftest import Cli, Trained

pytest.importorskip("ray")

import ray
from ray.cluster_utils import Cluster

from anomaly_ae.integrations import ray as door

pytestmark = pytest.mark.slow  # a Ray of its own

GOOD, BAD = 1_100, 2  # files: five parts


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster with room for two actors."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2 + door.SPARE_CPUS, "include_dashboard": False}
    )
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, one of them named in no UTF-8, a file that is no image and one that ends too early."""
    folder = tmp_path_factory.mktemp("in")
    (folder / "sub").mkdir()
    for i, image in enumerate(load_dataset("digits").files["train"].images[:GOOD, 0].numpy()):
        Image.fromarray(image).save(folder / ("sub" if i % 2 else "") / f"{i:04}.png")
    (folder / "0500.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    (folder / "bad.png").write_bytes(b"bad")
    content = (folder / "0000.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    return folder


@pytest.fixture(scope="module")
def detector(trained: Trained) -> Detector:
    return trained.detector()


@pytest.fixture(scope="module")
def expected(detector: Detector, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The rows that the local engine makes."""
    output = tmp_path_factory.mktemp("local") / "scores.parquet"
    score_job(Job(detector, detector.calibration, open_source(folder), output))
    return pd.read_parquet(output)


def run(detector: Detector, folder: Path, output: Path, address: str, resume: bool = False) -> Scores:
    job = Job(detector, detector.calibration, open_source(folder), output)
    return score_job(job, resume, door.ray_engine(address))


def assert_same(output: Path, expected: pd.DataFrame) -> None:
    """The same rows in the same order, verdicts and errors to the letter, scores but for the last bits."""
    rows = pd.read_parquet(output)
    pd.testing.assert_frame_equal(rows.drop(columns="regions"), expected.drop(columns="regions"), rtol=1e-5)
    ours, theirs = ([read_regions(text) for text in frame.regions[frame.error.isna()]] for frame in (rows, expected))
    assert [[region.box for region in regions] for regions in ours] == [
        [r.box for r in regions] for regions in theirs
    ]
    assert any(ours)
    assert rows.is_anomaly.equals(expected.is_anomaly)


def mortal(notes: Path) -> type[door.PartScorer]:
    """An actor that is killed in its second part, if it is the first of all actors to come so far."""

    class Mortal(door.PartScorer):
        parts = 0

        def __call__(self, table: Any) -> Any:
            (notes / str(os.getpid())).touch()
            self.parts += 1
            if self.parts == 2 and not (notes / "killed").exists():
                (notes / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(table)

    return Mortal


@dataclass(frozen=True)
class Done:
    """A job of which one actor was killed, and what it printed to standard output; `found`: its ledger as a kill of
    the job itself at its end had left it.
    """

    scores: Scores
    output: Path
    notes: set[str]
    printed: str
    found: Path


@pytest.fixture(scope="module")
def done(detector: Detector, folder: Path, address: str, tmp_path_factory: pytest.TempPathFactory) -> Done:
    place = tmp_path_factory.mktemp("done")
    (place / "notes").mkdir()
    keep = door._keep

    def keep_copied(ledger: Ledger, *rest: Any) -> int:
        shutil.copytree(ledger.folder, place / "found")
        return keep(ledger, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "PartScorer", mortal(place / "notes"))
        patch.setattr(door, "_keep", keep_copied)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            scores = run(detector, folder, place / "scores.parquet", address)
    notes = {path.name for path in (place / "notes").iterdir()}
    return Done(scores, place / "scores.parquet", notes, printed.getvalue(), place / "found")


def test_with_an_actor_killed_the_rows_are_those_of_the_local_engine(done: Done, expected: pd.DataFrame) -> None:
    assert len(done.notes - {"killed"}) >= 2
    assert "killed" in done.notes
    assert done.printed == ""
    assert (done.scores.scored, len(done.scores.bad), done.scores.differences) == (GOOD + BAD, BAD, [])
    assert_same(done.output, expected)
    assert not ray.is_initialized()


def test_resuming_scores_new_files_alone(
    done: Done, detector: Detector, folder: Path, expected: pd.DataFrame, address: str
) -> None:
    new = ("new.png", "sub/new.png")
    try:
        for name in new:
            shutil.copyfile(folder / "0002.png", folder / name)
        scores = run(detector, folder, done.output, address, resume=True)
    finally:
        for name in new:
            (folder / name).unlink()
    assert scores.scored == 2
    copied = expected[expected.path == "0002.png"]
    assert_same(done.output, pd.concat([expected, *(copied.assign(path=name) for name in new)], ignore_index=True))
    assert not list(done.output.parent.glob(".*.ledger/ray"))


def test_after_a_kill_of_the_job_rays_checkpoint_leaves_out_what_is_written(
    done: Done, detector: Detector, folder: Path, expected: pd.DataFrame, tmp_path: Path, address: str
) -> None:
    output = tmp_path / "odd #%20 [a]*" / "scores.parquet"
    written = output.with_name(".scores.parquet.ledger") / "ray"
    shutil.copytree(done.found, written.parent)
    assert not list(written.parent.glob("shard-*"))
    half, none, *_ = (path.stem for path in (written / "done").iterdir())
    left = 0
    for name in (half, none):
        (rows,) = written.glob(f"rows/{name}*")
        left += sum(len(positions) for positions, _ in door._unpack(rows))
        rows.write_bytes(rows.read_bytes()[:1000]) if name == half else rows.unlink()
    (written / "done" / f"{half}.parquet").rename(written / "done" / f"{half}.pending.parquet")
    (written / "done" / f"{none}.parquet").unlink()
    assert run(detector, folder, output, address, resume=True).scored == left < GOOD
    assert_same(output, expected)


def test_from_the_command_line_on_a_ray_of_its_own(
    cli_process: Cli, trained: Trained, folder: Path, expected: pd.DataFrame, tmp_path: Path
) -> None:
    place = ("--mlruns", str(trained.home.root), "--output", "scores.parquet")
    ended = cli_process("score", str(folder), *place, "--engine", "ray", "--workers", "1", "--json")
    assert ended.json()["scored"] == GOOD + BAD
    said = [line for line in ended.err.splitlines() if not line.endswith(" …")]  # but for what takes long
    assert said[1:] == ["scoring with Ray in 1 process"]
    assert_same(tmp_path / "scores.parquet", expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "rai"}, "unknown engine 'rai'; did you mean 'ray'"),
        ({"ray_address": "localhost:6379"}, 'ray_address="localhost:6379" goes with engine="ray"'),
        ({"engine": "ray", "device": "cuda"}, "scores on CPUs"),
        ({"engine": "ray", "ray_address": "127.0.0.1:1"}, "no Ray at 127.0.0.1:1: .*refused"),
        ({"engine": "ray", "ray_address": "nonsense"}, "no Ray at nonsense: Invalid address"),
    ],
)
def test_wrong_use_is_said(
    trained: Trained, folder: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        anomaly_ae.score(folder, output=tmp_path / "scores.parquet", home=trained.home, **options)


def test_too_few_free_cpus_are_refused_rather_than_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 2.0})
    with pytest.raises(UsageError, match=r"needs 3 free CPUs .* and there are 2"):
        door._room(None)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 8.0})
    assert (door._room(None), door._room(4), door._room(100)) == (6, 4, 6)
