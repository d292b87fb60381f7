"""`anomaly-ae review` as a person uses it: a real server, a real browser, a real kill."""

import hashlib
import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.datasets.builtin import load_dataset
from tests.conftest import Cli, Trained, start
from tests.end_to_end.conftest import free_port

pytestmark = pytest.mark.slow  # a browser

sync_api = pytest.importorskip("playwright.sync_api")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
HOSTILE = "<img src=x onerror=document.title='caught'>.png"


@pytest.fixture(scope="module")
def scored(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand digits of all classes, one of them with a name that would be run if it were taken for HTML."""
    folder = tmp_path_factory.mktemp("review")
    images = load_dataset("digits").files["train"].images[:999, 0].numpy()
    for i, image in enumerate(images):
        (folder / "in" / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "in" / str(i % 3) / f"{i:04}.png")
    Image.fromarray(images[3]).save(folder / "in" / HOSTILE)
    model = trained.run.record.id
    anomaly_ae.score(folder / "in", model, folder / "scores.parquet", home=trained.home)
    return folder / "scores.parquet"


@pytest.fixture
def few(trained: Trained, tmp_path: Path) -> Path:
    """Three digits, whose files a test may change."""
    (tmp_path / "in").mkdir()
    for i, image in enumerate(load_dataset("digits").files["train"].images[:3, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "in" / f"{i}.png")
    anomaly_ae.score(tmp_path / "in", trained.run.record.id, tmp_path / "scores.parquet", home=trained.home)
    return tmp_path / "scores.parquet"


@pytest.fixture(scope="module")
def browser(browser_path: str) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on which no error may occur."""
    context, errors = browser.new_context(viewport={"width": 1300, "height": 900}), list[str]()
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("requestfinished", lambda request: errors.extend([] if "127.0.0.1" in request.url else [request.url]))
    yield opened
    context.close()
    assert [error for error in errors if not error.startswith("data:")] == []


class Served:
    """`anomaly-ae review` at work."""

    def __init__(self, trained: Trained, scored: Path) -> None:
        place = ("--mlruns", str(trained.home.root), "--no-browser")
        self.process: subprocess.Popen[str] = start(scored.parent, "review", scored.name, *place)
        assert self.process.stderr is not None
        said = next(line for line in self.process.stderr if " is at http" in line)
        self.address = said.split(" is at ")[1].split()[0]


@contextmanager
def serving(trained: Trained, scored: Path) -> Iterator[Served]:
    server = Served(trained, scored)
    yield server
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=60) == 0


@pytest.fixture
def served(trained: Trained, scored: Path) -> Iterator[Served]:
    with serving(trained, scored) as server:
        yield server


def opened(page: Any, address: str) -> None:
    page.goto(address)
    page.locator(".card").first.wait_for()
    until_shown(page)


def until_shown(page: Any) -> None:
    """Until the pictures of all cards are there; what is not shown is not marked."""
    shown = "images => images.every(image => image.complete && image.naturalWidth)"
    until(page, lambda: page.locator(".card img").evaluate_all(shown))


def text(page: Any, name: str) -> str:
    return str(page.locator(f"#{name}").text_content())


def until(page: Any, holds: Any) -> None:
    """Until something holds; a machine that has other work is given its time."""
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, f"it never came to that; the page says: {page.inner_text('body')[:500]}"
        page.wait_for_timeout(50)


def until_first(page: Any, name: str) -> None:
    """Until the list begins with a file, and all that is in view is shown."""
    until(page, lambda: page.locator(".card .name").first.text_content() == name)
    until_shown(page)


def until_rested(page: Any) -> None:
    """Until all keys are dealt with, and the next would be too: those right after a refusal are dropped."""
    page.evaluate("turn.catch(() => {})")
    until(page, lambda: page.evaluate("performance.now() - refusedAt > GLANCE"))


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


def test_thirty_marks_survive_a_kill_and_two_pages_agree(
    trained: Trained, scored: Path, page: Any, browser: Any
) -> None:
    server = Served(trained, scored)
    opened(page, server.address)
    other = browser.new_page()
    opened(other, server.address)
    page.locator("#sort").select_option("score")
    until_first(page, pd.read_parquet(scored).sort_values("score", ascending=False, kind="stable").path.iloc[0])
    page.locator(".card").first.click()
    for i in range(30):  # faster than they can be written
        page.keyboard.press("bgu"[i % 3])
    page.keyboard.press("z")
    page.keyboard.press("b")
    until(page, lambda: page.evaluate("at.marks.undecided") == 9)
    until(other, lambda: other.evaluate("at.marks.bad") == page.evaluate("at.marks.bad") == 11)
    other.close()
    server.process.kill()
    server.process.wait()

    lines = [json.loads(line) for line in Path(f"{scored}.marks.jsonl").read_text().splitlines()]
    assert len(lines) == 32  # 30, one taken back, one more
    again = Served(trained, scored)
    try:
        opened(page, again.address)
        assert page.evaluate("at.marks") == {
            "bad": 11,
            "good": 10,
            "undecided": 9,
            "lost": 0,
            "contradicting": 0,
            "changed": 0,
        }
        page.locator("#kind").select_option("marked")
        until(page, lambda: text(page, "total") == "30 images")
        assert "11" in text(page, "detected")
        badges = page.locator(".card .badge").all_text_contents()
        assert sorted(badges) == sorted(["bad"] * 11 + ["good"] * 10 + ["undecided"] * 9)
    finally:
        again.process.send_signal(signal.SIGINT)
        assert again.process.wait(timeout=60) == 0


def test_marks_on_files_that_change_are_lost_one_after_the_other(trained: Trained, few: Path, page: Any) -> None:
    with serving(trained, few) as server:
        opened(page, server.address)
        page.locator(".card").first.click()
        for _ in range(3):
            page.keyboard.press("g")
        until(page, lambda: page.evaluate("at.marks.good") == 3)
        said = ("1 mark lost, for its file has changed", "2 marks lost, for their files have changed")
        for i, words in enumerate(said):
            with (few.parent / "in" / f"{i}.png").open("ab") as file:
                file.write(b" ")
            until(page, lambda words=words: text(page, "alarms").endswith(words))


def test_a_file_that_is_replaced_under_ones_eyes_is_shown_anew_before_it_is_marked(
    trained: Trained, few: Path, page: Any
) -> None:
    """In the wall and large: what is marked is what was seen, and the keys pressed meanwhile mark nothing."""
    marks = Path(f"{few}.marks.jsonl")
    white = np.full((16, 16), 255, np.uint8)
    with serving(trained, few) as server:
        opened(page, server.address)
        page.locator("#sort").select_option("path")
        until_first(page, "0.png")
        Image.fromarray(white).save(few.parent / "in" / "0.png")
        page.locator(".card").first.focus()
        for _ in range(3):
            page.keyboard.press("g")
        until(page, lambda: page.locator("#trouble").is_visible())
        until(page, lambda: page.locator(".card img").first.evaluate("image => image.naturalWidth") == 16)
        assert text(page, "trouble") == "0.png has changed since it was shown, and is not marked; look again"
        assert not marks.exists()

        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        until(page, lambda: page.locator("#picture").evaluate("image => image.naturalWidth") == 8)
        Image.fromarray(white).save(few.parent / "in" / "1.png")
        until_rested(page)
        for _ in range(3):
            page.keyboard.press("b")
        until(page, lambda: page.locator("#picture").evaluate("image => image.naturalWidth") == 16)
        page.wait_for_timeout(2_500)  # and looks for others' marks meanwhile
        until_rested(page)
        assert page.locator("#trouble").is_visible()
        assert text(page, "name") == "1.png"
        assert not marks.exists()
        page.keyboard.press("b")
        until(page, lambda: text(page, "name") == "2.png")
        assert not page.locator("#trouble").is_visible()
        (line,) = marks.read_text().splitlines()
        replaced = (few.parent / "in" / "1.png").read_bytes()
        assert json.loads(line)["sha256"] == hashlib.sha256(replaced).hexdigest()

        page.keyboard.press("b")
        until(page, lambda: page.evaluate("at.marks.bad") == 2)
        page.locator("#kind").evaluate("kind => { kind.value = 'bad'; kind.onchange(); }")
        until(page, lambda: page.evaluate("total") == 2)
        page.route("**/at?*", lambda route: route.abort())  # or the page might look by itself before the key
        with (few.parent / "in" / "2.png").open("ab") as file:
            file.write(b" ")
        page.keyboard.press("g")  # what has changed is bad no longer, and out of the list
        until(page, lambda: "2.png has changed" in text(page, "trouble"))
        until(page, lambda: "lost" in text(page, "mark"))
        page.unroute("**/at?*")
        until_rested(page)
        page.keyboard.press("g")
        until(page, lambda: '"mark": "good"' in marks.read_text().splitlines()[-1])


def by_path(page: Any) -> None:
    page.locator("#sort").select_option("path")
    until(page, lambda: page.locator(".card .name").first.text_content() == "0.png")


def test_what_is_not_shown_is_not_marked(trained: Trained, few: Path, page: Any) -> None:
    """Neither before a picture is there, nor while that of a file which has changed is on its way."""
    marks = Path(f"{few}.marks.jsonl")

    def withhold(kind: str) -> None:
        page.route(f"**/{kind}/**", lambda route: route.abort())

    with serving(trained, few) as server:
        withhold("thumbnail")
        page.goto(server.address)
        by_path(page)
        page.locator(".card").first.focus()
        page.keyboard.press("g")
        until(page, lambda: text(page, "trouble") == "0.png is not shown yet, and is not marked; look again")
        page.unroute("**/thumbnail/**")

        opened(page, server.address)
        by_path(page)
        page.locator(".card").first.click()
        until(page, lambda: page.locator("#picture").evaluate("image => image.naturalWidth") == 8)
        withhold("picture")
        Image.fromarray(np.full((16, 16), 255, np.uint8)).save(few.parent / "in" / "0.png")
        page.evaluate("reload()")
        until(page, lambda: page.locator(".card img").first.evaluate("image => image.naturalWidth") == 16)
        page.keyboard.press("g")  # its card, behind the large picture, has been seen by nobody
        until(page, lambda: "0.png has changed since it was shown" in text(page, "trouble"))
        assert not marks.exists()
        page.unroute("**/picture/**")
        until_rested(page)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowLeft")
        until(page, lambda: page.locator("#picture").evaluate("image => image.naturalWidth") == 16)
        page.keyboard.press("g")
        said = "1 left out, for its file has changed since the folder was scored"
        until(page, lambda: text(page, "alarms").endswith(said))
    (line,) = marks.read_text().splitlines()
    assert json.loads(line)["mark"] == "good"


def test_what_was_refused_is_told_until_it_is_not_and_can_be_undone_later(
    trained: Trained, few: Path, page: Any
) -> None:
    refusal, marks = "the disk is full", Path(f"{few}.marks.jsonl")

    def last() -> tuple[str, str]:
        line = json.loads(marks.read_text().splitlines()[-1])
        return line["path"], line["mark"]

    with serving(trained, few) as server:
        opened(page, server.address)
        by_path(page)
        for card, keys in enumerate(("bg", "g")):
            page.locator(".card").nth(card).focus()
            for key in keys:
                page.keyboard.press(key)
        until(page, lambda: page.evaluate("at.marks.good") == 2)

        page.route("**/mark", lambda route: route.fulfill(status=422, json={"error": refusal}))
        page.keyboard.press("z")
        until(page, lambda: text(page, "trouble") == refusal)
        page.route("**/at?*", lambda route: route.abort())
        until(page, lambda: "the server does not answer" in text(page, "trouble"))
        assert refusal in text(page, "trouble")
        page.unroute("**/at?*")
        until(page, lambda: text(page, "trouble") == refusal)
        page.unroute("**/mark")

        page.keyboard.press("z")
        until(page, lambda: last() == ("1.png", "none"))
        until(page, lambda: not page.locator("#trouble").is_visible())
        with (few.parent / "in" / "0.png").open("ab") as file:
            file.write(b" ")
        page.keyboard.press("z")
        until(page, lambda: last() == ("0.png", "none"))  # what was marked bad before is no more


def test_what_is_shown_is_marked_though_the_list_has_moved_on(
    trained: Trained, few: Path, page: Any, browser: Any
) -> None:
    with serving(trained, few) as server:
        opened(page, server.address)
        other = browser.new_page()
        opened(other, server.address)
        page.locator("#sort").select_option("path")
        page.locator("#kind").select_option("unmarked")
        until(page, lambda: page.locator(".card .name").first.text_content() == "0.png")
        page.locator(".card").nth(1).click()
        until(page, lambda: text(page, "name") == "1.png")
        other.locator(".card", has_text="0.png").focus()
        other.keyboard.press("g")
        until(page, lambda: page.evaluate("total") == 2)
        assert text(page, "name") == "1.png"
        page.keyboard.press("b")
        until(page, lambda: page.evaluate("at.marks.bad") == 1)
        other.close()
    said = [json.loads(line) for line in Path(f"{few}.marks.jsonl").read_text().splitlines()]
    assert [(line["path"], line["mark"]) for line in said] == [("0.png", "good"), ("1.png", "bad")]


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
