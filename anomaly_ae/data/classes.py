"""What `--normal` says: `0,1,2`, ranges `0-4`, class names, `all-but:7`, and `all`."""

import re
from collections.abc import Sequence

from anomaly_ae.errors import UnknownName, UsageError

ALL, ALL_BUT = "all", "all-but:"
FORMS = "give e.g. --normal 0,1,2, --normal 0-4, --normal all-but:7 or --normal all"


def parse_normal(text: str, classes: Sequence[str]) -> tuple[int, ...]:
    """The positions in `classes` of the classes that `text` calls normal, ascending.

    `all` is for those who want the autoencoder and have nothing to detect: no other word may name every class.
    Raises `UsageError` for a class that does not exist, for none at all and for all of them.
    """
    body = text.strip()
    if not body:
        known, first = ", ".join(classes), classes[0]
        raise UsageError(
            f"--normal is needed: it names the classes that are normal, of {known}; give e.g. --normal {first}, "
            f"--normal {ALL_BUT}{first} or --normal {ALL}"
        )
    if body.lower() == ALL:
        return tuple(range(len(classes)))
    but = body.lower().startswith(ALL_BUT)
    whole = [i for i, name in enumerate(classes) if name.lower() == body.lower()]  # a name may have a comma in it
    named = set(whole) or _positions(body[len(ALL_BUT) :] if but else body, classes)
    if not named:
        raise UsageError(f"--normal names no class, and was given {text!r}; {FORMS}")
    normal = set(range(len(classes))) - named if but else named
    if len(normal) == len(classes):
        raise UsageError(
            f"--normal {text} calls all {len(classes)} classes normal, so nothing is left to detect; "
            f"if that is meant, write --normal {ALL}"
        )
    if not normal:
        raise UsageError(f"--normal {text} leaves no class that is normal; {FORMS}")
    return tuple(sorted(normal))


def _positions(text: str, classes: Sequence[str]) -> set[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return {position for part in parts for position in _part(part, classes)}


def _part(part: str, classes: Sequence[str]) -> range:
    """The positions of one part between commas: a name, a number or a range of numbers."""
    names = [name.lower() for name in classes]
    if part.lower() in names:
        position = names.index(part.lower())
        return range(position, position + 1)
    if not (numbers := re.fullmatch(r"(\d+)(?:-(\d+))?", part)):
        raise UnknownName("class", part, classes)
    first, last = int(numbers[1]), int(numbers[2] or numbers[1])
    if last < first:
        raise UsageError(f"the range {part} runs backwards; write {last}-{first}")
    if last >= len(classes):
        raise UsageError(f"there is no class {last}; the classes are 0 to {len(classes) - 1}: {', '.join(classes)}")
    return range(first, last + 1)
