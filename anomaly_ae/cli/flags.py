"""How settings are said on the command line: as flags, or by `--set` those that have none."""

from collections.abc import Sequence
from typing import Any

from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.renamed import current
from anomaly_ae.runtime.spelling import in_shell

WITHOUT_A_FLAG = (
    *("batch_norm", "channels", "contamination", "defects", "dropout", "masked", "noise", "patience", "perceptual"),
    *("precision", "schedule", "steps", "top_fraction", "weight_decay"),
)


def as_flag(name: str, value: Any = None) -> str:
    """A setting as the command line takes it; `overrides` are those of a pipeline file, as KEY=VALUE."""
    if name == "overrides":
        return in_shell("set", value)
    if name in WITHOUT_A_FLAG:
        return in_shell("set", name if value is None else f"{name}={value}")
    return in_shell(name, value)


def parse_setting(text: str) -> tuple[str, str]:
    """Split `KEY=VALUE`. Raises `UsageError` when there is no `=`."""
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise UsageError(f"--set takes KEY=VALUE, and was given {text!r}; e.g. --set weight_decay=0.001")
    return key, value


# Flags that had another name before, by which they are still taken
RENAMED = {"--beside": "--compare-scorers", "--fit": "--resize-mode"}


def with_current_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, with flags as they are called today."""
    split = (argument.partition("=") for argument in arguments)
    return [current(flag, RENAMED) + equals + value for flag, equals, value in split]
