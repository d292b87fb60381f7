"""The pictures of the README and of docs/ that show detectors at work, the pages of `score` and `review`, and those
of MLflow, made anew of MNIST, of the bundled digits, and of photos of cookies.

.venv/bin/python docs/screenshots.py DATA   # a folder with MNIST and cookies; needs Chromium; some four minutes
"""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from headline import Panel, draw_headline, save_small
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Page, sync_playwright

import anomaly_ae
from anomaly_ae import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import RunStore

DOCS = Path(__file__).parent
PORT = 5099
SETTLED = 8000  # milliseconds until nothing more comes, on a machine that has other work
OTHERS = (  # beside which the table of runs shows those of MNIST and of the cookies
    {"normal": "all-but:7", "autoencoder": "vae", "scorer": "elbo"},
    {"normal": "0,1,2", "scorer": "mse"},
    {"normal": "0,1,2", "scorer": "relative+latent-knn"},
)
COOKIES, MNIST = {"dataset": "cookies", "target_fpr": 0.1}, {"dataset": "mnist", "normal": "0,1,2"}
SEEN_BEFORE = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
TRAINING = "?workflowType=machine_learning"
WITHOUT = """folder => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "…");
}"""


@dataclass(frozen=True)
class Shown:
    """What the pictures are of: where all lies, the runs, and the data sets."""

    folder: Path
    home: RunStore
    cookies: RunFolder
    mnist: RunFolder
    data: Path


def main(data: Path) -> None:
    """Train, draw, serve, and take the pictures."""
    with TemporaryDirectory() as folder:
        home = RunStore.find(str(Path(folder, "mlruns")))
        for settings in OTHERS:
            train(home, settings)
        draw(Shown(Path(folder), home, train(home, COOKIES, data), train(home, MNIST, data), data))


def train(home: RunStore, settings: dict[str, Any], data: Path | None = None) -> RunFolder:
    """A run that is trained and evaluated."""
    run_id = anomaly_ae.train(RunConfig.build(settings, {"data_dir": data} if data else {}), home=home).run_id
    anomaly_ae.evaluate(run_id, home=home)
    return home.find_run(run_id)


def draw(shown: Shown) -> None:
    """All pictures."""
    draw_overview(shown)
    save_small(Image.open(shown.cookies.path / "figures/defects.png"), DOCS / "defects.png")
    take_pictures(shown)
    take_report(shown)
    take_review(shown)
    draw_region_of_interest(shown.home, shown.folder)


def draw_overview(shown: Shown) -> None:
    """Some photos of cookies and one image of each digit, and what the detectors make of them."""
    cookies, digits = shown.folder / "some cookies", shown.folder / "some digits"
    tests = [sorted(shown.data.glob(f"cookies/test/{name}/*")) for name in ("good", "cracked")]
    for i, path in enumerate([*tests[0][1::5], *tests[1][::10]]):
        copy(path, cookies / f"{i}{path.suffix}")
    test = load_dataset("mnist", str(shown.data)).files["test"]
    for digit in range(10):
        save_digit(test.images[torch.argmax((test.labels == digit).int())], digits / f"{digit}.png")
    learned = len(list(shown.data.glob("cookies/train/good/*")))
    draw_headline(
        DOCS,
        [
            Panel.of(shown.cookies, f"Cookies: {learned} photos of good ones to learn from", cookies, rebuilds=False),
            Panel.of(shown.mnist, "MNIST: handwritten 0, 1 and 2 to learn from", digits, rebuilds=True),
        ],
    )


@contextmanager
def served(shown: Shown, said: str, *words: str) -> Iterator[str]:
    """What a command that serves pages says when it is ready, in the line that has some words, and the server."""
    command = [sys.executable, "-m", "anomaly_ae.cli", *words, "--mlruns", str(shown.home.root)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(DOCS.parent), os.environ.get("PYTHONPATH", "")])}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=shown.folder, env=environment)
    assert server.stderr is not None
    try:
        yield next(line for line in server.stderr if said in line).split(" at ")[1].split()[0]
    finally:
        server.terminate()
        server.wait()


@contextmanager
def opened(width: int, height: int) -> Iterator[Page]:
    """A page of a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.add_init_script(SEEN_BEFORE)
        yield page
        browser.close()


def take_pictures(shown: Shown) -> None:
    """Pictures of the pages that `anomaly-ae ui` serves."""
    promoted = anomaly_ae.promote(shown.mnist.path.name, home=shown.home)
    with served(shown, "MLflow is at", "ui", "--port", str(PORT)) as runs, opened(1500, 760) as page:
        folder = shown.home.root.parent
        base, run = f"http://127.0.0.1:{PORT}/", f"#/experiments/1/runs/{shown.mnist.path.name}"
        shoot(page, "runs", runs, folder)
        shoot(page, "run", f"{base}{run}{TRAINING}", folder)
        shoot(page, "figures", f"{base}{run}/artifacts/figures/missed.png{TRAINING}", folder)
        shoot(page, "model", f"{base}#/models/{promoted.name}/versions/{promoted.version}{TRAINING}", folder)
        page.goto(f"{base}{run}/model-metrics{TRAINING}")
        show_reconstructions(page)
        page.screenshot(path=DOCS / "ui-reconstructions.png")


def shoot(page: Page, name: str, address: str, folder: Path) -> None:
    """A picture of one page, after it has settled, without the folder where all of this is done."""
    page.goto(address)
    page.wait_for_timeout(SETTLED)
    page.evaluate(WITHOUT, str(folder))
    page.screenshot(path=DOCS / f"ui-{name}.png")


def show_reconstructions(page: Page) -> None:
    """Scroll to the card at the end of the charts, draw it higher, as far as MLflow lets it, move its slider some
    epochs on, and scroll to its picture, which is seen whole then.
    """
    page.set_viewport_size({"width": 1500, "height": 900})
    page.wait_for_timeout(SETTLED)
    page.mouse.move(900, 600)
    for _ in range(10):  # what is below comes as one scrolls
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(300)
    card = page.locator(".react-resizable").last
    box = card.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] - 8, box["y"] + box["height"] - 8
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, 890, steps=8)
    page.mouse.up()
    page.mouse.move(900, 600)
    page.mouse.wheel(0, 3000)
    page.get_by_role("slider").first.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(SETTLED)
    card.locator("img").first.evaluate("image => image.scrollIntoView({block: 'end'})")
    page.mouse.wheel(0, 3000)
    page.wait_for_timeout(1000)


def take_report(shown: Shown) -> None:
    """A picture of the page that `anomaly-ae score --report` writes, of digits and two files that are damaged."""
    pictures, report = shown.folder / "pictures", shown.folder / "report.html"
    write_digits(shown.data, pictures)
    run_id = shown.mnist.path.name
    anomaly_ae.score(pictures, run_id, shown.folder / "digits.parquet", report=report, home=shown.home)
    with opened(1100, 1250) as page:
        page.goto(report.as_uri())
        page.wait_for_timeout(1000)
        page.evaluate(WITHOUT, f"{shown.folder}/")
        page.screenshot(path=DOCS / "report.png")


def write_digits(data: Path, folder: Path) -> None:
    """The first 2,000 test images of MNIST as files, and two files that are damaged."""
    for i, image in enumerate(load_dataset("mnist", str(data)).files["test"].images[:2000]):
        save_digit(image, folder / f"{i // 1000:03}/{i:06}.png")
    (folder / "001/truncated.png").write_bytes((folder / "001/001999.png").read_bytes()[:150])
    (folder / "001/text.png").write_text("no picture")


def take_review(shown: Shown) -> None:
    """Pictures of the page that `anomaly-ae review` serves, of photos that were scored, some of them marked."""
    shutil.copytree(shown.data / "cookies/test", shown.folder / "new-photos")
    run_id = shown.cookies.path.name
    anomaly_ae.score(shown.folder / "new-photos", run_id, shown.folder / "scores.parquet", home=shown.home)
    with served(shown, " is at http", "review", "scores.parquet", "--no-browser") as at, opened(1400, 860) as page:
        page.goto(at)
        page.locator("#sort").select_option("random")
        page.wait_for_timeout(1000)
        page.locator(".card").first.click()
        for _ in range(20):  # by their folders, as whoever looks would by what they see
            before = page.locator("#name").text_content() or ""
            while page.locator("#name").text_content() == before:  # a picture that is not there yet is not marked
                page.keyboard.press("g" if before.startswith("good") else "b")
                page.wait_for_timeout(2000)  # long enough that none is marked by the key of the one before
        while not (page.locator("#name").text_content() or "").startswith("cracked"):
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(500)
        page.wait_for_timeout(4000)
        shoot_photos(page, "review-large")
        page.keyboard.press("Escape")
        page.locator("#sort").select_option("nearness")
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(1500)
        shoot_photos(page, "review")


def shoot_photos(page: Page, name: str) -> None:
    """A picture of a page that has photos in it."""
    save_small(Image.open(io.BytesIO(page.screenshot())), DOCS / f"{name}.png")


def save_digit(image: torch.Tensor, path: Path) -> None:
    """Write an image, uint8 (1, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[0].numpy()).save(path)


def copy(path: Path, target: Path) -> None:
    """Copy a file to a folder that need not be there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def draw_region_of_interest(home: RunStore, folder: Path) -> None:
    """A scratched plate on a bench that never looks the same, the mask of where to look, and the heat map."""
    for i in range(41):
        path = folder / "plates" / ("train/good" if i else "test/scratched") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_plate(i).save(path)
    mask = Image.new("L", (320, 240))
    ImageDraw.Draw(mask).rounded_rectangle((102, 62, 217, 157), 14, fill=255)
    mask.save(folder / "mask.png")
    config = RunConfig(dataset=folder / "plates", roi=folder / "mask.png", preset="default")
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


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
