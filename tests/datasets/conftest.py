"""Folders as trees of names, and what is found in them."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomaly_ae.datasets.normal_classes import parse_normal
from anomaly_ae.datasets.picture_layout import PictureLayout
from tests.decoding import decoded_here


@pytest.fixture(scope="package", autouse=True)
def _decoded_here() -> Iterator[None]:
    with decoded_here():
        yield


PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


Tree = dict[
    str, int
]  # how many pictures there are in each folder, called 0.png, 1.png …, or as it says after a colon


def files(tree: Tree) -> list[bytes]:
    """The paths of a tree; `bad:{}_mask.png` are masks of what lies in bad."""
    found = []
    for place, count in tree.items():
        folder, _, name = place.partition(":")
        found += [f"{folder}/{(name or '{}.png').format(i)}".lstrip("/").encode() for i in range(count)]
    return found


def summary(layout: PictureLayout) -> str:
    """What was found, normal classes with a plus: `train +good 6; test bad 2; masks 2; left out 1`."""
    normal = {layout.classes[i] for i in parse_normal(layout.normal, layout.classes)} if layout.normal else set()
    parts = [
        f"{file} {'+' * (name in normal)}{name} {count}"
        for file, (_, labels) in layout.files.items()
        for name, count in sorted(Counter(layout.classes[label] for label in labels).items())
    ]
    parts += [f"masks {masks}"] if (masks := sum(map(len, layout.masks.values()))) else []
    parts += [f"left out {count}"] if (count := sum(map(len, layout.left_out.values()))) else []
    return "; ".join(parts)


def make(root: Path, tree: Tree) -> Path:
    for name in files(tree):
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    return root
