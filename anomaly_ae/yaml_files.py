"""YAML files read so that an error can name the line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from anomaly_ae.errors import StorageError, UsageError, one_line


@dataclass(frozen=True)
class Line:
    """A key and its value; keys of mappings within mappings are joined by dots, e.g. `training.epochs`."""

    key: str
    value: Any
    where: str  # file and line, for messages


def read_lines(path: Path) -> list[Line]:
    """All keys of a YAML file. Raises `StorageError` if it cannot be read, `UsageError` if it is no mapping."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        lines = [] if root is None else list(_walk(loader, root, "", path))
    except OSError as error:
        raise StorageError(f"cannot read the file {path}: {error.strerror}; name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else f"{path}"
        raise UsageError(f"{where}: this is not valid YAML ({one_line(error)})") from error
    seen: dict[str, Line] = {}
    for line in lines:
        if line.key in seen:
            raise UsageError(f"{line.where}: {line.key} was said before; leave one of the two out")
        seen[line.key] = line
    return lines


def _walk(loader: yaml.SafeLoader, node: Any, prefix: str, path: Path) -> Iterator[Line]:
    """The leaves below a mapping."""
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{path} must hold lines of 'key: value', and does not")
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        key = prefix + str(loader.construct_object(key_node, deep=True))
        if isinstance(value_node, yaml.MappingNode):
            yield from _walk(loader, value_node, f"{key}.", path)
        else:
            where = f"{path}, line {key_node.start_mark.line + 1}"
            yield Line(key, loader.construct_object(value_node, deep=True), where)
