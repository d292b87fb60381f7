"""The file of rows: Parquet, CSV or JSON lines, as its name says."""

import json
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_ae.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


class Writer(ABC):
    """Writes tables with the same columns to a file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: Any = None  # what writes to it, once there is a first table

    @abstractmethod
    def write(self, table: "pa.Table") -> None:
        """Add rows."""

    def close(self) -> None:
        if self.open is not None:
            self.open.close()


class ParquetWriter(Writer):
    def write(self, table: "pa.Table") -> None:
        import pyarrow.parquet as pq

        self.open = self.open or pq.ParquetWriter(self.path, table.schema)
        self.open.write_table(table)


class CsvWriter(Writer):
    def write(self, table: "pa.Table") -> None:
        from pyarrow import csv

        table = _as_text(table)
        self.open = self.open or csv.CSVWriter(self.path, table.schema)
        self.open.write_table(table)


class JsonWriter(Writer):
    def write(self, table: "pa.Table") -> None:
        self.open = self.open or self.path.open("w", encoding="utf-8")
        for row in _as_text(table).to_pylist():
            self.open.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


WRITERS: dict[str, type[Writer]] = {
    ".parquet": ParquetWriter,
    ".pq": ParquetWriter,
    ".csv": CsvWriter,
    ".jsonl": JsonWriter,
}


def writer_for(output: Path) -> type[Writer]:
    """What writes a file of that name. Raises `UsageError` for another ending, or a folder."""
    kind = WRITERS.get(output.suffix.lower())
    if kind is None or output.is_dir():
        raise UsageError(f"the output is a file that ends in {', '.join(WRITERS)}, and {output} was named")
    return kind


def _as_text(table: "pa.Table") -> "pa.Table":
    """The true names of files that are no UTF-8 in hexadecimal, since text cannot hold them."""
    import pyarrow as pa

    with suppress(KeyError):
        names = [None if name is None else name.hex() for name in table["path_bytes"].to_pylist()]
        place = table.schema.get_field_index("path_bytes")
        return table.set_column(place, "path_bytes", pa.array(names, pa.string()))
    return table
