"""What people mark in `anomaly-ae review` stands, whatever happens meanwhile: a kill, another page, other files."""

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import Trained
from tests.end_to_end.review_page import Served, opened, serving, text, until, until_first, until_rested

pytestmark = pytest.mark.slow  # a browser


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
