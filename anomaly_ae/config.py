"""One frozen `RunConfig`: what a training is asked to do. A flag and a YAML key are the same field."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from anomaly_ae.errors import StorageError, UnknownName, UsageError, one_line

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16")


def _number(low: float, high: float = math.inf, *, text: str) -> dict[str, Any]:
    """Metadata of a field whose value lies in [low, high]; `text` is that range in words."""
    return {"low": low, "high": high, "range": text}


@dataclass(frozen=True)
class RunConfig:
    """All settings of one training; what is not said has a default that works.

    Raises `UsageError`, naming everything that is wrong at once, when a value is out of its range.
    """

    normal: str = ""  # classes that are normal: "0,1,2", "0-4", "all-but:7"
    dataset: str = "digits"
    data_dir: str | None = None  # where data sets lie; None: ANOMALY_AE_DATA_DIR, else ./data
    autoencoder: str = "conv"
    latent: int = field(default=12, metadata=_number(1, 65_536, text="from 1 to 65536"))
    objective: str = "mse"
    scorer: str = "relative+latent-knn"
    target_fpr: float = field(default=0.05, metadata=_number(1e-9, 0.999, text="above 0 and below 1"))
    # None: as many epochs as come nearest to training.STEPS optimiser steps
    epochs: int | None = field(default=None, metadata=_number(1, 1_000_000, text="1 or more"))
    patience: int = field(default=20, metadata=_number(1, text="1 or more"))  # epochs without a better one
    batch_size: int = field(default=128, metadata=_number(2, 1_048_576, text="2 or more"))
    learning_rate: float = field(default=4e-3, metadata=_number(1e-12, 100, text="above 0"))
    weight_decay: float = field(default=1e-4, metadata=_number(0, 100, text="0 or more"))
    precision: str = field(default="float32", metadata={"choices": PRECISIONS})
    seed: int = field(default=0, metadata=_number(0, 2**31 - 1, text="from 0 to 2147483647"))
    device: str = field(default="auto", metadata={"choices": DEVICES})
    experiment: str = field(default="anomaly-ae", metadata={"blank": False})

    def __post_init__(self) -> None:
        wrong = [problem for f in fields(self) if (problem := _problem(f, getattr(self, f.name)))]
        if wrong:
            raise UsageError("; ".join(wrong))

    @classmethod
    def build(cls, *layers: Mapping[str, Any]) -> "RunConfig":
        """Merge layers of settings, the later ones over the earlier.

        Raises `UnknownName` for a key that is no setting, `UsageError` for a value of the wrong type or range.
        """
        merged: dict[str, Any] = {}
        for key, value in (item for layer in layers for item in layer.items()):
            name = str(key).replace("-", "_")
            if name not in TYPES:
                raise UnknownName("setting", str(key), TYPES)
            merged[name] = _convert(name, value)
        return cls(**merged)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return dataclasses.asdict(self)


TYPES: dict[str, Any] = typing.get_type_hints(RunConfig)


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises `StorageError` if it cannot be read, `UsageError` if it is no mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read the config file {path}: {error.strerror}; name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{where}: this is not valid YAML ({one_line(error)})") from error
    if not isinstance(content, dict | None):
        raise UsageError(f"{path} must hold lines of 'key: value', and does not")
    return content or {}


def parse_setting(text: str) -> tuple[str, str]:
    """Split `KEY=VALUE`. Raises `UsageError` when there is no `=`."""
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise UsageError(f"--set takes KEY=VALUE, and was given {text!r}; e.g. --set weight_decay=0.001")
    return key, value


def _convert(name: str, value: Any) -> Any:
    """Bring a value from a flag, `--set` or YAML to the type of the field `name`. Raises `UsageError`."""
    kinds = typing.get_args(TYPES[name]) if isinstance(TYPES[name], types.UnionType) else (TYPES[name],)
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
        if types.NoneType in kinds:
            return None
        raise UsageError(f"{name} needs a value")
    kind = kinds[0]
    try:
        if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
            raise ValueError
        return ",".join(map(str, value)) if kind is str and isinstance(value, list) else kind(value)
    except (TypeError, ValueError) as error:
        wanted = {int: "a whole number", float: "a number", str: "text"}[kind]
        raise UsageError(f"{name} must be {wanted}, and is {value!r}") from error


def _problem(f: "dataclasses.Field[Any]", value: Any) -> str | None:
    """What is wrong with a field's value, or None."""
    rule = f.metadata
    if "choices" in rule and value not in rule["choices"]:
        return f"{f.name} must be one of {', '.join(rule['choices'])}, and is {value!r}"
    if "blank" in rule and not str(value).strip():
        return f"{f.name} must not be empty"
    if "low" in rule and value is not None and not rule["low"] <= value <= rule["high"]:
        return f"{f.name} must be {rule['range']}, and is {value}"
    return None
