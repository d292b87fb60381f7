import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from anomaly_ae.autoencoders import inference
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import CalibrationError, DataMissing, RunBusy, StorageError, UsageError
from anomaly_ae.scoring import ledger
from anomaly_ae.scoring.ledger import Ledger
from tests.scoring.conftest import run

pytestmark = pytest.mark.usefixtures("small_shards")


def test_what_a_killed_writer_left_is_removed(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / ".scores.csv.123.tmp").write_text("half")
    run(detector, pictures, tmp_path / "scores.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".scores.csv.ledger", "in", "scores.csv"]


def test_a_ledger_whose_list_is_damaged_says_so(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    run(detector, pictures, tmp_path / "scores.parquet")
    (tmp_path / ".scores.parquet.ledger" / "listing").write_bytes(b"half")
    with pytest.raises(StorageError, match="is damaged; leave resume out"):
        run(detector, pictures, tmp_path / "scores.parquet", resume=True)


@pytest.mark.parametrize("job", ["", "{}", "[]", "7", '{"format": 5}', "\udcff"])
def test_a_ledger_whose_job_is_damaged_says_so(detector: Detector, pictures: Path, tmp_path: Path, job: str) -> None:
    run(detector, pictures, tmp_path / "scores.parquet")
    (tmp_path / ".scores.parquet.ledger" / "job.json").write_text(job, errors="surrogateescape")
    with pytest.raises(StorageError, match="is damaged; leave resume out"):
        run(detector, pictures, tmp_path / "scores.parquet", resume=True)
    assert run(detector, pictures, tmp_path / "scores.parquet").scored == 21


Damage = Callable[[Path], object]


def flip(shard: Path) -> None:
    """One bit of the file, another one for each shard."""
    content, draw = bytearray(shard.read_bytes()), random.Random(shard.name)
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    shard.write_bytes(content)


def replace_by_a_folder(shard: Path) -> None:
    shard.unlink()
    (shard / "sub").mkdir(parents=True)


def replace_by_a_link_to_nothing(shard: Path) -> None:
    shard.unlink()
    shard.symlink_to("nowhere")


DAMAGES: list[Damage] = [
    Path.unlink,
    lambda shard: shard.write_bytes(b""),
    lambda shard: shard.write_bytes(shard.read_bytes()[:-7]),
    lambda shard: shard.write_bytes(shard.read_bytes() + b"more"),
    lambda shard: shard.write_bytes(bytes(shard.stat().st_size)),  # as power cuts leave it
    lambda shard: shutil.copyfile(shard.with_name("shard-000119"), shard),  # whole, and of another file
    lambda shard: shutil.copyfile(shard.with_name("listing"), shard),
    lambda shard: pq.write_table(pa.table({"path": ["000.png"], "score": [0.5]}), shard),
    replace_by_a_folder,
    replace_by_a_link_to_nothing,
    *[flip] * 100,
]


def test_whatever_has_become_of_a_shard_resuming_gives_the_same_rows(
    detector: Detector, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """120 shards of one file each, of which 110 are damaged, each in another way."""
    monkeypatch.setattr(inference, "BATCH_IMAGES", 1)
    monkeypatch.setattr(ledger, "SHARD", 1)
    (tmp_path / "many").mkdir()
    for i, image in enumerate(load_dataset("digits").files["train"].images[:120, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "many" / f"{i:03}.png")
    run(detector, tmp_path / "many", tmp_path / "scores.parquet")
    rows = (tmp_path / "scores.parquet").read_bytes()
    for i, damage in enumerate(DAMAGES):
        damage(tmp_path / ".scores.parquet.ledger" / f"shard-{i:06}")
    assert run(detector, tmp_path / "many", tmp_path / "scores.parquet", resume=True).scored == len(DAMAGES)
    assert (tmp_path / "scores.parquet").read_bytes() == rows


def test_results_of_another_detector_are_none(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    """Not even where its shards lie in the ledger of the job to resume."""
    other = dataclasses.replace(detector, calibration=detector.calibration.at(target_fpr=0.2))
    run(other, pictures, tmp_path / "other.parquet")
    run(detector, pictures, tmp_path / "scores.parquet")
    shutil.copy(tmp_path / ".other.parquet.ledger" / "shard-000001", tmp_path / ".scores.parquet.ledger")
    assert run(detector, pictures, tmp_path / "scores.parquet", resume=True).scored == 8


def test_a_job_that_was_killed_while_it_began_anew_is_none(
    detector: Detector, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "scores.parquet"
    run(detector, pictures, output)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_write_listing", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(detector, pictures, output)
    assert run(detector, pictures, output, resume=True).scored == 21


def test_two_at_once_on_one_output_are_not_let(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    with Ledger.beside(tmp_path / "scores.parquet", detector).locked(), pytest.raises(RunBusy, match="same output"):
        run(detector, pictures, tmp_path / "scores.parquet")


def test_nothing_is_left_by_what_was_refused(detector: Detector, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataMissing):
        run(detector, tmp_path / "none", tmp_path / "out" / "scores.parquet")
    with pytest.raises(UsageError, match=r"\.parquet, \.pq, \.csv, \.jsonl, and .*scores\.txt"):
        run(detector, pictures, tmp_path / "scores.txt")
    conditional = detector.calibration.at(guarantee="conditional")
    with pytest.raises(CalibrationError, match="marginal"):
        conditional.check_discoveries(0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "none"]
