"""A pipeline file: settings, a matrix of settings to try, and figures published elsewhere to set beside ours.

    name: strided-32                    # else the file's name
    data: {dataset: mnist}              # settings of a training, grouped by part or not
    training: {epochs: 20}
    matrix:                             # every combination is a cell, a run of its own
      normal: [all, "0,1,2"]
    compare_scorers: [pixel-knn, pca]   # further scorers, measured on each cell's network
    published:                          # for the first cell of the matrix
      test_mse_own: 0.0171

or `systems: [one.yaml, other.yaml]`, other pipeline files, whose cells it runs one after the other; settings beside
it override theirs.
"""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_ae.autoencoders import find_autoencoder
from anomaly_ae.config.run_config import (
    LOCATION_FIELDS,
    SETTING_GROUPS,
    RunConfig,
    check_value,
    field_name,
    read_config,
)
from anomaly_ae.datasets.catalogue import require_dataset
from anomaly_ae.errors import DataMissing, UnknownName, UsageError, errors_at
from anomaly_ae.runtime.renamed import KEYS, current
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scorers import build_scorer
from anomaly_ae.storage.atomic import expand, sha256
from anomaly_ae.storage.yaml_files import Line, Value, read_lines, read_value

DataPlace = tuple[str, str | None]  # a data set's name, and where data sets lie
REUSED = ("scorer", "top_fraction", "target_fpr")  # settings that need no other network
NAMED: dict[str, Callable[[str], object]] = {"autoencoder": find_autoencoder, "scorer": build_scorer}
MOST_CELLS, MOST_NESTED = 2_000, 8  # cells, and files that name one another
COMPARED = "compare_scorers"
OWN_KEYS = ("name", "about", "systems", "matrix", COMPARED, "published")
MATRIX, PUBLISHED = "matrix.", "published."
# What can be measured of a cell: errors on [0, 1] or on the system's own scale, losses at an epoch, sizes
MEASURES = (
    *(f"{part}_mse{scale}" for part in ("train", "validation", "test") for scale in ("", "_own")),
    *("encoder_parameters", "decoder_parameters", "auroc", "train_loss@EPOCH", "validation_loss@EPOCH"),
)


@dataclass(frozen=True)
class Cell:
    """One training of a pipeline.

    row:       its line in the comparison: what it is but for its normal classes
    detector:  `row` without the seed
    variant:   `network` without the seed: cells that differ in classes and seed alone are measurements of the same
    network:   what tells its network from the others: `row` without scorer and target rate
    compare_scorers: further ones to measure on its network
    published: figures of its source, for the first cell of a matrix; none where the file's settings were overridden
    """

    name: str
    row: str
    detector: str
    variant: str
    network: str
    config: RunConfig
    published: Mapping[str, float]
    first: bool
    compare_scorers: tuple[str, ...] = ()

    @property
    def data_place(self) -> DataPlace:
        """What it reads."""
        return self.config.dataset, self.config.data_dir

    @property
    def network_settings(self) -> dict[str, Any]:
        """The settings that its network depends on."""
        settings = self.config.filled().to_dict()
        return {key: value for key, value in settings.items() if key not in (*REUSED, "preset")}


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline file that was read."""

    path: Path
    name: str
    about: str
    cells: tuple[Cell, ...]
    figures: bool = True  # whether any are drawn

    def digest(self) -> str:
        """SHA-256 of all that the cells are asked to do; where the data lie is no part of it."""
        cells = [[cell.name, cell.config.to_dict() | {"data_dir": None}, cell.compare_scorers] for cell in self.cells]
        return sha256(json.dumps(cells).encode())


def read_pipeline_file(path: Path, overrides: Sequence[tuple[str, str]] = ()) -> PipelineFile:
    """Read a pipeline file. `overrides` are settings as key and text; one that is in the matrix replaces it there,
    and `compare_scorers` that of every file.

    Raises `StorageError`, and `UsageError` or `UnknownName` naming the file, the line and the right key.
    """
    path = expand(path)
    lines = [Line(key, _parse(key, text), setting("overrides", f"{key}={text}")) for key, text in overrides]
    for line in lines:
        if line.key in OWN_KEYS and line.key != COMPARED:
            raise UsageError(f"{line.where}: {line.key} is of the file itself; change it there")
    name, about, cells = _read(path, lines, ())
    names = [cell.name for cell in cells]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{path} has more than one cell called {twice.pop()!r}; give each system a name of its own")
    return PipelineFile(path, name, about, tuple(cells))


def _read(path: Path, overrides: Sequence[Line], parents: tuple[Path, ...]) -> tuple[str, str, list[Cell]]:
    """Name, description and cells of a file; `parents` are the files that name it as a system."""
    read = [dataclasses.replace(line, key=current(line.key, KEYS)) for line in read_lines(path)]
    lines = {line.key: line for line in read if line.value is not None or "." in line.key}
    for key in (*SETTING_GROUPS, "matrix", "published"):
        if key in lines:
            raise UsageError(f"{lines[key].where}: under {key} must stand lines of 'key: value'")
    systems, name, about = (lines.pop(key, None) for key in ("systems", "name", "about"))
    compared, asked = lines.pop(COMPARED, None), [line for line in overrides if line.key == COMPARED]
    overrides = [line for line in overrides if line.key != COMPARED]
    published = [lines.pop(key) for key in list(lines) if key.startswith(PUBLISHED)]
    settings = _override(lines.values(), overrides)
    title = str(name.value) if name else path.stem
    if systems is None:
        figures = _published(published)
        if any(_meaning(line) not in LOCATION_FIELDS for line in overrides):
            figures = {}  # they are of something else
        cells = _cells(title, settings, figures, _scorers(asked[-1] if asked else compared))
    elif misplaced := [*published, *([compared] if compared else [])]:
        raise UsageError(f"{misplaced[0].where}: {misplaced[0].key} stands in the files of the systems")
    else:
        cells = _systems(path, systems, [*settings.values(), *asked], parents)
    return title, str(about.value) if about else "", cells


def _systems(path: Path, systems: Line, settings: Sequence[Line], parents: tuple[Path, ...]) -> list[Cell]:
    """The cells of the files named under `systems`."""
    with errors_at(systems.where):
        if not isinstance(systems.value, list) or not systems.value:
            raise UsageError("systems must be a list of pipeline files, as in [one.yaml, other.yaml]")
        if path.resolve() in parents:
            raise UsageError(f"{path} names itself among its systems")
        if len(parents) > MOST_NESTED:
            raise UsageError("pipeline files name one another more deeply than any that are meant")
        files = [path.parent / str(file) for file in systems.value]
        if missing := [str(file) for file in files if not file.is_file()]:
            raise UsageError(f"there is no pipeline file {missing[0]}")
    cells: list[Cell] = []
    for file in files:
        cells += _read(file, settings, (*parents, path.resolve()))[2]
        _require_few(len(cells), str(path))
    return cells


def _require_few(cells: int, what: str) -> None:
    """Raise `UsageError` for more cells than anybody waits for."""
    if cells > MOST_CELLS:
        raise UsageError(f"{what} has more than {MOST_CELLS:,} cells; leave values out of its matrix")


def _scorers(line: Line | None) -> tuple[str, ...]:
    """The names in a line of scorers."""
    if line is None:
        return ()
    with errors_at(line.where):
        if not isinstance(line.value, list):
            raise UsageError(f"{line.key} must be a list of scorers, as in [pixel-knn, pca], and is {line.value!r}")
        for name in line.value:
            build_scorer(str(name))
        return tuple(map(str, line.value))


def _cells(
    system: str, settings: Mapping[str, Line], published: Mapping[str, float], compared: tuple[str, ...]
) -> list[Cell]:
    """Every combination of the matrix."""
    single = [line for key, line in settings.items() if not key.startswith(MATRIX)]
    fixed = read_config(single)
    data_dir = fixed.get("data_dir")
    matrix = {k.removeprefix(MATRIX): _values(line, data_dir) for k, line in settings.items() if k.startswith(MATRIX)}
    if both := matrix.keys() & settings.keys():
        line = settings[both.pop()]
        raise UsageError(f"{line.where}: {line.key} stands in the matrix too; leave one of the two out")
    for line in single:
        with errors_at(line.where):
            _check_name(field_name(line.key), line.value, data_dir)
    _require_few(math.prod(map(len, matrix.values())), system)
    cells: list[Cell] = []
    for combination in itertools.product(*matrix.values()):
        varied = dict(zip(matrix, combination, strict=True))
        left_out = ((), ("normal",), ("normal", "seed"), ("normal", "seed", *REUSED), ("normal", *REUSED))
        name, row, detector, variant, network = (
            " · ".join([system, *(f"{key} {value}" for key, value in varied.items() if key not in without)])
            for without in left_out
        )
        config = RunConfig.build(fixed, varied)
        first = row not in {cell.row for cell in cells}
        cells.append(Cell(name, row, detector, variant, network, config, {} if cells else published, first, compared))
    return cells


def _override(lines: Iterable[Line], overrides: Sequence[Line]) -> dict[str, Line]:
    """Settings by the field that each sets, with others over them; a value takes the place of a list in the matrix,
    and the other way round. Raises `UsageError` when two lines set the same.
    """
    settings: dict[str, Line] = {}
    for line in lines:
        if (key := _meaning(line)) in settings:
            raise UsageError(f"{line.where}: {key} was said before; leave one of the two out")
        settings[key] = line
    for line in overrides:
        key = _meaning(line)
        settings.pop(MATRIX + key, None)
        settings.pop(key.removeprefix(MATRIX), None)
        settings[key] = line
    return settings


def _meaning(line: Line) -> str:
    """The field that a line sets, `matrix.FIELD` where it is in the matrix. Raises `UnknownName`."""
    with errors_at(line.where):
        prefix = MATRIX if line.key.startswith(MATRIX) else ""
        try:
            return prefix + field_name(line.key.removeprefix(prefix))
        except UnknownName as error:
            if prefix or "." in line.key:
                raise
            raise UsageError(f"{error}; or of the file itself: {', '.join(OWN_KEYS)}") from error


def _values(line: Line, data_dir: str | None) -> list[Any]:
    """The values of a matrix line, each of the field's type and range."""
    with errors_at(line.where):
        if not isinstance(line.value, list) or not line.value:
            raise UsageError(f"{line.key} must be a list of values, as in [1, 2], and is {line.value!r}")
        name = field_name(line.key.removeprefix(MATRIX))
        values = [check_value(name, value) for value in line.value]
        for value in values:
            _check_name(name, value, data_dir)
        return values


def _check_name(field: str, value: Any, data_dir: str | None) -> None:
    """Look up a value of a field that holds a name. Raises `UnknownName`; a folder of pictures may still come."""
    if field == "dataset":
        try:
            require_dataset(str(value), data_dir)
        except DataMissing:
            return
        except UnknownName as error:
            if error.near:
                raise
    elif field in NAMED:
        NAMED[field](str(value))


def _published(lines: Iterable[Line]) -> dict[str, float]:
    """Published figures by what they measure."""
    figures = {}
    for line in lines:
        with errors_at(line.where):
            measure = line.key.removeprefix(PUBLISHED)
            if re.sub(r"@\d+$", "@EPOCH", measure) not in MEASURES:
                raise UnknownName("measure", measure, MEASURES)
            try:
                figures[measure] = float(str(line.value))
            except ValueError:
                figures[measure] = math.nan
            if not math.isfinite(figures[measure]):
                raise UsageError(f"{line.key} must be a number, and is {line.value!r}")
    return figures


def _parse(key: str, text: str) -> Value:
    """A value from the command line: as in a file where it is a list, else text, which becomes the field's type."""
    if not key.startswith(MATRIX) and key != COMPARED:
        return text
    try:
        return read_value(text, setting("overrides", key))
    except UsageError as error:
        raise UsageError(f"{setting('overrides', key)} takes a list, as in [1, 2], and was given {text!r}") from error
