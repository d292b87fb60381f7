"""The names that options take: refused before anything heavy is loaded, and completed by the shell."""

import ast
import os
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import typer

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UnknownName
from anomaly_ae.storage.atomic import expand

DATA_SET = "data set"
PACKAGE = Path(__file__).parents[1]
CATALOGUES = {
    "autoencoder": ("autoencoders/__init__.py", "AUTOENCODERS"),
    "scorer": ("scorers/__init__.py", "SCORERS"),
    "objective": ("objectives/__init__.py", "OBJECTIVES"),
    "augmentation": ("augmentation/transforms.py", "AUGMENTATIONS"),
    DATA_SET: ("datasets/builtin.py", "DATASETS"),
}
NAMED_FIELDS = {"autoencoder": "autoencoder", "scorer": "scorer", "objective": "objective", "augment": "augmentation"}


@cache
def catalogue(kind: str) -> dict[str, str]:
    """The names in a catalogue, each with the first text of its line, which says what it is; read from the source,
    for to import it would take torch along, and seconds.
    """
    file, variable = CATALOGUES[kind]
    words: dict[str, str] = {}  # of constants that stand for a name
    for statement in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign([ast.Name(constant)], ast.Constant(str(word))):
                words[constant] = word
            case ast.AnnAssign(ast.Name(target), _, ast.Dict(keys, lines)) if target == variable:
                names = [words[key.id] if isinstance(key, ast.Name) else ast.literal_eval(key) for key in keys if key]
                return dict(zip(names, map(_first_text, lines), strict=True))
    raise LookupError(f"{file} has no {variable}")


def _first_text(line: ast.expr) -> str:
    """The first text among what a line of a catalogue is made of; empty where there is none."""
    parts = line.args if isinstance(line, ast.Call) else []
    return next((part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)), "")


def named(kind: str, *others: str) -> dict[str, Any]:
    """What an option gets that takes names, several of them joined by `+` or `,`, of a catalogue or these others."""

    def names() -> tuple[str, ...]:
        return (*(catalogue(kind) if kind in CATALOGUES else ()), *others)

    def refuse(context: typer.Context, value: str | None) -> str | None:
        if value and not context.resilient_parsing:
            _check(kind, value, names())
        return value

    def complete(incomplete: str) -> list[str]:
        last = re.split("[+,]", incomplete)[-1]
        return [incomplete.removesuffix(last) + name for name in names() if name.startswith(last)]

    # a folder may be a data set, too, and where it is to be looked for another option says
    return {"autocompletion": complete} | ({} if kind == DATA_SET else {"callback": refuse})


def check_config(config: RunConfig) -> None:
    """Raise `UnknownName` for the first name in a config that no catalogue has, and no folder of pictures."""
    for field, kind in NAMED_FIELDS.items():
        _check(kind, getattr(config, field) or "", catalogue(kind))
    check_dataset(config.dataset, config.data_dir)


def check_dataset(name: str | None, data_dir: str | None) -> None:
    """Raise `UnknownName` for a word that is neither the name of a data set nor a folder's here."""
    places = (Path(), expand(data_dir or os.environ.get("ANOMALY_AE_DATA_DIR") or "data"))
    names = catalogue(DATA_SET)
    if name and name not in names and re.fullmatch(r"[\w-]+", name) and not any((p / name).exists() for p in places):
        raise UnknownName(DATA_SET, name, [*names, "or a folder of pictures"])


def _check(kind: str, value: str, names: Collection[str]) -> None:
    """Raise `UnknownName` for a part of a value, but for its weight as in `0.5*ssim`, that nothing is called by."""
    for part in re.split("[+,]", value):
        name = part.rpartition("*")[2].strip()
        if name and name not in names:
            raise UnknownName(kind, name, names)
