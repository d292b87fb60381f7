"""The site that `make docs` builds, from the files that it is made of."""

import inspect
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import typer
from markdown_it import MarkdownIt

import anomaly_ae
from anomaly_ae.cli import app

ROOT = Path(__file__).parents[2]
PAGES = ("*.md", "docs/*.md", "pipelines/**/*.md")
TAGS = ("blockquote", "code", "em", "h2", "h3", "img", "li", "p", "pre", "strong", "table", "td")
DESCRIBED = [
    name for name in anomaly_ae.__all__ if name not in ("__version__", "AnomalyAEError", "Detector", "FolderScores")
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def content(page: Path) -> str:
    """What a page is about, without its headings' own links."""
    found = re.search(r"<article.*?</article>", page.read_text(), re.DOTALL)
    assert found
    return re.sub(r'<a class="headerlink".*?</a>', "", found[0])


def letters(html: str) -> str:
    return "".join(unescape(re.sub(r"<h1.*?</h1>|<[^>]*>", "", html)).split())


def test_a_page_of_the_site_says_what_its_file_says_without_it(site: Path) -> None:
    """Where the Markdown of mkdocs and that of others differ, as in lists and tables, neither is let down."""
    files = [file for pattern in PAGES for file in ROOT.glob(pattern)]
    assert len(files) > 10
    for file in files:
        page = file.with_name(file.name.replace("README.md", "index.md")).with_suffix(".html")
        here, there = MarkdownIt().enable("table").render(file.read_text()), content(site / page.relative_to(ROOT))
        assert letters(there) == letters(here), file
        for tag in TAGS:
            assert (tag, len(re.findall(f"<{tag}\\b", there))) == (tag, len(re.findall(f"<{tag}\\b", here))), file


def test_every_public_name_and_every_flag_has_its_place(site: Path) -> None:
    names, commands = content(site / "docs/api.html"), content(site / "docs/commands.html")
    assert not [name for name in anomaly_ae.__all__[:-1] if f'id="anomaly_ae.{name}"' not in names]
    for name, command in typer.main.get_command(app).commands.items():
        assert f'<h2 id="{name}">' in commands
        for parameter in command.params:
            assert f"<code>{parameter.opts[0]}" in commands or parameter.param_type_name == "argument", name


def test_a_reader_asks_nobody_but_the_site(site: Path) -> None:
    asked = [
        (page.name, address)
        for page in site.rglob("*.html")
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text())
        for address in re.findall(r'(?:src|href)="?((?:https?:)?//[^"\s>]*)', tag)
    ]
    styles = [path.name for path in site.rglob("*.css") if re.search(r"url\([\"']?(https?:)?//", path.read_text())]
    assert not asked
    assert not styles


@pytest.mark.slow  # a browser
def test_the_search_finds_a_page_that_was_opened_from_the_disk(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((site / "docs/pictures.html").as_uri())
    page.get_by_role("textbox", name="Search").click()
    page.keyboard.type("jackknife")
    page.locator(".md-search-result__link").first.click()
    page.get_by_text("jackknife-minmax").first.wait_for()
    assert page.url.startswith((site / "index.html").as_uri())


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_parameter_is_described(name: str) -> None:
    thing = getattr(anomaly_ae, name)
    missing = [
        each for each in inspect.signature(thing).parameters if not re.search(rf"\n +{each} ?: ", thing.__doc__)
    ]
    assert not missing
