"""Names that something had before, and is still found by; whoever uses one reads what it is called now."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from anomaly_ae.runtime.messages import warn_once

F = TypeVar("F", bound=Callable[..., Any])

FUNCTIONS = {"run_plan": "run_pipeline"}
SETTINGS = {"fit": "resize_mode", "top_share": "top_fraction"}  # of a training
KEYS = {"beside": "compare_scorers"}  # of a pipeline file


def say_renamed(old: str, new: str) -> None:
    """Say what is called otherwise now, once."""
    warn_once(f"{old} is called {new} now; the old name goes on to work")


def current(name: str, renamed: dict[str, str]) -> str:
    """The name of today of what may be called as it was before, which is said then."""
    if name in renamed:
        say_renamed(name, renamed[name])
    return renamed.get(name, name)


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the package kept itself, by the names of today; nobody need be told."""
    return {SETTINGS.get(name, name): value for name, value in settings.items()}


def renamed_arguments(**renamed: str) -> Callable[[F], F]:
    """Decorate a function that takes arguments by the names that they had before, too: `old="new"`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            return function(*arguments, **{current(name, renamed): value for name, value in named.items()})

        return cast("F", call)

    return decorate
