"""Results that print in Python and in a notebook as they do on the command line."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from anomaly_ae.escaping import printable_values


class _Printer(Protocol):
    def text(self, text: str) -> None: ...


class Printed:
    """A dataclass whose text is that of the command line; `repr` still shows its fields.

    _text: what makes the text of the fields, by name
    """

    _text: ClassVar["staticmethod[[Mapping[str, Any]], str]"]

    def to_dict(self) -> dict[str, Any]:
        """The fields, by name; what `--json` prints."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    def __str__(self) -> str:
        return self._text(printable_values(self.to_dict()))

    def _repr_pretty_(self, printer: _Printer, cycle: bool) -> None:
        """What IPython and Jupyter show."""
        printer.text(str(self))
