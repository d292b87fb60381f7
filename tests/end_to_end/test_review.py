"""`anomaly-ae review` as a person uses it: a real server and a real browser."""

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import anomaly_ae
from tests.conftest import Cli, Trained, start
from tests.end_to_end.conftest import free_port
from tests.end_to_end.review_page import HOSTILE, Served, opened, text, until, until_first

pytestmark = pytest.mark.slow  # a browser


def test_the_slider_moves_counts_that_are_those_of_the_rows(served: Served, page: Any, scored: Path) -> None:
    scores = pd.read_parquet(scored).score.to_numpy()
    opened(page, served.address)
    seen = {page.evaluate("at.threshold")}
    for place in (9_500, 500, 7_000, 2_000):
        page.locator("#slider").evaluate(
            "(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input')); }", place
        )
        until(page, lambda: page.evaluate("at.threshold") not in seen)
        threshold = float(page.evaluate("at.threshold"))
        assert text(page, "counts") == f"{(scores > threshold).sum():,} of {len(scores):,} images"
        assert page.locator("#histogram .bar.above").count() == 80 - round(place / 125)
        seen.add(threshold)
    assert len(seen) == 5
    page.locator("#kind").select_option("anomalous")
    until(page, lambda: text(page, "total") == f"{(scores > threshold).sum():,} images")
    assert page.locator(".card").count() == page.locator(".card.above").count() > 0


def test_one_image_large_with_its_map_and_the_nearest_training_images(served: Served, page: Any) -> None:
    opened(page, served.address)
    page.locator(".card").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#neighbors figure").nth(4).wait_for()
    first = text(page, "name")
    for name in ("picture", "heat", "rebuilt"):
        until(page, lambda name=name: page.locator(f"#{name}").evaluate("image => image.naturalWidth") > 0)
    page.keyboard.press("m")
    assert not page.locator("#heat").is_visible()
    page.keyboard.press("m")
    assert page.locator("#heat").is_visible()
    page.keyboard.press("ArrowLeft")
    until(page, lambda: text(page, "name") != first)
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()


def test_regions_have_boxes_where_they_are_in_the_picture(served: Served, page: Any, scored: Path) -> None:
    table = pd.read_parquet(scored).sort_values("score", ascending=False, kind="stable")
    chosen = int((table.regions != "[]").to_numpy().argmax())  # the first that has any
    row = table.iloc[chosen]
    boxes = [region["box"] for region in json.loads(row.regions)]
    opened(page, served.address)
    page.locator("#sort").select_option("score")
    until_first(page, table.path.iloc[0])
    page.locator(".card", has_text=row.path).click()
    until(page, lambda: page.locator("#regions rect").count() == len(boxes) > 0)
    assert text(page, "name") == row.path
    stage = page.locator("#stage").bounding_box()
    side = min(stage["width"], stage["height"])  # digits are square
    left, top = stage["x"] + (stage["width"] - side) / 2, stage["y"] + (stage["height"] - side) / 2
    for i, (x, y, width, height) in enumerate(boxes):
        drawn = page.locator("#regions rect").nth(i).bounding_box()
        seen = [drawn[name] for name in ("x", "y", "width", "height")]
        assert seen == pytest.approx([left + x * side, top + y * side, width * side, height * side], abs=2)
    page.keyboard.press("m")
    assert not page.locator("#regions").is_visible()


def test_a_hostile_name_is_text(served: Served, page: Any) -> None:
    opened(page, served.address)
    page.locator("#sort").select_option("path")
    until_first(page, "0/0000.png")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    until(page, lambda: page.locator(f'.card[title="{HOSTILE}"]').count() == 1)
    page.locator(f'.card[title="{HOSTILE}"]').click()
    until(page, lambda: text(page, "name") == HOSTILE)
    assert "caught" not in page.title()


def test_a_foreign_page_gets_nothing_and_marks_nothing(served: Served, browser: Any, scored: Path) -> None:
    foreign, marks = browser.new_page(), Path(f"{scored}.marks.jsonl")
    before = marks.read_bytes() if marks.exists() else b""
    foreign.goto("data:text/html,<title>elsewhere</title>")
    answers = foreign.evaluate(
        """async address => {
            const read = await fetch(address + "about").then(answer => answer.text(), () => "refused");
            await fetch(address + "mark", { method: "POST", mode: "no-cors", body: '{"index": 0, "mark": "bad"}' })
                .catch(() => {});
            return read;
        }""",
        served.address,
    )
    assert answers == "refused"
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        asked = urllib.request.Request(
            served.address + "mark", b'{"index": 0, "mark": "bad"}', {"Content-Type": "application/json"} | headers
        )
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(asked)
    assert (marks.read_bytes() if marks.exists() else b"") == before
    foreign.close()


def test_the_threshold_is_kept_for_the_next_folder(served: Served, page: Any, trained: Trained, cli: Cli) -> None:
    opened(page, served.address)
    page.locator("#number").fill("0.2")
    until(page, lambda: abs(page.evaluate("at.threshold") - 0.2) < 1e-6)
    page.locator("#keep").click()
    until(page, lambda: "kept as run" in text(page, "kept"))
    run = text(page, "kept").split("kept as run ")[1].split(";")[0]
    detector = anomaly_ae.load(run, mlruns=str(trained.home.root))
    assert np.float32(detector.threshold) == np.float32(page.evaluate("at.threshold"))


def test_what_cannot_be_reviewed_is_said_in_a_line(cli_process: Cli, trained: Trained, scored: Path) -> None:
    place = ("--mlruns", str(trained.home.root), "--no-browser")
    missing = cli_process("review", "nothing.parquet", *place)
    assert (missing.code, missing.err.splitlines()[-1]) == (
        1,
        "error: there are no scores in nothing.parquet; score a folder first, or name another file",
    )
    port = free_port()
    taken = start(scored.parent, "review", scored.name, *place, "--port", str(port))
    assert taken.stderr is not None
    next(line for line in taken.stderr if " is at http" in line)
    ended = cli_process("review", str(scored), *place, "--port", str(port))
    assert ended.code == 2
    assert f"port {port} cannot be had" in ended.err
    taken.send_signal(signal.SIGTERM)
    assert taken.wait(timeout=60) == 0
