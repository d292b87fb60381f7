"""How a folder of pictures is arranged, found out from the paths in it alone."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from anomaly_ae.data.classes import ALL
from anomaly_ae.errors import DataError

TRAIN, TEST, MASKS = "train", "test", "ground_truth"
NORMAL = "normal"  # the class of pictures that lie in no folder of their own
NORMAL_NAMES = ("good", NORMAL, "ok", "nominal", "intact")
MASK_ENDING = re.compile(r"(_mask)?\.[^.]*$")

Parts = tuple[str, ...]  # of a path


@dataclass(frozen=True)
class Layout:
    """What each picture is.

    about:   the arrangement, in words
    classes: names, in order
    files:   "train", and "test" where there is one: positions of the pictures among the paths, and of their classes
    masks:   by the position of a picture, that of its mask
    normal:  what is normal unless something else is said; None where that cannot be known
    unused:  pictures that are neither
    """

    about: str
    classes: tuple[str, ...]
    files: dict[str, tuple[list[int], list[int]]]
    normal: str | None
    masks: dict[int, int] = field(default_factory=dict)
    unused: int = 0


def find_layout(paths: Sequence[bytes]) -> Layout:
    """The layout of pictures at these paths: MVTec's (train/good, test/<kind>, ground_truth/<kind>/*_mask.png), a
    folder for each class, or all in one folder.

    Raises `DataError` when pictures lie both beside and in folders, so that their classes cannot be known.
    """
    split = [tuple(path.decode("utf-8", "backslashreplace").split("/")) for path in paths]
    tops = {parts[0].lower() for parts in split if len(parts) > 1}
    if TRAIN in tops or (TEST in tops and tops <= {TEST, MASKS}):
        return _divided(split)
    beside = sum(len(parts) == 1 for parts in split)
    if beside == len(split):
        return Layout("all pictures in one folder", (NORMAL,), {TRAIN: (list(range(len(split))), [0] * beside)}, ALL)
    if beside:
        folders = ", ".join(sorted({parts[0] for parts in split if len(parts) > 1})[:3])
        raise DataError(
            f"{beside:,} pictures lie beside the folders {folders}; move them into one, or name one of the folders"
        )
    return _by_class(split)


def _by_class(split: Sequence[Parts]) -> Layout:
    """A folder for each class; what lies deeper belongs to it."""
    classes = _classes(parts[0] for parts in split)
    labels = [classes.index(parts[0]) for parts in split]
    known = [name for name in classes if name.lower() in NORMAL_NAMES]
    files = {TRAIN: (list(range(len(split))), labels)}
    if len(classes) == 1:
        return Layout("one folder of pictures in it", classes, files, ALL)
    return Layout("a folder for each class", classes, files, known[0] if len(known) == 1 else None)


def _divided(split: Sequence[Parts]) -> Layout:
    """Training and test pictures apart, perhaps with masks of the defects."""
    tops = [parts[0].lower() for parts in split]
    names = [parts[1] if len(parts) > 2 else NORMAL for parts in split]
    pictures = [i for i, top in enumerate(tops) if top in (TRAIN, TEST)]
    classes = _classes(names[i] for i in pictures)
    files = {
        file: (chosen, [classes.index(names[i]) for i in chosen])
        for file in (TRAIN, TEST)
        if (chosen := [i for i in pictures if tops[i] == file])
    }
    if TRAIN not in files:  # pictures to measure on, and nothing else
        files = {TRAIN: files[TEST]}
    trained = _classes(classes[label] for label in files[TRAIN][1])
    known = [name for name in trained if name.lower() in NORMAL_NAMES]
    normal = trained[0] if len(trained) == 1 else known[0] if len(known) == 1 else None
    if normal and len(classes) == 1:
        normal = ALL
    masks = _match_masks(
        split, [i for i in pictures if tops[i] == TEST], [i for i, t in enumerate(tops) if t == MASKS]
    )
    unused = len(split) - len(pictures) - sum(top == MASKS for top in tops)
    about = "train and test folders" + (" with masks" if masks else "")
    return Layout(f"{about} (MVTec's layout)" if masks else about, classes, files, normal, masks, unused)


def _match_masks(split: Sequence[Parts], pictures: Iterable[int], masks: Iterable[int]) -> dict[int, int]:
    """The mask of each picture that has one: at the same place, called the same, perhaps with _mask at its end."""
    at = {_stem(split[i]): i for i in masks}
    return {i: at[stem] for i in pictures if (stem := _stem(split[i])) in at}


def _stem(parts: Parts) -> Parts:
    """Where a picture or mask lies, without the first folder and without its ending."""
    return (*parts[1:-1], MASK_ENDING.sub("", parts[-1]))


def _classes(names: Iterable[str]) -> tuple[str, ...]:
    """Names in order; numbers by their value."""
    return tuple(sorted(set(names), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)))


def count_classes(layout: Layout) -> str:
    """How many pictures there are of each class, in words: `train: good 250; test: blowhole 115, good 80`."""
    counted = {file: Counter(layout.classes[label] for label in labels) for file, (_, labels) in layout.files.items()}
    return "; ".join(
        f"{file}: " + ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
        for file, counts in counted.items()
    )
