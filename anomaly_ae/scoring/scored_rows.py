"""The rows of a scored folder, read back from whatever file `writers` made of them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from anomaly_ae.errors import DataDamaged, DataMissing, UsageError, one_line
from anomaly_ae.escaping import plain_csv_text
from anomaly_ae.scoring.row_paths import path_of
from anomaly_ae.scoring.writers import PARQUET_ENDINGS, WRITERS

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS_READ = ("path", "score", "threshold", "error", "path_bytes")
REGIONS = "regions"  # a column that rows of before lack


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """What was made of each file, in the order of the rows.

    paths:     within the source, as bytes
    scores:    float32 (N,), NaN where there is an error
    errors:    of the files that have no score, by position
    threshold: by which the verdicts were made; None where no file has a score
    regions:   of each file as `read_regions` takes them
    """

    paths: list[bytes]
    scores: npt.NDArray[np.float32]
    errors: dict[int, str]
    threshold: float | None
    regions: list[str | None]

    @cached_property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Which files have a score, (N,)."""
        return np.isfinite(self.scores)

    @classmethod
    def read(cls, output: Path) -> "ScoredRows":
        """Raises `DataMissing` where there is none, `UsageError` and `DataDamaged` where it is another file."""
        if output.suffix.lower() not in WRITERS:
            raise UsageError(f"scores lie in a file that ends in {', '.join(WRITERS)}, and {output} was named")
        if not output.is_file():
            raise DataMissing(f"there are no scores in {output}; score a folder first, or name another file")
        try:
            table = _read_table(output)
        except (OSError, ValueError) as error:  # pyarrow's own errors are both
            raise DataDamaged(f"{output} cannot be read ({one_line(error)}); score the folder again") from error
        if missing := [name for name in COLUMNS_READ if name not in table.column_names]:
            raise UsageError(f"{output} holds no scores: it has no column {missing[0]}")
        if table["path"].null_count or sum(table[name].null_count for name in ("score", "error")) > len(table):
            raise UsageError(f"{output} holds no scores: some rows have no path, or neither a score nor an error")
        return cls._of(table)

    @classmethod
    def _of(cls, table: "pa.Table") -> "ScoredRows":
        paths = list(map(path_of, table["path"].to_pylist(), table["path_bytes"].to_pylist()))
        errors = {i: text for i, text in enumerate(table["error"].to_pylist()) if text is not None}
        scores = np.asarray(table["score"].cast("float64").fill_null(np.nan).to_numpy(), np.float32)
        known = table["threshold"].drop_null()
        regions = table[REGIONS].to_pylist() if REGIONS in table.column_names else [None] * len(table)
        return cls(paths, scores, errors, float(np.float32(known[0].as_py())) if len(known) else None, regions)


def _read_table(output: Path) -> "pa.Table":
    """The columns that are needed, texts as texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv, json

    texts = dict.fromkeys(("path", "error", "path_bytes", REGIONS), pa.string())
    numbers = dict.fromkeys(("score", "threshold"), pa.float64())
    if output.suffix.lower() in PARQUET_ENDINGS:
        schema = pq.read_schema(output)
        names = [name for name in (*COLUMNS_READ, REGIONS) if name in schema.names]
        return pq.read_table(output, columns=names, use_threads=False)
    if output.suffix.lower() == ".jsonl":
        schema = pa.schema([*(texts | numbers).items()])
        options = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        return json.read_json(output, json.ReadOptions(use_threads=False), options)
    options = csv.ConvertOptions(
        column_types=texts | numbers, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    parsing = csv.ParseOptions(newlines_in_values=True)
    table = csv.read_csv(output, csv.ReadOptions(use_threads=False), parsing, options)
    for name in {"path", "error"}.intersection(table.column_names):
        plain = [None if text is None else plain_csv_text(text) for text in table[name].to_pylist()]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(plain, pa.string()))
    return table
