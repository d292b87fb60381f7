"""What a person sees in MLflow's pages, in a real browser."""

from typing import Any

import pytest

from anomaly_ae.runs.run_results import Promoted
from tests.conftest import Trained
from tests.end_to_end.conftest import Pages
from tests.end_to_end.review_page import until

pytestmark = pytest.mark.slow  # a browser

sync_api = pytest.importorskip("playwright.sync_api")
SEEN_BEFORE = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
TRAINING = "?workflowType=machine_learning"


@pytest.fixture(scope="module")
def page(browser: Any) -> Any:
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    context.set_default_timeout(60_000)
    context.add_init_script(SEEN_BEFORE)
    return context.new_page()


@pytest.fixture
def run_page(trained: Trained, pages: Pages) -> str:
    return f"{pages.base}#/experiments/1/runs/{trained.run.record.id}"


def expect(locator: Any) -> Any:
    return sync_api.expect(locator.first)


sync_api.expect.set_options(timeout=60_000)


def test_the_address_opens_on_the_runs_with_the_columns_that_tell_them_apart(
    trained: Trained, pages: Pages, page: Any
) -> None:
    page.goto(pages.said)
    expect(page.get_by_role("link", name=trained.run.record.name)).to_be_visible()
    for column in ("normal", "autoencoder", "scorer", "test/auroc", "test/false_positive_rate", "train/seconds"):
        expect(page.get_by_role("columnheader", name=column, exact=True)).to_be_visible()
    expect(page.get_by_text(f"{trained.evaluation.auroc:.6f}"[:7])).to_be_visible()
    assert page.get_by_text("Prompts & versions").count() == 0  # the view for training


def test_the_page_of_a_run_has_the_headline_table_and_how_to_use_it(
    trained: Trained, run_page: str, page: Any
) -> None:
    page.goto(run_page + TRAINING)
    page.get_by_text("Show more").click()
    low, high = trained.evaluation.auroc_ci or (0, 0)
    expect(page.get_by_text(f"{trained.evaluation.auroc:.4f} ({low:.4f} to {high:.4f})")).to_be_visible()
    expect(page.get_by_text(f"anomaly-ae promote {trained.run.record.id}")).to_be_visible()
    expect(page.get_by_text("About this run")).to_be_visible()


def test_the_charts_show_losses_and_a_slider_through_the_reconstructions(run_page: str, page: Any) -> None:
    page.goto(f"{run_page}/model-metrics{TRAINING}")
    expect(page.get_by_role("heading", name="threshold")).to_be_visible()
    card = page.get_by_text("reconstructions", exact=True)
    page.mouse.move(900, 700)
    for _ in range(30):  # cards are made when they come into view
        page.mouse.wheel(0, 600)
        page.wait_for_timeout(100)
    until(page, lambda: page.mouse.wheel(0, 600) or card.first.is_visible())  # what is slow to come makes it longer
    expect(card).to_be_visible()
    expect(page.get_by_text("(val/loss)")).to_be_visible()  # the legend of a curve
    assert page.locator("svg .scatterlayer path.js-line").count() > 0
    picture = page.locator("img.rc-image-img")
    expect(picture).to_be_visible()
    before = picture.first.get_attribute("src")
    assert picture.first.evaluate("image => image.naturalWidth") > 100
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowRight")
    sync_api.expect(picture.first).not_to_have_attribute("src", before)
    assert "step%2B0%2B" in before


def test_a_figure_is_shown_among_the_artifacts(run_page: str, page: Any) -> None:
    page.goto(f"{run_page}/artifacts/figures/score_by_class.png{TRAINING}")
    expect(page.get_by_text("figures/score_by_class.png")).to_be_visible()
    figure = page.locator("img[src*='blob:'], img[src*='score_by_class']")
    expect(figure).to_be_visible()
    assert figure.first.evaluate("image => image.naturalWidth") > 500


def test_the_page_of_the_model_has_alias_evaluation_and_schema(
    trained: Trained, promoted: Promoted, pages: Pages, page: Any
) -> None:
    page.goto(f"{pages.base}#/models/{promoted.name}/versions/{promoted.version}{TRAINING}")
    expect(page.get_by_text("champion")).to_be_visible()
    expect(page.get_by_text(f"{trained.evaluation.auroc:.6g}", exact=True)).to_be_visible()
    expect(page.get_by_text("Inputs (1)")).to_be_visible()
    expect(page.get_by_text("Outputs (6)")).to_be_visible()


def test_the_pages_are_read_in_the_dark_too(run_page: str, page: Any) -> None:
    """Figures bring a white ground of their own, so that their black writing can be read."""
    page.emulate_media(color_scheme="dark")
    page.goto(f"{run_page}/artifacts/figures/roc_and_precision_recall.png{TRAINING}")
    figure = page.locator("img[src*='blob:'], img[src*='roc_and']")
    expect(figure).to_be_visible()
    corner = figure.first.evaluate(
        """image => {
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const drawn = canvas.getContext("2d");
            drawn.drawImage(image, 0, 0);
            return [...drawn.getImageData(2, 2, 1, 1).data];
        }"""
    )
    assert corner == [255, 255, 255, 255]
