"""YAML files read so that an error can name the line, and nothing is guessed: a value is the text that stands there.

YAML itself would make 8 of `010`, true of `yes` and 750 of `12:30`, which may be names of classes here; what a text
means is for the field to say that it is given to. Only `null`, `~` and nothing at all stand for no value.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from anomaly_ae.errors import StorageError, UsageError, one_line

MOST_BYTES = 2**20
MOST_VALUES = 10_000  # of a file: an alias of aliases may stand for more than there is memory
DEEPEST = 8  # mappings and lists within one another
TEXT, NULL, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "null", "merge"))

Value = str | None | list["Value"]


@dataclass(frozen=True)
class Line:
    """A key and its value; keys of mappings within mappings are joined by dots, e.g. `training.epochs`."""

    key: str
    value: Value
    where: str  # file and line, for messages


class _Loader(yaml.SafeLoader):
    """YAML's grammar without its guesses."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as its parent has it)


_Loader.add_implicit_resolver(NULL, re.compile("(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(MERGE, re.compile("<<$"), ["<"])


def read_lines(path: Path) -> list[Line]:
    """All keys of a YAML file. Raises `StorageError` if it cannot be read, `UsageError` if it is no mapping, or is
    larger or deeper than any that is meant.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise StorageError(f"cannot read the file {path}: {error.strerror}; name a YAML file") from error
    if len(content) > MOST_BYTES:
        raise UsageError(f"{path} has more than the {MOST_BYTES:,} bytes of a file of settings; name another one")
    root = _compose(content, str(path))
    lines = [] if root is None else list(_Walk(path).lines(root, "", DEEPEST))
    seen: dict[str, Line] = {}
    for line in lines:
        if line.key in seen:
            raise UsageError(f"{line.where}: {line.key} was said before; leave one of the two out")
        seen[line.key] = line
    return lines


def read_value(text: str, where: str) -> Value:
    """A value as it would stand in a file. Raises `UsageError`, naming `where`."""
    root = _compose(text, where)
    return None if root is None else _Walk(where).value(root, DEEPEST)


def _compose(content: str | bytes, where: str) -> yaml.Node | None:
    """YAML as nodes, in which nothing is interpreted yet."""
    try:
        root: yaml.Node | None = _Loader(content).get_single_node()
    except RecursionError as error:
        raise UsageError(f"{where}: this is nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{where}{line}: this is not valid YAML ({one_line(error)})") from error
    return root


class _Walk:
    """Goes through nodes, of which one may be met any number of times, and gives up when there are too many."""

    def __init__(self, where: str | Path) -> None:
        self.where, self.seen = where, 0

    def lines(self, node: yaml.Node, prefix: str, deepest: int) -> Iterator[Line]:
        """The leaves below a mapping."""
        self._count(node, deepest)
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{self.where} must hold lines of 'key: value', and does not")
        for key_node, value_node in self._merged(node, deepest):
            key = f"{prefix}{self._text(key_node)}"
            if isinstance(value_node, yaml.MappingNode):
                yield from self.lines(value_node, f"{key}.", deepest - 1)
            else:
                yield Line(key, self.value(value_node, deepest - 1), self._at(key_node))

    def value(self, node: yaml.Node, deepest: int) -> Value:
        """A text, nothing, or a list of these."""
        self._count(node, deepest)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, deepest - 1) for each in node.value]
        return None if node.tag == NULL else self._text(node)

    def _merged(self, node: yaml.MappingNode, deepest: int) -> list[tuple[yaml.Node, yaml.Node]]:
        """Keys and values of a mapping, with those that `<<` brings in where they are not said anew."""
        own = [(key, value) for key, value in node.value if key.tag != MERGE]
        said = {key.value for key, _ in own if isinstance(key, yaml.ScalarNode)}
        brought = []
        for source in (value for key, value in node.value if key.tag == MERGE):
            for each in source.value if isinstance(source, yaml.SequenceNode) else [source]:
                self._count(each, deepest)
                if not isinstance(each, yaml.MappingNode):
                    raise UsageError(f"{self._at(each)}: << takes a mapping, or a list of them")
                for key, value in self._merged(each, deepest - 1):
                    if key.value not in said:
                        said.add(key.value)
                        brought.append((key, value))
        return brought + own

    def _text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in (TEXT, NULL):
            raise UsageError(f"{self._at(node)}: a text, a number or a list of these belongs here, without a tag")
        return str(node.value)

    def _count(self, node: yaml.Node, deepest: int) -> None:
        self.seen += 1
        if deepest == 0 or self.seen > MOST_VALUES:
            what = "nested too deeply" if deepest == 0 else f"more than the {MOST_VALUES:,} values that there may be"
            raise UsageError(f"{self._at(node)}: this is {what}")

    def _at(self, node: yaml.Node) -> str:
        return f"{self.where}, line {node.start_mark.line + 1}" if isinstance(self.where, Path) else self.where
