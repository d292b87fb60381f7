"""Results: dataclasses that become plain JSON, and print in Python and in a notebook as on the command line."""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import singledispatch
from typing import TYPE_CHECKING, Any, TypeVar

from anomaly_ae.escaping import printable_values

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Row = TypeVar("Row", bound=DataclassInstance)


class Columns(dict[str, Any]):
    """Values whose names the data have, as those of classes; in `to_dict` they stand among the fields."""


def to_dict(row: "DataclassInstance") -> dict[str, Any]:
    """The fields of a dataclass by name, and of those in it: what JSON and tables have; of `class_` it is `class`."""
    return dataclasses.asdict(row, dict_factory=_by_name)


def _by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in pairs:
        named |= value if isinstance(value, Columns) else {name.rstrip("_"): value}
    return named


def from_dict(kind: "type[Row]", values: Mapping[str, Any]) -> "Row":
    """A flat dataclass of what `to_dict` made of it: what is no field are its `Columns`; what another version did not
    keep is None.
    """
    others, fields = dict(values), dataclasses.fields(kind)
    own = {each.name: others.pop(each.name.rstrip("_"), None) for each in fields if each.type is not Columns}
    return kind(**own, **{each.name: Columns(others) for each in fields if each.type is Columns})


@singledispatch
def as_text(result: object) -> str:
    """The text of a result on the command line; `reporting.text` registers one for each kind."""
    return repr(result)


@dataclasses.dataclass(frozen=True)
class Printed:
    """A dataclass whose text is that of the command line; `repr` still shows its fields."""

    def to_dict(self) -> dict[str, Any]:
        """The fields, by name; what `--json` prints."""
        return to_dict(self)

    def __str__(self) -> str:
        return as_text(printable_values(self))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """What IPython and Jupyter show."""
        return {"text/plain": str(self)}
