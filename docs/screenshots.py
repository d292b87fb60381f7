"""The pictures of the README that show a detector at work and MLflow's pages, made anew with the bundled digits.

.venv/bin/python docs/screenshots.py        # needs Chromium; about a minute
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import sync_playwright

import anomaly_ae
from anomaly_ae import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.reporting.figures.saving import write_figures
from anomaly_ae.runs.store import RunStore

DOCS = Path(__file__).parent
PORT = 5099
RUNS = (
    {"normal": "all-but:7", "autoencoder": "vae", "scorer": "elbo"},
    {"normal": "0,1,2", "scorer": "mse"},
    {"normal": "0,1,2", "scorer": "relative+latent-knn", "preset": "fast"},
    {"normal": "0,1,2"},
)
SEEN_BEFORE = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
TRAINING = "?workflowType=machine_learning"


def main() -> None:
    """Train, draw, serve, and take the pictures."""
    with TemporaryDirectory() as folder:
        home = RunStore.find(str(Path(folder, "mlruns")))
        for settings in RUNS:
            run_id = anomaly_ae.train(RunConfig.build(settings), home=home).run_id
            anomaly_ae.evaluate(run_id, home=home)
        promoted = anomaly_ae.promote(run_id, home=home)
        draw_overview(anomaly_ae.load(run_id, mlruns=str(home.root)))
        take_pictures(home, run_id, f"#/models/{promoted.name}/versions/{promoted.version}")
        take_review(home, run_id, Path(folder))
        draw_region_of_interest(home, Path(folder))


def draw_overview(detector: anomaly_ae.Detector) -> None:
    """One image of each digit, and what a detector of 0, 1 and 2 makes of them."""
    test = detector.split.test.take(load_dataset("digits"))
    firsts = torch.stack([torch.argmax((test.labels == digit).int()) for digit in range(10)])
    write_figures(DOCS, {"overview": detector.plot(test.images[firsts])}, "")


def take_pictures(home: RunStore, run_id: str, model: str) -> None:
    """Pictures of the pages that `anomaly-ae ui` serves."""
    command = [sys.executable, "-m", "anomaly_ae.cli", "ui", "--mlruns", str(home.root), "--port", str(PORT)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        said = next(line for line in server.stderr if "MLflow is at" in line)
        base, run = f"http://127.0.0.1:{PORT}/", f"#/experiments/1/runs/{run_id}"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            context = browser.new_context(viewport={"width": 1500, "height": 760})
            context.add_init_script(SEEN_BEFORE)
            page = context.new_page()
            shoot(page, "runs", said.split(" at ")[1].split()[0])
            shoot(page, "run", f"{base}{run}{TRAINING}")
            shoot(page, "reconstructions", f"{base}{run}/model-metrics{TRAINING}", scroll=True)
            shoot(page, "figures", f"{base}{run}/artifacts/figures/missed.png{TRAINING}")
            shoot(page, "model", f"{base}{model}{TRAINING}")
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def take_review(home: RunStore, run_id: str, folder: Path) -> None:
    """Pictures of the page that `anomaly-ae review` serves, of digits that were scored, some of them marked."""
    digits = load_dataset("digits").files["train"]
    (folder / "digits").mkdir()
    for i in range(400):
        image = Image.fromarray(digits.images[-1 - i, 0].numpy())
        image.save(folder / "digits" / f"{i:04}-a-{int(digits.labels[-1 - i])}.png")
    anomaly_ae.score(folder / "digits", run_id, folder / "scores.parquet", home=home)
    command = [sys.executable, "-m", "anomaly_ae.cli", "review", str(folder / "scores.parquet"), "--no-browser"]
    server = subprocess.Popen([*command, "--mlruns", str(home.root)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        said = next(line for line in server.stderr if " is at http" in line)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 860})
            page.goto(said.split(" is at ")[1].split()[0])
            page.locator("#sort").select_option("random")
            page.wait_for_timeout(1000)
            page.locator(".card").first.click()
            for _ in range(60):  # by their names, as whoever looks would by what they see
                before = page.locator("#name").text_content() or ""
                page.keyboard.press("g" if before[-5] in "012" else "b")
                while page.locator("#name").text_content() == before:
                    page.wait_for_timeout(20)
            page.wait_for_timeout(4000)
            page.screenshot(path=DOCS / "review-large.png")
            page.keyboard.press("Escape")
            page.locator("#sort").select_option("nearness")
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(1500)
            page.screenshot(path=DOCS / "review.png")
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def draw_region_of_interest(home: RunStore, folder: Path) -> None:
    """A scratched plate on a bench that never looks the same, the mask of where to look, and the heat map."""
    for i in range(41):
        path = folder / "plates" / ("train/good" if i else "test/scratched") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_plate(i).save(path)
    mask = Image.new("L", (320, 240))
    ImageDraw.Draw(mask).rounded_rectangle((102, 62, 217, 157), 14, fill=255)
    mask.save(folder / "mask.png")
    config = RunConfig(dataset=folder / "plates", roi=folder / "mask.png", preset="default")  # type: ignore[arg-type]
    run_id = anomaly_ae.train(config, home=home, figures=False).run_id
    place = folder / "plates/test/scratched"
    anomaly_ae.score(place, run_id, folder / "plates.parquet", heatmaps=folder / "maps", home=home)
    heat = Image.open(folder / "maps/00.png.png").convert("RGB")
    together = Image.new("RGB", (3 * heat.width + 20, heat.height), "white")
    for i, image in enumerate([Image.open(place / "00.png"), mask, heat]):
        together.paste(image.convert("RGB").resize(heat.size), (i * (heat.width + 10), 0))
    together.save(DOCS / "roi.png")


def draw_plate(number: int) -> Image.Image:
    """A plate with four holes, the first one with a scratch, in front of things that lie about."""
    draw = np.random.default_rng(number)
    image = Image.new("L", (320, 240), int(draw.integers(90, 200)))
    canvas = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, across, down = *draw.integers(-40, 300, 2), *draw.integers(5, 70, 2)
        shape = canvas.ellipse if draw.random() < 0.5 else canvas.rectangle
        shape((x, y, x + across, y + down), fill=int(draw.integers(20, 255)))
    canvas.rounded_rectangle((100, 60, 219, 159), 16, fill=150)
    for left in (114, 140, 166, 192):
        canvas.ellipse((left, 98, left + 16, 122), fill=40)
    if number == 0:
        canvas.line((128, 138, 162, 128), fill=215, width=2)
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7))) + draw.normal(0, 3, (240, 320))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def shoot(page: Any, name: str, address: str, *, scroll: bool = False) -> None:
    """A picture of one page, after it has settled."""
    page.goto(address)
    page.wait_for_timeout(4000)
    if scroll:
        page.mouse.move(900, 600)
        for _ in range(30):
            page.mouse.wheel(0, 800)
            page.wait_for_timeout(100)
        page.get_by_role("slider").first.focus()
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        page.wait_for_timeout(2000)
    page.screenshot(path=DOCS / f"ui-{name}.png")


if __name__ == "__main__":
    main()
