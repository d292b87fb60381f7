"""Manifests: files that name pictures and their labels line by line, as tools and services for labelling do."""

import codecs
import csv
import io
import itertools
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from anomaly_ae.errors import DataError, DataMissing
from anomaly_ae.escaping import counted
from anomaly_ae.images.addresses import Address
from anomaly_ae.images.decode import open_file
from anomaly_ae.images.listing import NOT_KNOWN
from anomaly_ae.images.masks import MaskColours
from anomaly_ae.images.sources import FILE_SCHEME
from anomaly_ae.storage.atomic import expand

TABLE_ENDINGS, OBJECT_ENDINGS = (".csv",), (".jsonl", ".ndjson", ".manifest")
MANIFEST_ENDINGS = (*OBJECT_ENDINGS, *TABLE_ENDINGS)
MOST_LINE_BYTES = 2**20
PATH, LABEL, LABEL_INDEX, MASK, SPLIT_COLUMN = "path", "label", "label_index", "mask", "split"
COLUMN_NAMES = {  # what they may be called
    **dict.fromkeys((PATH, "image_path", "image"), PATH),
    **dict.fromkeys((MASK, "mask_path"), MASK),
    **{name: name for name in (LABEL, LABEL_INDEX, SPLIT_COLUMN)},
}
INDEX_CLASSES = {"0": "normal", "1": "abnormal"}  # what anomalib's column label_index says
# Of the augmented manifests of SageMaker Ground Truth and Lookout for Vision
SOURCE_REF, ANOMALY_LABEL, ANOMALY_MASK, METADATA = "source-ref", "anomaly-label", "anomaly-mask-ref", "-metadata"
CLASS_NAME, COLOUR_MAP, HEX_COLOUR, BACKGROUND = "class-name", "internal-color-map", "hex-color", "background"
VERIFICATION = "groundtruth/label-verification"  # of a label, and no label itself


@dataclass(frozen=True)
class Entry:
    """What a manifest says of a picture.

    line:       the number of the line, from 1
    file, mask: where these are, as it is written; the mask may be empty
    label:      the name of a class
    split:      what it is for; empty where that is not said
    colours:    what those of the mask stand for, where that is said
    """

    line: int
    file: str
    label: str
    mask: str = ""
    split: str = ""
    colours: MaskColours | None = None


def is_manifest(place: str) -> bool:
    """Whether a path or an address is called as manifests are, and is no folder."""
    is_called = place.lower().endswith(MANIFEST_ENDINGS)
    return is_called and not os.path.isdir(expand(place.removeprefix(FILE_SCHEME)))  # noqa: PTH112 (takes any text)


def read_manifest(place: str) -> tuple[list[Entry], list[str]]:
    """What a manifest says, line by line, and the names of what is not read in it.

    Raises `DataMissing` without such a file or any line in it, and `DataError` where a line is no such line, or has
    no label.
    """
    unread = dict[str, None]()
    with _opened(place) as file:
        rows = _table(_lines(file)) if place.lower().endswith(TABLE_ENDINGS) else _objects(_lines(file))
        entries = [_entry(line, row, unread) for line, row in rows]
    if not entries:
        raise DataMissing("it names no picture")
    if unlabelled := [entry.line for entry in entries if not entry.label]:
        lines = f"{counted(len(unlabelled), 'line has', 'lines have')} no label"
        first = f", the first line {unlabelled[0]}" if len(unlabelled) > 1 else f": line {unlabelled[0]}"
        raise DataError(f"{lines}{first}; label their pictures, or take them out")
    return entries, [*unread]


def at_line(line: int, what: str) -> DataError:
    """The error of a line, of which `what` is said."""
    return DataError(f"line {line:,} {what}")


def _opened(place: str) -> BinaryIO:
    if "://" in place:
        folder, _, name = place.rpartition("/")
        (content,) = Address(folder).fetch([os.fsencode(name)], np.array([NOT_KNOWN])) or [b""]
        if isinstance(content, Exception):
            raise DataMissing(f"it {content}") from content
        return io.BytesIO(content)
    try:
        return open_file(place)
    except OSError as error:
        raise DataMissing(f"it cannot be opened: {error.strerror}") from error


def _lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """The lines of a text in UTF-8, each with its number."""
    for number in itertools.count(1):
        content = file.readline(MOST_LINE_BYTES + 1)
        if not content:
            return
        if len(content) > MOST_LINE_BYTES:
            raise at_line(number, f"has more than {MOST_LINE_BYTES:,} bytes; a line names one picture")
        if b"\0" in content:
            raise at_line(number, "holds a NUL, as text in UTF-16 does; save the file as UTF-8")
        try:
            yield number, content.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode()
        except UnicodeDecodeError as error:
            raise at_line(number, "is no text in UTF-8; save the file so") from error


def _objects(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Those of JSON lines."""
    for number, text in lines:
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise at_line(number, f"is no JSON object: {error.msg} at character {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise at_line(number, f"is no JSON object that can be read ({type(error).__name__})") from error
        if not isinstance(row, dict):
            raise at_line(number, f'is no JSON object; each line is one, as in {{"{SOURCE_REF}": "a.png", …}}')
        if SOURCE_REF not in row:
            _require_names(number, [*row])
        yield number, row


def _table(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table whose first line names the columns, with commas or semicolons between them."""
    first, header = next(((number, text) for number, text in lines if text.strip()), (1, ""))
    reader = csv.reader(
        itertools.chain([header] if header else [], (text for _, text in lines)),
        delimiter=max(",;", key=header.count),
        skipinitialspace=True,
        strict=True,
    )
    names = list[str]()
    while True:
        number = first + reader.line_num
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise at_line(number, f"is no row of a table: {error}") from error
        if not names:
            names = cells
            _require_names(number, names)
        elif any(cells):
            if len(cells) != len(names):
                raise at_line(number, f"has {counted(len(cells), 'value')} for {counted(len(names), 'column')}")
            yield number, dict(zip(names, cells, strict=True))


def _require_names(number: int, names: list[str]) -> None:
    """Raise `DataError` where columns, or the values of a line, are not called as those of a manifest."""
    columns = [COLUMN_NAMES.get(name.casefold(), name) for name in names]
    if twice := [name for name, column in zip(names, columns, strict=True) if columns.count(column) > 1]:
        raise at_line(number, f"names one thing twice: {', '.join(twice)}")
    if PATH not in columns or not {LABEL, LABEL_INDEX} & {*columns}:
        wanted = f"{PATH} (or {SOURCE_REF}, in JSON) and {LABEL}, and may name {MASK} and {SPLIT_COLUMN}"
        raise at_line(number, f"names {', '.join(names)}; in a manifest it names {wanted}")


def _entry(number: int, row: Mapping[str, Any], unread: dict[str, None]) -> Entry:
    """What a line says; the names of what it says besides come into `unread`."""
    entry = _augmented(number, row, unread) if SOURCE_REF in row else _plain(number, row, unread)
    for file in filter(None, (entry.file, entry.mask)):
        try:
            is_name = b"\0" not in os.fsencode(file)
        except UnicodeEncodeError:
            is_name = False
        if not is_name:
            raise at_line(number, f"names {file!r}, and no file can be called so")
    return entry


def _plain(number: int, row: Mapping[str, Any], unread: dict[str, None]) -> Entry:
    """What a row of a table says, or an object with the same names."""
    unread.update(dict.fromkeys(name for name in row if name.casefold() not in COLUMN_NAMES))
    known = {COLUMN_NAMES.get(name.casefold()): value for name, value in row.items()}
    index = _text(known.get(LABEL_INDEX))
    label = _text(known.get(LABEL)) or INDEX_CLASSES.get(index, "")
    if index and not label:
        raise at_line(number, f"has the {LABEL_INDEX} {index}, which may be 0, normal, or 1, abnormal")
    files = (_reference(number, known.get(name), name) for name in (PATH, MASK))
    return Entry(number, next(files), label, next(files), _text(known.get(SPLIT_COLUMN)))


def _augmented(number: int, row: Mapping[str, Any], unread: dict[str, None]) -> Entry:
    """What a line of an augmented manifest says. The class's name counts, not its number: in what Lookout for Vision
    writes 0 is an anomaly, and in what it reads 1.
    """
    abouts = {name: about for name in row if isinstance(about := row.get(name + METADATA), dict)}
    refs = {name for name in abouts if name.endswith("-ref")} | ({ANOMALY_MASK} & row.keys())
    labels = [name for name in abouts if CLASS_NAME in abouts[name] and name not in refs]
    labels = [name for name in labels if abouts[name].get("type") != VERIFICATION]
    unread.update(dict.fromkeys(name for name in abouts if name not in refs and name not in labels))
    label = _only(number, labels, ANOMALY_LABEL, "which of them says what the picture is", unread)
    masks = [name for name in refs if row.get(name) and (name == ANOMALY_MASK or COLOUR_MAP in abouts[name])]
    mask = _only(number, sorted(masks), ANOMALY_MASK, "which of them is the mask", unread)
    return Entry(
        line=number,
        file=_reference(number, row[SOURCE_REF], SOURCE_REF),
        label=_text(abouts[label][CLASS_NAME] if label else row.get(ANOMALY_LABEL)),
        mask=_reference(number, row.get(mask), MASK),
        split=_text(row.get(SPLIT_COLUMN)),
        colours=_colours(number, abouts.get(mask, {}).get(COLOUR_MAP)),
    )


def _only(number: int, names: Collection[str], usual: str, question: str, unread: dict[str, None]) -> str:
    """The one of some attributes that counts; empty where there is none. Raises `DataError` where any may."""
    if usual in names:
        unread.update(dict.fromkeys(name for name in names if name != usual))
        return usual
    if len(names) > 1:
        raise at_line(number, f"has the attributes {', '.join(names)}, and {question} cannot be told; leave one")
    return next(iter(names), "")


def _colours(number: int, named: object) -> MaskColours | None:
    """What an `internal-color-map` says."""
    if not isinstance(named, dict):
        return None
    found: dict[bool, list[int]] = {True: [], False: []}
    for each in named.values():
        name, colour = (_text(each.get(key)) if isinstance(each, dict) else "" for key in (CLASS_NAME, HEX_COLOUR))
        if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            given = f"the {HEX_COLOUR} {colour!r} for {name!r} in its {COLOUR_MAP}"
            raise at_line(number, f"has {given}, and not one as #23a436")
        found[name.casefold() == BACKGROUND].append(int(colour[1:], 16))
    return MaskColours(tuple(sorted(found[False])), tuple(sorted(found[True])))


def _reference(number: int, value: object, name: str) -> str:
    """A path or an address; empty where there is none, which that of the picture may not be."""
    if not isinstance(value, str | None) or not (value or name == MASK):
        raise at_line(number, f"names no file by {name}")
    return value or ""


def _text(value: object) -> str:
    """A value of JSON as text; empty for what is none, or is no single value."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return value.strip() if isinstance(value, str) else ""
