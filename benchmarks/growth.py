"""How time and memory of commands grow with the images.

    python benchmarks/growth.py              # 1,000, 10,000 and 60,000 images
    python benchmarks/growth.py 1000 600000  # so many; each can be measured by itself
    python benchmarks/growth.py --preset default 10000

Digits that are bundled, each turned, slanted, bent, thickened and shaded in its own way and with noise of its own, so
that none counts as a copy of another, as PNGs of 28×28 in a folder: so many normal ones, and a tenth as many upside
down. They are trained on, evaluated and scored by one command each. Printed are the seconds from command to
exit and the most memory that a process held, and what a further image cost against the next smaller number, which has
no start of the program in it. What was measured is kept, by preset and number, in benchmarks/results/growth.md and
.json, beside what lies there. How to read it: benchmarks/README.md.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import training
from PIL import Image
from torch import Tensor
from torch.nn import functional

from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.runtime.tables import markdown_table, plain_table

RESULTS = Path(__file__).resolve().parent / "results" / "growth"
SIZES, SIDE, SHARE_OF_ANOMALIES = (1_000, 10_000, 60_000), 28, 0.1
AT_ONCE = 10_000  # images that are made at a time
COMMANDS = ("train", "evaluate", "score")
Costs = dict[str, tuple[float, float]]  # seconds and megabytes of each command
Row = dict[str, object]


def digits(count: int, seed: int) -> Tensor:
    """Digits no two of which are alike, uint8 (count, 1, 28, 28)."""
    draw = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *size, generator=draw)

    bundled = load_dataset("digits").files["train"].images
    chosen = bundled[torch.randint(len(bundled), (count,), generator=draw)] / 255
    angle, slant, smaller = between(-20, 20).deg2rad(), between(-0.3, 0.3), between(1.1, 1.4, 1, 1)
    turned = torch.stack([angle.cos(), slant - angle.sin(), angle.sin(), angle.cos()], dim=1).view(count, 2, 2)
    where = torch.cat([smaller * turned, between(-0.15, 0.15, 2, 1)], dim=2)  # (count, 2, 3)
    grid = functional.affine_grid(where, [count, 1, SIDE, SIDE], align_corners=False)
    bends = functional.interpolate(between(-0.15, 0.15, 2, 5, 5), SIDE, mode="bicubic")
    drawn = functional.grid_sample(chosen, grid + bends.permute(0, 2, 3, 1), align_corners=False)
    edge, ink, paper = between(0.25, 0.55, 1, 1, 1), between(0.6, 1, 1, 1, 1), between(0, 0.15, 1, 1, 1)
    strokes = torch.sigmoid(12 * (drawn - edge))  # the lower the edge, the wider the strokes
    noise = 0.03 * torch.randn(strokes.shape, generator=draw)
    return (255 * (paper + (ink - paper) * strokes + noise)).clamp(0, 255).to(torch.uint8)


def make_images(folder: Path, count: int, seed: int, turned: bool) -> None:
    """So many digits as PNGs, upside down or not."""
    folder.mkdir()
    for first in range(0, count, AT_ONCE):
        some = digits(min(AT_ONCE, count - first), seed + first)
        for i, image in enumerate(some.flip(2) if turned else some, first):
            Image.fromarray(image[0].numpy()).save(folder / f"{i:07}.png", compress_level=1)


def costs(count: int, preset: str) -> Costs:
    """Of a training on so many normal images, its evaluation, and the scoring of the same images."""
    with tempfile.TemporaryDirectory() as place:
        pictures = Path(place) / "pictures"
        pictures.mkdir()
        make_images(pictures / "good", count, 0, turned=False)
        make_images(pictures / "bad", max(1, round(SHARE_OF_ANOMALIES * count)), 1, turned=True)
        told = (
            ["--dataset", str(pictures), "--preset", preset, "--device", "cpu", "--no-figures"],
            ["--no-figures"],
            [str(pictures / "good"), "--output", "scores.parquet"],
        )
        pairs = zip(COMMANDS, told, strict=True)
        return {name: training.command([name, *words], place) for name, words in pairs}


def rows(kept: dict[str, dict[str, Costs]]) -> list[Row]:
    """A row for each preset, command and number of images, ascending."""
    return [
        row
        for preset, by_count in sorted(kept.items())
        for name in COMMANDS
        for row in growth(preset, name, sorted((int(count), *each[name]) for count, each in by_count.items()))
    ]


def growth(preset: str, name: str, measured: Sequence[tuple[int, float, float]]) -> list[Row]:
    """Rows of one command, by images, seconds and megabytes, each but the first beside the one before it."""
    found = list[Row]()
    for i, (count, seconds, megabytes) in enumerate(measured):
        row: Row = {"preset": preset, "command": name, "images": f"{count:,}", "seconds": f"{seconds:.1f}"}
        row |= {
            "ms an image": f"{1_000 * seconds / count:.2f}",
            "ms a further image": "",
            "peak MB": f"{megabytes:,.0f}",
        }
        row["KB a further image"] = ""
        if i:
            fewer, sooner, less = measured[i - 1]
            row["ms a further image"] = f"{1_000 * (seconds - sooner) / (count - fewer):.2f}"
            row["KB a further image"] = f"{1_024 * (megabytes - less) / (count - fewer):.1f}"
        found.append(row)
    return found


def main() -> None:
    """Measure what was asked for, keep it, and print all that is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=int, default=SIZES, help="how many normal images")
    parser.add_argument("--preset", default="fast", help="of the training")
    asked = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    table = RESULTS.with_suffix(".json")
    kept = json.loads(table.read_text()) if table.exists() else {"costs": {}}
    for count in asked.images:
        kept["machine"] = training.described()
        kept["costs"].setdefault(asked.preset, {})[str(count)] = costs(count, asked.preset)
        table.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    found = rows(kept["costs"])
    machine = ", ".join(f"{key} {value}" for key, value in kept["machine"].items())
    page = ["# What benchmarks/growth.py measured", f"The last on: {machine}", markdown_table(found)]
    RESULTS.with_suffix(".md").write_text("\n\n".join(page) + "\n")
    print("\n".join(plain_table(found)))


if __name__ == "__main__":
    main()
