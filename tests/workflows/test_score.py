import errno
import io
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.autoencoders import inference
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.regions import read_regions
from anomaly_ae.errors import AnomalyAEError
from anomaly_ae.scoring import job
from anomaly_ae.scoring.rows import score_batch
from tests.conftest import Cli, Trained, start
from tests.decoding import decoded_in_processes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Digits of all classes, named with odd letters, and a few files that are no good."""
    (tmp_path / "in").mkdir()
    for i, image in enumerate(load_dataset("digits").files["train"].images[:60, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "in" / f"<b>{i:02} \u00e4\n.png")
    (tmp_path / "in" / "empty.png").touch()
    (tmp_path / "in" / "notes.txt").write_text("text")
    return tmp_path / "in"


def test_a_folder_from_the_command_line(cli: Cli, trained: Trained, folder: Path, tmp_path: Path) -> None:
    place = ("--mlruns", str(trained.home.root))
    extras = ("--fdr", "0.2", "--heatmaps", "maps", "--report", "report.html")
    with decoded_in_processes():
        result = cli("score", "in", *place, *extras, "--target-fpr", "0.1", "--json").json()
    table = pd.read_parquet(tmp_path / "scores.parquet")
    expected = {"images": 61, "errors": 1, "skipped": 1, "scored": 61, "output": "scores.parquet"}
    assert expected.items() <= result.items()
    assert result["anomalies"] == table.is_anomaly.sum() > 20
    assert result["target_fpr"] == 0.1
    assert result["discoveries"] == table.is_discovery.sum()
    assert result["error_kinds"] == {"cannot be read as an image (is empty)": 1}
    assert result["images_per_second"] > 0 < result["seconds"]
    maps = sorted(path for path in (tmp_path / "maps").rglob("*") if path.is_file())
    assert [path.name for path in maps] == sorted(
        f"{name}.png" for name in table.path[table.is_anomaly.fillna(False)]
    )
    assert np.asarray(Image.open(maps[0])).shape == (224, 224, 3)
    assert (
        sum((np.asarray(Image.open(path)) == 255).all(axis=2).any() for path in maps)
        >= ((table.regions != "[]") & table.is_anomaly.fillna(False)).sum()
    )
    page = (tmp_path / "report.html").read_text()
    assert page.count('":"data:image/') == 3 * 60
    assert "<b>00" not in page


def test_a_report_that_cannot_be_written_leaves_the_scores(
    cli: Cli, trained: Trained, folder: Path, tmp_path: Path
) -> None:
    report = f"{'r' * 250}.html"  # the longest name there is, and while it is written it has more
    ended = cli("score", "in", "--mlruns", str(trained.home.root), "--report", report)
    assert ended.code == 1
    said = ended.err.splitlines()[-1]
    assert said.startswith(f"error: cannot write {report}: ")
    assert said.endswith("; the scores are in scores.parquet")
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 61


def test_masks_of_regions_have_the_size_of_their_pictures(
    cli: Cli, trained: Trained, folder: Path, tmp_path: Path
) -> None:
    for path in folder.glob("<b>0*.png"):  # the same pictures, larger, and not square
        Image.open(path).resize((40, 24), Image.Resampling.NEAREST).save(path)
    place = ("--mlruns", str(trained.home.root), "--output", "rows.parquet")
    ended = cli("score", "in", *place, "--masks", "masks")
    table = pd.read_parquet(tmp_path / "rows.parquet").set_index("path")
    marked = table[table.is_anomaly.fillna(False) & (table.regions != "[]")]
    assert f"masks           {len(marked)} in masks\n" in ended.out
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {f"{name}.png" for name in marked.index}
    assert len({tuple(size) for size in marked[["width", "height"]].to_numpy()}) == 2
    for name, row in marked.iterrows():
        image = Image.open(tmp_path / "masks" / f"{name}.png")
        mask, regions = np.asarray(image), read_regions(row.regions)
        assert (image.mode, image.size) == ("L", (row.width, row.height))
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask > 0).mean() == pytest.approx(sum(region.area for region in regions), rel=1e-5)
        x, y, width, height = regions[0].box
        rows, columns = (
            slice(round(a * n), round((a + b) * n)) for a, b, n in ((y, height, row.height), (x, width, row.width))
        )
        assert mask[rows, columns].any(axis=1).all()


@pytest.mark.slow  # a browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser")
def test_the_page_opens_in_a_real_browser(trained: Trained, folder: Path, tmp_path: Path) -> None:
    output, page = tmp_path / "scores.csv", tmp_path / "report.html"
    anomaly_ae.score(folder, output=output, report=page, home=trained.home)
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    seen = subprocess.run(browser, capture_output=True, text=True, timeout=60, check=True).stdout
    assert seen.count('class="card"') == 24
    assert "page 1 of 3 · 60 shown" in seen
    assert "page 1 of 2 · 60 shown" in seen
    assert "cannot be read as an image (is empty)" in seen


def test_what_people_read(cli: Cli, trained: Trained, folder: Path) -> None:
    place = ("--mlruns", str(trained.home.root))
    first = cli("score", "in", *place, "--output", "rows.csv", "--strict")
    assert first.code == 1
    for words in ("images          61", "1 have an error", "1 (no images)", "kept in         rows.csv"):
        assert words in first.out
    again = cli("score", "in", *place, "--output", "rows.csv", "--resume")
    assert again.code == 0
    assert "61, 61 of which had been scored before" in again.out


def test_what_is_not_scored_is_said_once_and_not_in_the_result(
    cli: Cli, trained: Trained, folder: Path, tmp_path: Path
) -> None:
    digit = Image.fromarray(load_dataset("digits").files["train"].images[0, 0].numpy())
    for name in (".hidden/a.png", "@eaDir/b.png", "@eaDir/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        digit.save(folder / name)
    for name in ("film.gif", "scan.tif"):
        digit.save(folder / name, save_all=True, append_images=[digit.rotate(90)])
    (folder / "phone.heic").touch()
    (folder / "gone").symlink_to("nowhere")
    place = ("--mlruns", str(trained.home.root))
    ended = cli("score", "in", *place, "--output", "rows.csv", "--report", "page.html", "--json")
    result = ended.json()
    assert result["images"] == 63
    heic = "HEIC file, which cannot be read; save as PNG or JPEG"
    said = [
        f"left out: 1 {heic}",
        "left out: 1 hidden picture",
        "left out: 2 thumbnails",
        "the link gone leads nowhere",
    ]
    assert [line for line in ended.err.splitlines() if line in said] == said
    assert result["left_out"] == {"HEIC files, which cannot be read; save as PNG or JPEG": 1} | {
        "hidden pictures": 1,
        "thumbnails": 2,
    }
    assert "2 files have further pages or frames; the first is used" in result["differences"]
    assert heic in (tmp_path / "page.html").read_text()
    again = cli("score", "in", *place, "--output", "rows.csv", "--resume")
    assert [line for line in again.err.splitlines() if line in said] == said
    assert "left out" not in again.out
    assert "leads nowhere" not in again.out
    assert "2 files have further pages or frames; the first is used" in again.out


def test_one_image_gets_its_score_told(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    Image.fromarray(load_dataset("digits").files["train"].images[0, 0].numpy()).save(tmp_path / "one.png")
    ended = cli("score", "one.png", "--mlruns", str(trained.home.root), "--output", "one.csv")
    row = pd.read_csv(tmp_path / "one.csv").iloc[0]
    assert f"score           {row.score:.4f}, p-value {row.p_value:.3g}" in ended.out


def test_heat_maps_that_cannot_be_written_are_counted_and_said(
    cli: Cli, trained: Trained, folder: Path, tmp_path: Path
) -> None:
    for path in sorted(folder.glob("*.png"))[12:]:
        path.unlink()
    for path in folder.glob("*.png"):
        (tmp_path / "maps" / f"{path.name}.png" / "in the way").mkdir(parents=True)
    place = ("--mlruns", str(trained.home.root), "--output", "rows.parquet", "--heatmaps", "maps")
    ended = cli("score", "in", *place)
    assert ended.code == 1
    lost = int(pd.read_parquet(tmp_path / "rows.parquet").is_anomaly.sum())
    assert f"{lost} heat maps of {lost} anomalous images could not be written; the first cannot write" in ended.err
    assert f"heat maps       0 in maps; {lost} could not be written" in ended.out


def test_a_full_disk_costs_heat_maps_and_nothing_else(
    trained: Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        if path.is_relative_to(tmp_path / "maps"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full)
    output = tmp_path / "rows.parquet"
    result = anomaly_ae.score(folder, output=output, heatmaps=tmp_path / "maps", home=trained.home)
    assert result.heatmaps_missing == result.anomalies > 0
    assert len(pd.read_parquet(output)) == 61


def test_folders_may_have_names_that_are_no_utf8(trained: Trained, folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    folder.rename(odd)
    page = tmp_path / os.fsdecode(b"r\xe9.html")
    anomaly_ae.score(odd, output=odd.with_suffix(".csv"), report=page, home=trained.home)
    assert r"caf\xe9" in page.read_text()


@pytest.mark.parametrize(
    ("folder_given", "options", "reason"),
    [
        ("absent", {}, "name a folder of images"),
        ("in", {"output": "scores.txt"}, "ends in .parquet"),
        ("in", {"report": "report.pdf"}, "ends in .html"),
        ("in", {"heatmaps": "in/maps"}, "in/maps lies in the folder of images; heat maps go elsewhere"),
        ("in", {"masks": "in/masks"}, "in/masks lies in the folder of images; masks go elsewhere"),
        ("in", {"masks": "maps", "heatmaps": "./maps"}, "heatmaps and masks name one folder"),
        ("in", {"target_fpr": 0.0001}, "needs at least"),
        ("in", {"fdr": 2.0}, "false discovery rate lies above 0"),
        ("in", {"output": "/proc/scores.parquet"}, "cannot write"),
    ],
)
def test_wrong_use_is_said_before_any_work(
    trained: Trained,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder_given: str,
    options: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AnomalyAEError, match=reason):
        anomaly_ae.score(folder_given, home=trained.home, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.slow  # several whole jobs, killed
def test_killed_at_any_moment_and_resumed_the_rows_are_the_same(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    """Real kills: of a job of many shards, at moments spread over its time."""
    (tmp_path / "in").mkdir()
    images = load_dataset("digits").files["train"].images[:, 0].numpy()
    for i in range(5_000):
        (tmp_path / "in" / f"{i:05}.bmp").write_bytes(_bitmap(images[i % len(images)]))
    command = ("score", "in", "--mlruns", str(trained.home.root), "--json")
    clean = cli(*command, "--output", "clean.parquet").json()
    assert clean["images"] == 5_000
    for seconds in (0.1, 0.4):
        running = start(tmp_path, *command, "--output", "killed.parquet", "--resume")
        _wait_for(tmp_path / ".killed.parquet.ledger" / "job.json", running)
        time.sleep(seconds)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    cli(*command, "--output", "killed.parquet", "--resume").json()
    assert (tmp_path / "killed.parquet").read_bytes() == (tmp_path / "clean.parquet").read_bytes()
    assert not list(tmp_path.glob(".*.tmp"))


def test_ctrl_c_is_answered_at_once_and_says_how_to_go_on(
    cli: Cli, trained: Trained, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of the last of three batches, with decoders at work."""
    batches = list[Any]()

    def strike(*given: Any) -> Any:
        batches.append(given)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return score_batch(*given)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind
    monkeypatch.setattr(inference, "BATCH_IMAGES", 25)
    try:
        with monkeypatch.context() as patch, decoded_in_processes():
            patch.setattr(job, "score_batch", strike)
            ended = cli("score", "in", "--mlruns", str(trained.home.root))
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.code == 130
    said = "interrupted; 50 of 61 files are scored, and the same command with --resume goes on"
    assert ended.err.splitlines()[-1] == said
    again = cli("score", "in", "--mlruns", str(trained.home.root), "--resume")
    assert "61, 50 of which had been scored before" in again.out


def _bitmap(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "BMP")
    return content.getvalue()


def _wait_for(path: Path, running: "subprocess.Popen[str]") -> None:
    ends = time.monotonic() + 60
    while not path.exists():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < ends, f"{path} never came"
        time.sleep(0.02)
