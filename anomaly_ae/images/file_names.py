"""What the names of pictures in one folder say of them: which are normal, and of how many kinds they are."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from anomaly_ae.escaping import counted
from anomaly_ae.images.folder_words import sense, stem_of

NORMAL, ANOMALOUS = "normal", "anomalous"  # classes of pictures that no folder tells apart
MOST_ODD = 0.03  # share of pictures that may have names such as bad.png though their folder says nothing
MOST_KINDS, SMALLEST = 4, 2  # of names, and pictures of one
DIGITS = re.compile("([0-9]+)")


def odd_ones(names: Mapping[int, str]) -> tuple[set[int], str, bool]:
    """Of files by their positions: those called anomalous, or, where others are called normal, not called so; what to
    say of them; and whether they are too many to be names that mean nothing.
    """
    said = {i: sense(stem_of(name)) for i, name in names.items()}
    few = MOST_ODD * len(names)
    normal = [i for i in names if said[i] > 0]
    bad = {i for i in names if said[i] < 0}
    others = names.keys() - normal
    if len(normal) > few and others:
        remark = (
            f"{counted(len(normal), 'file name says', 'file names say')} normal, as {min(names[i] for i in normal)}, "
            f"and {counted(len(others), 'does not', 'do not')}, as {min(names[i] for i in others)}"
        )
        return set(others), remark, len(others) > few
    if not bad:
        return bad, "", False
    remark = f"{counted(len(bad), 'file name says', 'file names say')} anomalous, as {min(names[i] for i in bad)}"
    return bad, remark, len(bad) > few


def kinds_of(names: Sequence[str]) -> str:
    """What to say where the names of files are of a few kinds, as `0_#` and `1_#`: numbers are one kind of text, but
    for those that have a few values only. Nothing where they are of one kind, or of many.
    """
    shapes = defaultdict[tuple[str, ...], list[list[str]]](list)
    for name in names:
        parts = DIGITS.split(stem_of(name))
        shapes[tuple(parts[::2])].append(parts)
        if len(shapes) > MOST_KINDS:
            return ""
    kinds = Counter[str]()
    for same in shapes.values():
        values = [set(column) for column in zip(*same, strict=True)]
        few = [len(column) <= min(MOST_KINDS, len(same) // SMALLEST) for column in values]
        kinds.update("".join(part if kept else "#" for part, kept in zip(parts, few, strict=True)) for parts in same)
    if not 1 < len(kinds) <= MOST_KINDS or min(kinds.values()) < SMALLEST:
        return ""
    return "names of files are of the kinds " + ", ".join(f"{kind} ({n:,})" for kind, n in sorted(kinds.items()))
