"""Boxes in shares of a picture, as they are written: x,y,w,h, several joined by +. Needs nothing else, so that
processes that only decode start quickly.
"""

import re
from collections.abc import Sequence

DECIMAL = r"\s*-?(?:\d+\.?\d*|\.\d+)(?:e-?\d{1,2})?\s*"
BOXES = re.compile(rf"{DECIMAL}(?:,{DECIMAL})+(?:\+{DECIMAL}(?:,{DECIMAL})+)*", re.IGNORECASE)  # or meant to be some
SLACK = 1e-6  # of a share that is written with few digits


def boxes_of(text: str) -> list[tuple[float, ...]]:
    """The numbers of each box in a text that `BOXES` matches."""
    return [tuple(float(number) for number in box.split(",")) for box in text.split("+")]


def are_boxes(boxes: Sequence[tuple[float, ...]]) -> bool:
    """Whether there are any, and all are left, top, width and height of some part of a picture, in shares of it."""
    are_four = bool(boxes) and all(len(box) == 4 for box in boxes)
    return are_four and all(
        min(x, y) >= 0 and min(w, h) > 0 and max(x + w, y + h) <= 1 + SLACK for x, y, w, h in boxes
    )
