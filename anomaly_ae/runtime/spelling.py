"""How messages name settings, commands and places. A setting is spelt as whoever reads the message would write it,
which the front end says: in Python `normal="0,1,2"`, on the command line `--normal 0,1,2`. A command is one for a
shell always.
"""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Spelling = Callable[[str, Any], str]  # of a setting's name and its value, None where none is said


def in_python(name: str, value: Any = None) -> str:
    """As an argument of a function."""
    if value is None:
        return name
    return f'{name}="{value}"' if isinstance(value, str) else f"{name}={value!r}"


def in_shell(name: str, value: Any = None) -> str:
    """As a flag: `--again` of True, `--no-tracking` of False, several of a list."""
    if isinstance(value, list):
        return " ".join(in_shell(name, each) for each in value)
    flag = ("--no-" if value is False else "--") + name.replace("_", "-")
    return flag if value is None or isinstance(value, bool) else f"{flag} {shlex.quote(str(value))}"


_spelling: Spelling = in_python


def setting(name: str, value: Any = None) -> str:
    """A setting by name, with a value of it or without, as the front end of this process spells it."""
    return _spelling(name, value)


@contextmanager
def spelt(spelling: Spelling) -> Iterator[None]:
    """Within it, settings are spelt like that."""
    global _spelling
    before, _spelling = _spelling, spelling
    try:
        yield
    finally:
        _spelling = before


def current_spelling() -> Spelling:
    """For another process, which is to spell as this one does."""
    return _spelling


def command(*words: str, **settings: Any) -> str:
    """`anomaly-ae train --normal 0,1,2` of "train" and normal="0,1,2"; settings that are None are left out."""
    flags = [in_shell(name, value) for name, value in settings.items() if value not in (None, [])]
    return " ".join(["anomaly-ae", shlex.join(words), *flags])


def from_here(path: str | Path) -> str:
    """A path as whoever works here would write it: without that of the working folder, where it lies below that."""
    with suppress(ValueError, OSError):  # OSError: the working folder is gone
        return str(Path(path).relative_to(Path.cwd()))
    return str(path)
