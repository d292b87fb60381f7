"""Where a file lies: what its folders are for, by their names and their neighbours', and whether it is a mask."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from anomaly_ae.errors import DataError
from anomaly_ae.images.folder_words import (
    MASK_AFFIX,
    Parts,
    Role,
    Sense,
    is_container,
    is_mask_folder,
    may_be_mask_folder,
    role,
    same_class,
    sense,
    stem_of,
)

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
FITTING = 0.5  # share of the files of a folder `labels` that must be called as pictures, for it to be one of masks
MOST_FOLDERS_NAMED = 5  # folders or classes that a message names

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Kind:
    """What a folder is for, by its and its neighbours' names: a role, perhaps a class; masks; or nothing."""

    role: Role | None = None
    rest: str = ""
    is_mask: bool = False


@dataclass(frozen=True)
class Placement:
    """What the folders that a file lies in say: its role, whether it is a mask, and the names of those that are no
    `Kind`, before and after the first that is one.
    """

    role: Role | None
    is_mask: bool
    before: Parts
    after: Parts

    @property
    def rest(self) -> Parts:
        return self.before + self.after


@dataclass(frozen=True)
class Placements:
    """Files by their indices.

    stems:    their names without endings, casefolded
    pictures: where they lie
    masks:    those in folders of masks
    beside:   of masks that lie beside their pictures, those; None where it is gone
    """

    stems: dict[int, str]
    pictures: dict[int, Placement]
    masks: dict[int, Placement]
    beside: dict[int, int | None]


def find_placements(files: Mapping[int, Parts]) -> Placements:
    """Where files lie, by the parts of their paths. Raises `DataError` where a folder may be of masks or a class."""
    stems = {i: same_class(stem_of(parts[-1])) for i, parts in files.items()}
    paired = _paired(files)
    beside = paired | _masks_beside({i: parts[:-1] for i, parts in files.items() if i not in paired}, stems)
    folders = {i: parts[:-1] for i, parts in files.items() if i not in beside}
    by_folder = by_value(folders)
    children = defaultdict[Parts, set[str]](set)
    for folder in by_folder:
        for depth, name in enumerate(folder):
            children[folder[:depth]].add(name)
    kinds = {parent: _kinds(parent, names, by_folder, stems) for parent, names in children.items()}
    places = {folder: _place(folder, kinds) for folder in by_folder}
    pictures = {i: places[folder] for i, folder in folders.items() if not places[folder].is_mask}
    masks = {i: places[folder] for i, folder in folders.items() if places[folder].is_mask}
    return Placements(stems, pictures, masks, beside)


def some(names: Iterable[str]) -> str:
    """A few of some names, and how many more there are."""
    ordered = ordered_names(names)
    more = f" and {len(ordered) - MOST_FOLDERS_NAMED:,} more" if len(ordered) > MOST_FOLDERS_NAMED else ""
    return ", ".join(ordered[:MOST_FOLDERS_NAMED]) + more


def folders_called(names: Collection[str]) -> str:
    """The same of folders, as a subject."""
    return f"the {'folder' if len({*names}) == 1 else 'folders'} {some(names)}"


def _masks_beside(folders: Mapping[int, Parts], stems: Mapping[int, str]) -> dict[int, int | None]:
    """Of each mask that lies beside its picture, called as that with `_mask`, `_GT`, `label_` … after or before it,
    the picture; None where it is gone, though others called so have one.
    """
    at = {(folder, stems[i]): i for i, folder in folders.items()}
    affixed = {
        i: (plain, stems[i].replace(plain, "").strip("0123456789 _.-"))
        for i, folder in folders.items()
        if (plain := MASK_AFFIX.sub("", stems[i])) not in ("", stems[i]) and not any(map(is_mask_folder, folder))
    }
    picture_of = {i: at.get((folders[i], plain)) for i, (plain, _) in affixed.items()}
    used = {affixed[i][1] for i, picture in picture_of.items() if picture is not None}
    return {i: picture for i, picture in picture_of.items() if picture is not None or affixed[i][1] in used}


def _paired(split: Mapping[int, Parts]) -> dict[int, int | None]:
    """Of each mask that is called as its picture with another ending, the picture: where there is one beside each
    JPEG of a folder, and no other.
    """
    folders = defaultdict[Parts, dict[bool, dict[str, int]]](lambda: {True: {}, False: {}})
    for i, (*folder, name) in split.items():
        folders[tuple(folder)][name.lower().endswith(JPEG)][stem_of(name)] = i
    return {
        mask: by_kind[True][stem]
        for by_kind in folders.values()
        if by_kind[True].keys() == by_kind[False].keys()
        for stem, mask in by_kind[False].items()
    }


def _kinds(
    parent: Parts, names: set[str], files: Mapping[Parts, Sequence[int]], stems: Mapping[int, str]
) -> dict[str, Kind]:
    """What the folders in one folder are for; those that are classes, or say nothing, are not in it.

    A name for a role counts beside another one, and `images` or `labels` where nothing else lies beside it: as one of
    several others it may be a class. Raises `DataError` when `labels` may be that or masks as well.
    """
    masks = {name for name in names if is_mask_folder(name)}
    roles = {name: Kind(*role_and_class) for name in names - masks if (role_and_class := role(name))[0]}
    containers = {name for name in names - masks if is_container(name)}
    perhaps = {name for name in names if may_be_mask_folder(name) and _fits(parent, name, files, stems)}
    others = names - masks - roles.keys() - containers - perhaps
    if perhaps and all(map(sense, others)) and (not others or min(map(sense, others)) < 0):
        masks |= perhaps
    elif perhaps:
        raise DataError(
            f"whether {some(perhaps)} is a folder of masks or a class as {some(others)} cannot be told, for its "
            "files are called as theirs; call it masks, or give it a name that says which pictures are in it"
        )
    if parent in files or others or len(containers) > 1:
        others |= containers
        containers = set()
    if others and len({kind.role for kind in roles.values()}) < 2:
        roles = {name: kind for name, kind in roles.items() if kind.role is Role.UNLABELLED}
    as_masks = {name: Kind(role(name)[0], is_mask=True) for name in masks}
    return roles | as_masks | dict.fromkeys(containers, Kind())


def _fits(parent: Parts, name: str, files: Mapping[Parts, Sequence[int]], stems: Mapping[int, str]) -> bool:
    """Whether the files below a folder are called as those beside it, or with a mask's name before or after it."""
    below = {True: list[str](), False: list[str]()}
    for folder, chosen in files.items():
        if folder[: len(parent)] == parent:
            below[folder[len(parent) :][:1] == (name,)] += [stems[i] for i in chosen]
    pictures = set(below[False])
    return sum(bool({stem, MASK_AFFIX.sub("", stem)} & pictures) for stem in below[True]) > FITTING * len(below[True])


def _place(folder: Parts, kinds: Mapping[Parts, Mapping[str, Kind]]) -> Placement:
    first_role, is_mask, before, after = None, False, list[str](), list[str]()
    for depth, name in enumerate(folder):
        kind = kinds[folder[:depth]].get(name)
        if kind is None:
            (after if first_role or is_mask else before).append(name)
            continue
        first_role, is_mask = first_role or kind.role, is_mask or kind.is_mask
        after += [kind.rest] if kind.rest else []
    return Placement(first_role, is_mask, tuple(before), tuple(after))


def match_masks(placed: Placements, pictures: Mapping[int, Placement], names: Mapping[int, str]) -> dict[int, int]:
    """The picture of each mask that fits one of `pictures`, whose classes are `names`: in folders called the same,
    and called the same itself, but for `_mask` and its like; or in a folder called as the picture; or, in folders
    that do not differ, the only one called so.
    """
    at = defaultdict[tuple[Parts, str], list[int]](list)
    called = defaultdict[str, list[int]](list)
    for i, place in pictures.items():
        at[_folded(place.rest), placed.stems[i]].append(i)
        called[placed.stems[i]].append(i)
    picture_of = {}
    for mask, place in placed.masks.items():
        where, stem = _folded(place.rest), placed.stems[mask]
        plain = MASK_AFFIX.sub("", stem) or stem
        keys = [(where, stem), (where, plain), *([(where[:-1], where[-1])] if where else [])]
        exact = next((at[key] for key in keys if key in at), [])
        alike = [i for name in {stem, plain} for i in called.get(name, ()) if _ends_alike(pictures[i].rest, where)]
        novel = [i for i in alike if sense(names[i]) is not Sense.NORMAL]
        for candidates in (exact, novel, alike):
            of_role = [i for i in candidates if place.role in (None, pictures[i].role)]
            tested = [i for i in of_role if pictures[i].role is Role.TEST]
            if len(of_role) == 1 or len(tested) == 1:
                picture_of[mask] = (tested or of_role)[0]
                break
    return picture_of


def _ends_alike(folders: Parts, others: Parts) -> bool:
    """Whether one of them is the end of the other."""
    shorter = min(len(folders), len(others))
    return _folded(folders)[len(folders) - shorter :] == others[len(others) - shorter :]


def _folded(parts: Parts) -> Parts:
    return tuple(map(same_class, parts))


def by_value(mapping: Mapping[K, V]) -> dict[V, tuple[K, ...]]:
    """The keys by their value."""
    found = defaultdict[V, list[K]](list)
    for key, value in mapping.items():
        found[value].append(key)
    return {value: tuple(keys) for value, keys in found.items()}


def ordered_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names in order; numbers by their value."""
    return tuple(sorted(set(names), key=lambda name: (not _number(name), int(name) if _number(name) else 0, name)))


def _number(name: str) -> bool:
    return name.isascii() and name.isdecimal()
