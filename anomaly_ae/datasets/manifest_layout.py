"""A manifest as a layout of the files that it names: its labels say what the names of folders would."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from anomaly_ae.datasets.folder_layout import ASTRAY
from anomaly_ae.datasets.manifest import Entry, at_line, read_manifest
from anomaly_ae.datasets.manifest_files import find_names
from anomaly_ae.datasets.picture_layout import UNLABELLED_PICTURES, PictureLayout, arrange, arrangement
from anomaly_ae.datasets.placements import by_value
from anomaly_ae.errors import DataError, DataMissing
from anomaly_ae.escaping import counted, shown
from anomaly_ae.images.folder_words import Role, role, same_class, split_path
from anomaly_ae.images.listing import Listing
from anomaly_ae.images.masks import MaskColours
from anomaly_ae.images.named_files import NamedFiles
from anomaly_ae.images.sources import FILE_SCHEME
from anomaly_ae.runtime.messages import logger
from anomaly_ae.storage.atomic import expand

MISSING_PICTURES = "missing pictures"
MOST_MISSING = 0.1  # share of the files; where more are missing, they are looked for in the wrong place
MISSING_NAMED = 3  # files, with their lines


@dataclass(frozen=True)
class LabelledFile:
    """What a manifest says of a picture, on which line first; and its masks, each with its line and colours."""

    line: int
    label: str
    role: Role | None
    masks: dict[bytes, tuple[int, MaskColours | None]] = field(default_factory=dict)

    @property
    def is_unlabelled(self) -> bool:
        return Role.UNLABELLED in (self.role, role(self.label)[0])


def open_manifest(place: str) -> tuple[NamedFiles, Listing, PictureLayout]:
    """The files that a manifest names, and what they are.

    Raises `DataError`, with the number of the line, where it cannot be known what a picture is or which is meant, and
    `DataMissing` where the manifest or more than a tenth of the files are missing; it is said of fewer.
    """
    path = place.removeprefix(FILE_SCHEME)
    name = place if "://" in path else str(expand(path).resolve())
    try:
        entries, unread = read_manifest(name)
        lines = dict[str, int]()
        for entry in entries:
            for file in filter(None, (entry.file, entry.mask)):
                lines.setdefault(file, entry.line)
        pictures = _pictures(entries, find_names(lines, name))
        masks = {mask: line for each in pictures.values() for mask, (line, _) in each.masks.items()}
        source = NamedFiles(name, (*pictures, *masks))
        listing = _listed(source)
        _check_missing({file: each.line for file, each in pictures.items()} | masks, source.missing)
        layout = _layout(pictures, listing, source.missing)
    except DataError as error:
        raise type(error)(f"{name}: {error}") from error
    present = {each.role for each in pictures.values() if each.role not in (None, Role.UNLABELLED)}
    words = (f"a manifest of {counted(len(entries), 'line')}", arrangement(present, "split"), layout.about)
    what = (f"what it calls {', '.join(unread)}",) if unread else ()
    return source, listing, dataclasses.replace(layout, about="; ".join(filter(None, words)), unread=what)


def _pictures(entries: Sequence[Entry], names: Mapping[str, bytes]) -> dict[bytes, LabelledFile]:
    """What is said of each picture, by its name. Raises `DataError` where lines contradict each other."""
    found, repeated = dict[bytes, LabelledFile](), 0
    divided = any(entry.split for entry in entries)
    for entry in entries:
        line, file = entry.line, names[entry.file]
        said = LabelledFile(line, entry.label, _role(entry, divided))
        known = found.setdefault(file, said)
        repeated += known is not said
        if same_class(known.label) != same_class(said.label):
            calls = f"calls {shown(file)} {said.label}, and line {known.line:,} {known.label}"
            raise at_line(line, f"{calls}; take one of the lines out")
        if known.role is not said.role:
            puts = f"puts {shown(file)} into {said.role}, and line {known.line:,} into {known.role}"
            raise at_line(line, f"{puts}; take one of the lines out")
        if entry.mask:
            known.masks.setdefault(names[entry.mask], (line, entry.colours))
    for line, mask in ((line, mask) for each in found.values() for mask, (line, _) in each.masks.items()):
        if mask in found:
            raise at_line(line, f"names {shown(mask)} as a mask, and line {found[mask].line:,} as a picture")
    if repeated:
        lines = (
            f"{counted(repeated, 'line names', 'lines name')} pictures that earlier ones name, with the same label"
        )
        logger.info(f"manifest: {lines}; each picture counts once")
    return found


def _role(entry: Entry, divided: bool) -> Role | None:
    """What a line says that its picture is for. `divided`: whether any line says so."""
    if not divided:
        return None
    found, rest = role(entry.split)
    if not found or rest:
        given = f"the split {entry.split!r}" if entry.split else "no split, and other lines have one"
        raise at_line(entry.line, f"has {given}; there are {Role.TRAIN}, {Role.VAL} and {Role.TEST}")
    return found


def _listed(source: NamedFiles) -> Listing:
    try:
        return source.list()
    except DataError as error:
        raise type(error)(f"{error}; or put copies of the files beside the manifest") from error


def _check_missing(lines: Mapping[bytes, int], missing: frozenset[bytes]) -> None:
    """Say which of the files on these lines are missing. Raises `DataMissing` where they are too many."""
    absent = sorted((line, file) for file, line in lines.items() if file in missing)
    if not absent:
        return
    first = ", ".join(f"line {line:,}: {shown(file)}" for line, file in absent[:MISSING_NAMED])
    are = "is" if len(absent) == 1 else "are"
    what = f"{len(absent):,} of {counted(len(lines), 'file')} {are} missing, {first}"
    what += ", …" if len(absent) > MISSING_NAMED else ""
    if len(absent) > MOST_MISSING * len(lines):
        raise DataMissing(f"{what}; paths begin in the folder of the manifest, unless they are whole")
    logger.info(f"manifest: {what}; left out")


def _layout(pictures: Mapping[bytes, LabelledFile], listing: Listing, missing: frozenset[bytes]) -> PictureLayout:
    """The layout of a listing of pictures, of which this is said, and their masks."""
    at = {path: i for i, path in enumerate(listing.paths)}
    named = {at[path]: pictures[path] for path in listing.paths if path in pictures}
    left_out = {i: UNLABELLED_PICTURES for i, each in named.items() if each.is_unlabelled}
    left_out |= {i: MISSING_PICTURES for i in named if listing.paths[i] in missing}
    used = {i: each for i, each in named.items() if i not in left_out}
    if not used:
        raise DataError("none of its pictures has a label that says what it is; label some")
    layout = arrange(
        {i: each.label for i, each in used.items()},
        {i: each.role or Role.TRAIN for i, each in used.items()},
        {i: split_path(listing.paths[i])[-1] for i in used},
        divided=any(each.role for each in used.values()),
    )
    kept = {i for indices, _ in layout.files.values() for i in indices}
    masks = {i: tuple(at[mask] for mask in each.masks) for i, each in used.items() if each.masks and i in kept}
    colours = {at[mask]: of for each in used.values() for mask, (_, of) in each.masks.items() if of}
    fitting = {mask for of in masks.values() for mask in of}
    left_out |= {i: ASTRAY for i in at.values() if i not in named and i not in fitting}
    return dataclasses.replace(
        layout,
        masks=masks,
        colours=colours,
        left_out=layout.left_out | {reason: sorted(chosen) for reason, chosen in by_value(left_out).items()},
    )
