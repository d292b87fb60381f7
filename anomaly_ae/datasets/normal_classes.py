"""What the setting `normal` says: `0,1,2`, ranges `0-4`, class names, `all-but:7`, and `all`."""

import re
import unicodedata
from collections.abc import Sequence

from anomaly_ae.errors import UnknownName, UsageError
from anomaly_ae.images.folder_words import same_class
from anomaly_ae.runtime.spelling import setting

ALL_CLASSES, ALL_BUT = "all", "all-but:"


def parse_normal(text: str, classes: Sequence[str]) -> tuple[int, ...]:
    """The indices in `classes` of the classes that `text` calls normal, ascending.

    A name goes before whatever else it could mean. Numbers and ranges are names where any class is called by a
    number, and indices where none is. `all` is for those who want the autoencoder and have nothing to detect: no
    other word may name every class, unless there is but one.
    Raises `UsageError` for a class that does not exist, for none at all and for all of them.
    """
    body = text.strip()
    if not body:
        first = classes[0]
        raise UsageError(
            f"{setting('normal')} is needed: it names the classes that are normal, of {', '.join(classes)}; "
            f"{_examples(first, f'{ALL_BUT}{first}')}"
        )
    if (whole := _named(body, classes)) is not None:
        return (whole,)
    if body.lower() == ALL_CLASSES:
        return tuple(range(len(classes)))
    but = body.lower().startswith(ALL_BUT)
    named = _indices(body[len(ALL_BUT) :] if but else body, classes)
    if not named:
        raise UsageError(f"{setting('normal')} names no class, and was given {text!r}; {_examples()}")
    normal = set(range(len(classes))) - named if but else named
    if len(normal) == len(classes) > 1:
        raise UsageError(
            f"{setting('normal', text)} calls all {len(classes)} classes normal, so nothing is left to detect; "
            f"if that is meant, write {setting('normal', ALL_CLASSES)}"
        )
    if not normal:
        raise UsageError(f"{setting('normal', text)} leaves no class that is normal; {_examples()}")
    return tuple(sorted(normal))


def _indices(text: str, classes: Sequence[str]) -> set[int]:
    """The indices of what stands between commas; a name may have some in it."""
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        return set()
    indices = set[int]()
    while parts:
        joined = [",".join(parts[:end]) for end in range(len(parts), 1, -1)]
        longest = next((name for name in joined if _named(name, classes) is not None), parts[0])
        if not longest:
            raise UsageError(
                f"{setting('normal')} was given {text!r}, with nothing between two commas or after one; {_examples()}"
            )
        indices.update(_part(longest, classes))
        del parts[: longest.count(",") + 1]
    return indices


def _part(part: str, classes: Sequence[str]) -> Sequence[int]:
    """The indices of a name, a number or a range of numbers."""
    if (position := _named(part, classes)) is not None:
        return [position]
    if not (numbers := re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", part)):
        raise UnknownName("class", part, classes)
    first, last = int(numbers[1]), int(numbers[2] or numbers[1])
    if last < first:
        raise UsageError(f"the range {part} runs backwards; write {last}-{first}")
    names = {i: int(name) for i, name in enumerate(classes) if re.fullmatch("[0-9]+", name)}
    if names and not numbers[2]:
        raise UsageError(f"there is no class {part}; the classes are {', '.join(classes)}")
    by_number = names or {i: i for i in range(len(classes))}
    if missing := [number for number in (first, last) if number not in by_number.values()]:
        range_words = "called" if names else f"0 to {len(classes) - 1}:"
        raise UsageError(f"there is no class {missing[0]}; the classes are {range_words} {', '.join(classes)}")
    return [i for i, number in by_number.items() if first <= number <= last]


def _named(name: str, classes: Sequence[str]) -> int | None:
    """The position of the class with a name, written so or, where one alone is meant, with other capitals."""
    same = [i for i, each in enumerate(classes) if same_class(each) == same_class(name)]
    exact = [i for i in same if unicodedata.normalize("NFC", classes[i]) == unicodedata.normalize("NFC", name)]
    if len(same) > 1 and not exact:
        raise UsageError(
            f"{setting('normal', name)} may mean {' or '.join(classes[i] for i in same)}; write it as it is"
        )
    return next(iter(exact or same), None)


def _examples(*texts: str) -> str:
    """What to give: what stands in `texts`, or usual forms, or all classes."""
    examples = [setting("normal", text) for text in texts or ("0,1,2", "0-4", f"{ALL_BUT}7")]
    return f"give e.g. {', '.join(examples)} or {setting('normal', ALL_CLASSES)}"
