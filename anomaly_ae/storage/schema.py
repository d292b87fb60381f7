"""What files that are read back must hold: JSON by the type hints of dataclasses, tensors by name, type and shape.

    @dataclass(frozen=True)
    class Profile:
        brightness: tuple[Annotated[float, Within(0, 1)], Annotated[float, Within(0, 1)]]

    parse(Profile, {"brightness": [0.1, 0.4]})

A field with a hint is all that a new field needs. What agrees with what is said in `__post_init__`, by a `Mismatch`.
"""

import dataclasses
import json
import math
import re
import struct
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from anomaly_ae.errors import one_line

LARGEST_INTEGER = 2**63 - 1  # what an int64 holds
MOST_JSON = 2**24  # bytes of a file of JSON, and of a safetensors header
DTYPE_BYTES = {"F32": 4, "F64": 8, "I32": 4, "I64": 8, "U8": 1, "BOOL": 1}  # as safetensors calls them
T = TypeVar("T")


class Mismatch(ValueError):
    """A value is not what it must be; the text says which, and what it must be."""


@dataclass(frozen=True)
class Within:
    """Of a number: it lies in [low, high]."""

    low: float = -math.inf
    high: float = math.inf

    def __call__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class OneOf:
    """Of a text: it is one of these words."""

    words: Collection[str]

    def __call__(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Matching:
    """Of a text: a function finds nothing wrong with it; `words` say what it must be."""

    words: str
    fits: Callable[[Any], bool]

    def __call__(self, value: Any) -> bool:
        return self.fits(value)

    def __str__(self) -> str:
        return self.words


Positive = Annotated[int, Within(1, LARGEST_INTEGER)]
Count = Annotated[int, Within(0, LARGEST_INTEGER)]
Side = Annotated[int, Within(1, 2**24)]  # of images, in pixels
Share = Annotated[float, Within(0, 1)]
Digest = Annotated[str, Matching("a SHA-256", lambda text: len(text) == 64 and set(text) <= set("0123456789abcdef"))]
Name = Annotated[str, Matching("a name", lambda text: bool(text.strip()))]


def parse(kind: type[T], value: Any, where: str = "it") -> T:
    """Plain JSON as an object of `kind`: a dataclass with all of its fields and no other, or what its hints can be,
    `int`, `float` (finite), `str`, `bool`, `tuple`, `dict[str, …]`, `… | None`, and `Annotated` with rules.

    where: what the value is called in messages. Raises `Mismatch`.
    """
    return cast(T, _parse(kind, value, where))


def _parse(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        parsed = _parse(arguments[0], value, where)
        for rule in arguments[1:]:
            _require(rule(parsed), where, str(rule), value)
        return parsed
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _parse(next(a for a in arguments if a is not types.NoneType), value, where)
    if origin is tuple:
        return _parse_list(arguments, value, where)
    if origin is dict:
        _require(isinstance(value, dict), where, "a mapping", value)
        return {key: _parse(arguments[1], each, f"{where}.{key}") for key, each in value.items()}
    if dataclasses.is_dataclass(kind):
        return _parse_fields(kind, value, where)
    return _parse_plain(kind, value, where)


def _parse_list(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _require(isinstance(value, list), where, "a list", value)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    _require(len(value) == len(kinds), where, f"a list of {len(kinds)}", value)
    return tuple(_parse(kind, each, f"{where}.{i}") for i, (kind, each) in enumerate(zip(kinds, value, strict=True)))


def _parse_fields(kind: Any, value: Any, where: str) -> Any:
    _require(isinstance(value, dict), where, "a mapping", value)
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    if odd := sorted(value.keys() ^ set(names)):
        raise Mismatch(f"{where}.{odd[0]} is {'missing' if odd[0] in names else 'no part of it'}")
    return kind(**{name: _parse(hints[name], value[name], f"{where}.{name}") for name in names})


def _parse_plain(kind: Any, value: Any, where: str) -> Any:
    words = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}[kind]
    given = (int, float) if kind is float else kind
    fits = isinstance(value, given) and isinstance(value, bool) == (kind is bool)
    if fits and kind in (int, float):
        fits = abs(value) <= LARGEST_INTEGER if isinstance(value, int) else math.isfinite(value)
    if fits and kind is str:
        fits = not re.search("[\\ud800-\\udc7f\\udd00-\\udfff]", value)  # no letters, nor bytes of a file's name
    _require(fits, where, words, value)
    return kind(value)


def _require(fits: bool, where: str, wanted: str, value: Any) -> None:
    if not fits:
        given = repr(value)
        raise Mismatch(f"{where} must be {wanted}, and is {given if len(given) < 60 else given[:60] + '…'}")


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """Plain JSON of a regular file, at most so many bytes of it. Raises `OSError`, and `Mismatch` where it is none or
    ambiguous: a key twice, a number that is none.
    """
    require_regular(path)
    if path.stat().st_size > most:
        raise Mismatch(f"it is larger than {most:,} bytes")
    return parse_json(path.read_bytes())


def parse_json(content: bytes) -> Any:
    """The same of bytes."""
    try:
        return json.loads(content, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 are a `ValueError`, too
        raise Mismatch(one_line(error)) from error


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Mismatch("it has a key twice")
    return found


def _no_constant(word: str) -> None:
    raise Mismatch(f"{word} is no number")


def require_regular(path: Path) -> None:
    """Raise `Mismatch` for what is there but no file, such as a pipe, which would be waited for; `OSError` if nothing
    is there.
    """
    path.stat()
    if not path.is_file():
        raise Mismatch(f"{path.name} is no regular file")


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of a tensor, the type as safetensors calls it.

    shape: a word stands for any number of rows, 1 at the least, the same number wherever it stands
    positive: all of its values must be above 0
    below: they must be whole numbers from 0 on, below this one
    """

    shape: tuple[int | str, ...]
    dtype: str = "F32"
    positive: bool = False
    below: int | None = None


Specs = Mapping[str, TensorSpec]


def prefixed(prefix: str, specs: Specs) -> dict[str, TensorSpec]:
    """The same with `prefix` before each name, and before each word in a shape, which means these tensors alone."""
    return {
        prefix + name: dataclasses.replace(
            spec, shape=tuple(prefix + size if isinstance(size, str) else size for size in spec.shape)
        )
        for name, spec in specs.items()
    }


def read_header(path: Path) -> dict[str, TensorSpec]:
    """What tensors a safetensors file says it has. Raises `OSError`, and `Mismatch` when they are not, one after the
    other, the whole rest of the file.
    """
    require_regular(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))[0]
        if length > min(size - 8, MOST_JSON):
            raise Mismatch("its header is longer than the file")
        about = parse_json(file.read(length))
    _require(isinstance(about, dict), "its header", "a mapping", about)
    entries = {name: parse(_Entry, value, name) for name, value in about.items() if name != "__metadata__"}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        count = math.prod(entry.shape) * DTYPE_BYTES[entry.dtype]
        if entry.data_offsets != (end, end + count):
            raise Mismatch(f"{name} does not lie where its shape says")
        end += count
    if 8 + length + end != size:
        raise Mismatch("it is shorter or longer than its header says")
    return {name: TensorSpec(entry.shape, entry.dtype) for name, entry in entries.items()}


@dataclass(frozen=True)
class _Entry:
    """What a safetensors header says of a tensor."""

    dtype: Annotated[str, OneOf(DTYPE_BYTES)]
    shape: tuple[Count, ...]
    data_offsets: tuple[Count, Count]


def check_tensors(found: Specs, expected: Specs) -> None:
    """Raise `Mismatch` unless exactly the tensors that are expected were found."""
    if odd := sorted(found.keys() ^ expected.keys()):
        raise Mismatch(f"the tensor {odd[0]} is {'missing' if odd[0] in expected else 'no part of it'}")
    sizes: dict[str, int] = {}
    for name, spec in expected.items():
        shape = found[name].shape
        if found[name].dtype != spec.dtype or len(shape) != len(spec.shape):
            raise Mismatch(f"the tensor {name} must be {_words(spec)}, and is {_words(found[name])}")
        for size, wanted in zip(shape, spec.shape, strict=True):
            rows = sizes.setdefault(wanted, max(1, int(size))) if isinstance(wanted, str) else wanted
            if size != rows:
                raise Mismatch(f"the tensor {name} must be {_words(spec)}, and is {_words(found[name])}")


def _words(spec: TensorSpec) -> str:
    return f"{spec.dtype} {'×'.join(map(str, spec.shape)) or 'without dimensions'}"
