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
    folder for each class, perhaps with such masks, or all in one folder; also if it lies within one folder more.

    What lies in hidden folders is unused. Raises `DataError` where it cannot be known what pictures are: when they
    lie both beside and in folders, or such a layout within several.
    """
    split = {i: tuple(path.decode("utf-8", "backslashreplace").split("/")) for i, path in enumerate(paths)}
    split = _inside({i: parts for i, parts in split.items() if not any(part[0:1] == "." for part in parts[:-1])})
    tops = {parts[0].lower() for parts in split.values() if len(parts) > 1}
    if (TRAIN in tops and (TEST in tops or tops <= {TRAIN, MASKS})) or (TEST in tops and tops <= {TEST, MASKS}):
        return _divided(split, len(paths))
    pictures = {i: parts for i, parts in split.items() if parts[0].lower() != MASKS or len(parts) == 1}
    _require_known(pictures)
    names = {i: parts[0] if len(parts) > 1 else NORMAL for i, parts in pictures.items()}
    classes = _classes(names.values())
    known = [name for name in classes if name.lower() in NORMAL_NAMES]
    masks = _match_masks(pictures, {i: parts[1:] for i, parts in split.items() if i not in pictures})
    return Layout(
        about="all pictures in one folder" if len(classes) == 1 else "a folder for each class",
        classes=classes,
        files={TRAIN: (list(names), [classes.index(name) for name in names.values()])},
        normal=ALL if len(classes) == 1 else known[0] if len(known) == 1 else None,
        masks=masks,
        unused=len(paths) - len(split),
    )


def _inside(split: dict[int, Parts]) -> dict[int, Parts]:
    """The paths within the one folder they all lie in, if that holds a layout of several parts."""
    tops = {parts[0] for parts in split.values()}
    inner = {parts[1].lower() for parts in split.values() if len(parts) > 2}
    if len(tops) != 1 or not inner & {TRAIN, TEST, MASKS}:
        return split
    return {i: parts[1:] for i, parts in split.items()}


def _require_known(pictures: dict[int, Parts]) -> None:
    """Raise `DataError` when pictures lie beside folders, or layouts within several folders."""
    folders = sorted({parts[0] for parts in pictures.values() if len(parts) > 1})
    beside = sum(len(parts) == 1 for parts in pictures.values())
    if beside and folders:
        raise DataError(
            f"{beside:,} pictures lie beside the folders {', '.join(folders[:3])}; move them into one, or name one "
            "of the folders"
        )
    within = {parts[0] for parts in pictures.values() if {part.lower() for part in parts[1:-1]} & {TRAIN, MASKS}}
    if within:
        raise DataError(f"the folders {', '.join(sorted(within)[:3])} hold a data set each; name one of them")


def _divided(split: dict[int, Parts], paths: int) -> Layout:
    """Training and test pictures apart, perhaps with masks of the defects; unlabelled test pictures are unused."""
    places = {i: parts[0].lower() for i, parts in split.items()}
    pictures = {i: split[i] for i, top in places.items() if top == TRAIN or (top == TEST and len(split[i]) > 2)}
    named = _one_normal({i: parts[1] if len(parts) > 2 else NORMAL for i, parts in pictures.items()}, places)
    classes = _classes(named.values())
    files = {
        file: (chosen, [classes.index(named[i]) for i in chosen])
        for file in (TRAIN, TEST)
        if (chosen := [i for i in pictures if places[i] == file])
    }
    if TRAIN not in files:  # pictures to measure on, and nothing else
        files = {TRAIN: files[TEST]}
    trained = _classes(classes[label] for label in files[TRAIN][1])
    known = [name for name in trained if name.lower() in NORMAL_NAMES]
    normal = trained[0] if len(trained) == 1 else known[0] if len(known) == 1 else None
    masked = {i: split[i][1:] for i, top in places.items() if top == MASKS}
    masks = _match_masks({i: parts[1:] for i, parts in pictures.items() if places[i] == TEST}, masked)
    return Layout(
        about=_about(masks, len(masked)),
        classes=classes,
        files=files,
        normal=ALL if normal and len(classes) == 1 else normal,
        masks=masks,
        unused=paths - len(pictures) - len(masked),
    )


def _about(masks: dict[int, int], files: int) -> str:
    if not files:
        return "train and test folders"
    astray = f", of which {files - len(masks):,} fit no test picture" if files > len(masks) else ""
    return f"train and test folders with {files:,} masks (MVTec's layout){astray}"


def _one_normal(named: dict[int, str], places: dict[int, str]) -> dict[int, str]:
    """Class names, with one for what is called good, normal, ok … here and there: that of the training."""
    found = [name for i, name in named.items() if name.lower() in NORMAL_NAMES]
    trained = [name for i, name in named.items() if name.lower() in NORMAL_NAMES and places[i] == TRAIN]
    one = (trained or found or [NORMAL])[0]
    return {i: one if name.lower() in NORMAL_NAMES else name for i, name in named.items()}


def _match_masks(pictures: dict[int, Parts], masks: dict[int, Parts]) -> dict[int, int]:
    """The mask of each picture that has one: at the same place, called the same, perhaps with _mask at its end."""
    at = {_stem(parts): i for i, parts in masks.items() if parts}
    return {i: at[stem] for i, parts in pictures.items() if (stem := _stem(parts)) in at}


def _stem(parts: Parts) -> Parts:
    """Where a picture or mask lies, without its ending."""
    return (*parts[:-1], MASK_ENDING.sub("", parts[-1]))


def _classes(names: Iterable[str]) -> tuple[str, ...]:
    """Names in order; numbers by their value."""
    return tuple(sorted(set(names), key=lambda name: (not _number(name), int(name) if _number(name) else 0, name)))


def _number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def count_classes(layout: Layout) -> str:
    """How many pictures there are of each class, in words: `train: good 250; test: blowhole 115, good 80`."""
    counted = {file: Counter(layout.classes[label] for label in labels) for file, (_, labels) in layout.files.items()}
    return "; ".join(
        f"{file}: " + ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
        for file, counts in counted.items()
    )
