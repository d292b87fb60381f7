"""The file of rows: Parquet, CSV or JSON lines, as its name says."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_ae.errors import UsageError
from anomaly_ae.escaping import csv_text

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_ENDINGS = (".parquet", ".pq")


class Writer(ABC):
    """Writes tables with the same columns to a file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")  # by ourselves, for pyarrow takes no names that are not UTF-8
        self.within: Any = None  # what writes into it, once there is a first table

    @abstractmethod
    def write(self, table: "pa.Table") -> None:
        """Add rows."""

    def close(self) -> None:
        with self.file:
            if self.within is not None:
                self.within.close()


class ParquetWriter(Writer):
    def write(self, table: "pa.Table") -> None:
        import pyarrow.parquet as pq

        self.within = self.within or pq.ParquetWriter(self.file, table.schema)
        self.within.write_table(table)


class CsvWriter(Writer):
    def write(self, table: "pa.Table") -> None:
        from pyarrow import csv

        table = _map_texts(table, "path_bytes", bytes.hex)
        for name in (field.name for field in table.schema if str(field.type) == "string"):
            table = _map_texts(table, name, csv_text)
        self.within = self.within or csv.CSVWriter(self.file, table.schema)
        self.within.write_table(table)


class JsonWriter(Writer):
    def write(self, table: "pa.Table") -> None:
        self.file.writelines(map(json_line, json_rows(table)))


WRITERS: dict[str, type[Writer]] = {
    **dict.fromkeys(PARQUET_ENDINGS, ParquetWriter),
    ".csv": CsvWriter,
    ".jsonl": JsonWriter,
}


def json_rows(table: "pa.Table") -> list[dict[str, Any]]:
    """The rows as JSON takes them."""
    return list(_map_texts(table, "path_bytes", bytes.hex).to_pylist())


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def writer_for(output: Path) -> type[Writer]:
    """What writes a file of that name. Raises `UsageError` for another ending, or a folder."""
    kind = WRITERS.get(output.suffix.lower())
    if output.is_dir():
        raise UsageError(f"{output} is a folder; name a file for the rows, as in scores.parquet")
    if kind is None:
        raise UsageError(f"the output is a file that ends in {', '.join(WRITERS)}, and {output} was named")
    return kind


def _map_texts(table: "pa.Table", name: str, change: Callable[[Any], str]) -> "pa.Table":
    """The table with a column as the texts that `change` makes of its values."""
    import pyarrow as pa

    texts = [None if value is None else change(value) for value in table[name].to_pylist()]
    return table.set_column(table.schema.get_field_index(name), name, pa.array(texts, pa.string()))
