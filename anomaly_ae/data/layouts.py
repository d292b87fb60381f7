"""How a folder of pictures is arranged, found out from the paths in it alone."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from anomaly_ae.data.classes import ALL, same_class
from anomaly_ae.data.folder_words import (
    MASK_AFFIX,
    Parts,
    Role,
    Sense,
    is_container,
    is_mask_folder,
    junk,
    may_be_mask_folder,
    role,
    sense,
    split_path,
)
from anomaly_ae.errors import DataError
from anomaly_ae.escaping import counted, counted_as

TRAIN, TEST = "train", "test"
NORMAL, MARKED = "normal", "defective"  # classes of pictures that no folder tells apart, without and with a defect
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
FITTING = 0.5  # share of the files of a folder `labels` that must be called as pictures, for it to be one of masks
MOST_ODD = 0.03  # share of pictures that may have names such as bad.png though their folder says nothing
MANY_GROUPS, SMALL_GROUP = 20, 20  # more folders than so many with fewer images than so many are parts or patients
MOST_NAMED = 5  # folders or classes that a message names
ASTRAY = "masks without a picture"
OUTSIDE = "pictures outside of the folders for training and test"
UNSAID = "pictures that no folder calls normal or anomalous"
SPARE = "anomalous validation pictures, beside a test"
UNLABELLED = "unlabelled pictures"
MASK_UNKNOWN = "pictures whose mask cannot be used"

Positions = list[int]  # of pictures among the paths
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Layout:
    """What each picture is. Each of the paths is in `files`, in `masks` or in `left_out`, once.

    about:    the arrangement, in words
    classes:  names, in order
    files:    "train", and "test" where there is one: positions of the pictures among the paths, and of their classes
    normal:   what is normal unless something else is said; None where that cannot be known
    doubt:    then, why not
    masks:    by the position of a picture, those of its masks
    by_masks: whether nothing but the masks says which pictures are normal, see `marked`
    sets:     folders side by side that hold a data set each, with the positions of their pictures; none if one does
    alone:    the path of one of them, where there is one
    left_out: pictures that are used for nothing, by the reason
    """

    about: str
    classes: tuple[str, ...]
    files: dict[str, tuple[Positions, list[int]]]
    normal: str | None
    doubt: str = ""
    masks: dict[int, tuple[int, ...]] = field(default_factory=dict)
    by_masks: bool = False
    sets: dict[str, Positions] = field(default_factory=dict)
    alone: str = ""
    left_out: dict[str, Positions] = field(default_factory=dict)

    def marked(self, marked: Collection[int], unknown: Collection[int] = ()) -> "Layout":
        """The same with the pictures at the positions `marked` defective, and the others normal, but for those at
        `unknown`, whose masks cannot be used.
        """
        classes = (MARKED, NORMAL) if marked else (NORMAL,)
        chosen = {file: [i for i in positions if i not in unknown] for file, (positions, _) in self.files.items()}
        files = {
            file: (known, [classes.index(MARKED if i in marked else NORMAL) for i in known])
            for file, known in chosen.items()
            if known
        }
        if TRAIN not in files:
            raise DataError(
                "none of the masks, which alone would say what is normal, can be used; mend or remove them"
            )
        if classes.index(NORMAL) not in files[TRAIN][1]:
            return dataclasses.replace(
                self, normal=None, doubt="each of the pictures has a mask that marks something in it"
            )
        about = f"{self.about}; normal are those that no mask marks anything in"
        left_out = self.left_out | ({MASK_UNKNOWN: sorted(unknown)} if unknown else {})
        return dataclasses.replace(
            self,
            about=about,
            classes=classes,
            files=files,
            normal=None if self.sets else NORMAL if marked else ALL,
            doubt=self.doubt if self.sets else "",
            left_out=left_out,
        )


@dataclass(frozen=True)
class Kind:
    """What a folder is for, by its name and its neighbours': a role, and perhaps a class; masks; or nothing, as
    `images`.
    """

    role: Role | None = None
    rest: str = ""
    is_mask: bool = False


@dataclass(frozen=True)
class Place:
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


def find_layout(paths: Sequence[bytes], empty: Iterable[bytes] = ()) -> Layout:
    """The layout of pictures at these paths: in folders for roles (train, val, test), for classes, for masks, and for
    nothing but pictures (images, data), in any order and depth; with masks beside the pictures; or all in one folder.

    empty: folders without any picture
    Classes are told by the folders whose names say normal or anomalous, else by the first that differ.
    Raises `DataError` where it cannot be known what pictures are.
    """
    split = [split_path(path) for path in paths]
    left_out = {i: reason for i, parts in enumerate(split) if (reason := junk(parts))}
    ordered = sorted(range(len(paths)), key=paths.__getitem__)  # so that nothing depends on the order of the paths
    stems = {i: same_class(_stem(split[i][-1])) for i in ordered if i not in left_out}
    paired = _paired({i: split[i] for i in stems})
    beside = paired | _masks_beside({i: split[i][:-1] for i in stems if i not in paired}, stems)
    places = _places({i: split[i][:-1] for i in stems if i not in beside}, stems)
    masks = {i: place for i, place in places.items() if place.is_mask}
    pictures = {i: place for i, place in places.items() if not place.is_mask}
    divided = any(place.role not in (None, Role.UNLABELLED) for place in pictures.values())
    for i, place in list(pictures.items()):
        if place.role is Role.UNLABELLED or (divided and place.role is None):
            left_out[i] = UNLABELLED if place.role else OUTSIDE
            del pictures[i]
    _require_pictures(len(pictures), len(masks), left_out)
    roles = {i: place.role or Role.TRAIN for i, place in pictures.items()}
    level, sets = _find_sets([*pictures.values(), *masks.values()])
    within = {
        i: place.rest[level] for i, place in pictures.items() if sets.intersection(place.rest[level : level + 1])
    }
    names = _class_names({i: _without(place.rest, level, i in within) for i, place in pictures.items()}, roles)
    fitting = beside | _match(masks, pictures, stems, names)
    by_masks = _told_by_masks(names, roles, set(fitting.values()))
    masked_roles = {roles[i] for i in fitting.values() if i in roles}
    for i, name in list(names.items()):
        if not name and roles[i] is not Role.TRAIN and not (by_masks and roles[i] in masked_roles):
            left_out[i] = UNSAID
            del names[i]
    _require_pictures(len(names), len(masks), left_out)
    _require_plain(set(names.values()), {part for place in masks.values() for part in place.rest})
    unsaid = [i for i, name in names.items() if not sense(name) and not by_masks]
    names = _one_normal(_one_spelling(names, roles), roles)
    trained = {name for i, name in names.items() if roles[i] is Role.TRAIN} or set(names.values())
    present = {roles[i] for i in names}
    bare = [parts[-1] for parts in map(split_path, empty) if not junk(parts)]
    untrained = [name for name in bare if divided and role(name)[0] is Role.TRAIN and Role.TRAIN not in present]
    normal, doubt = _normal(trained, [name for name in bare if sense(name) > 0], untrained)
    odd = sorted(split[i][-1] for i in unsaid if names[i] == normal and sense(stems[i]) < 0)
    by_name = f"{counted(len(odd), 'file name says', 'file names say')} anomalous, as {odd[0]}" if odd else ""
    if len(odd) > MOST_ODD * len(unsaid):
        normal, doubt = None, by_name
    for i, name in list(names.items()):
        if roles[i] is Role.VAL and present == set(Role) - {Role.UNLABELLED} and normal not in (None, name):
            left_out[i] = SPARE
            del names[i]
    by_set = {
        name: sorted(chosen)
        for name, chosen in sorted(_by_value({i: within[i] for i in names if i in within}).items())
    }
    if by_set:
        normal, doubt = None, f"the folders {some(by_set)} hold a data set each"
    classes = _ordered(names.values())
    files = {
        file: (chosen, [classes.index(names[i]) for i in chosen])
        for file in (TRAIN, TEST)
        if (chosen := [i for i in sorted(names) if _file(roles[i], present) == file])
    }
    fits = {mask: i for mask, i in fitting.items() if i in names}
    left_out |= {i: ASTRAY for i in (*masks, *beside) if i not in fits}
    return Layout(
        about=_about(present if divided else set(), len(classes)) + (f"; {by_name}" if by_name else ""),
        classes=classes,
        files=files,
        normal=ALL if normal and len(classes) == 1 else normal,
        doubt=doubt,
        masks=_by_value(fits),
        by_masks=by_masks,
        sets=by_set,
        alone=next(
            (folder for name, chosen in by_set.items() if (folder := _folder(name, [split[i] for i in chosen]))), ""
        ),
        left_out={reason: sorted(chosen) for reason, chosen in _by_value(left_out).items()},
    )


def some(names: Iterable[str]) -> str:
    """A few of some names, and how many more there are."""
    ordered = _ordered(names)
    more = f" and {len(ordered) - MOST_NAMED:,} more" if len(ordered) > MOST_NAMED else ""
    return ", ".join(ordered[:MOST_NAMED]) + more


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
    found = {i: at.get((folders[i], plain)) for i, (plain, _) in affixed.items()}
    used = {affixed[i][1] for i, picture in found.items() if picture is not None}
    return {i: picture for i, picture in found.items() if picture is not None or affixed[i][1] in used}


def _paired(split: Mapping[int, Parts]) -> dict[int, int | None]:
    """Of each mask that is called as its picture with another ending, the picture: where there is one beside each
    JPEG of a folder, and no other.
    """
    folders = defaultdict[Parts, dict[bool, dict[str, int]]](lambda: {True: {}, False: {}})
    for i, (*folder, name) in split.items():
        folders[tuple(folder)][name.lower().endswith(JPEG)][_stem(name)] = i
    return {
        mask: found[True][stem]
        for found in folders.values()
        if found[True].keys() == found[False].keys()
        for stem, mask in found[False].items()
    }


def _places(folders: Mapping[int, Parts], stems: Mapping[int, str]) -> dict[int, Place]:
    """The place of each file."""
    files = _by_value(folders)
    children = defaultdict[Parts, set[str]](set)
    for folder in files:
        for depth, name in enumerate(folder):
            children[folder[:depth]].add(name)
    kinds = {parent: _kinds(parent, names, files, stems) for parent, names in children.items()}
    places = {folder: _place(folder, kinds) for folder in files}
    return {i: places[folder] for i, folder in folders.items()}


def _kinds(
    parent: Parts, names: set[str], files: Mapping[Parts, Sequence[int]], stems: Mapping[int, str]
) -> dict[str, Kind]:
    """What the folders in one folder are for; those that are classes, or say nothing, are not in it.

    A name for a role counts beside another one, and `images` or `labels` where nothing else lies beside it: as one of
    several others it may be a class. Raises `DataError` when `labels` may be that or masks as well.
    """
    masks = {name for name in names if is_mask_folder(name)}
    roles = {name: Kind(*found) for name in names - masks if (found := role(name))[0]}
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


def _place(folder: Parts, kinds: Mapping[Parts, Mapping[str, Kind]]) -> Place:
    found, is_mask, before, after = None, False, list[str](), list[str]()
    for depth, name in enumerate(folder):
        kind = kinds[folder[:depth]].get(name)
        if kind is None:
            (after if found or is_mask else before).append(name)
            continue
        found, is_mask = found or kind.role, is_mask or kind.is_mask
        after += [kind.rest] if kind.rest else []
    return Place(found, is_mask, tuple(before), tuple(after))


def _find_sets(places: Sequence[Place]) -> tuple[int, set[str]]:
    """The folders, at a depth of `Place.rest`, that hold a data set each: that have folders for normal or anomalous
    pictures in them, or for training and test with classes or masks. None where only one of them has normal pictures
    to train on, or where they are so many and so small that they are parts or patients.
    """
    level = _common([place.rest for place in places])
    inner = Counter(place for place in places if len(place.rest) > level and not sense(place.rest[level]))
    sizes, normal = Counter[str](), set[str]()
    for place, count in inner.items():
        senses, divided = set(map(sense, place.rest[level + 1 :])), len(place.before) > level
        said = place.role is not None, place.is_mask, bool(place.after)
        if any(senses) or (divided and sum(said) > 1):
            sizes[place.rest[level]] += count
        if Sense.NORMAL in senses or (divided and (place.role is Role.TRAIN or place.is_mask)):
            normal.add(place.rest[level])
    parts = sum(size < SMALL_GROUP for size in sizes.values()) > MANY_GROUPS
    return level, set() if parts or len(normal & sizes.keys()) < 2 else set(sizes)


def _without(parts: Parts, level: int, wanted: bool) -> Parts:
    return parts[:level] + parts[level + 1 :] if wanted else parts


def _require_pictures(pictures: int, masks: int, left_out: Mapping[int, str]) -> None:
    if not pictures:
        found = [counted_as(count, reason) for reason, count in Counter(left_out.values()).items()]
        found += [f"{counted(masks, 'mask')}, by the names of their folders"] if masks else []
        raise DataError(
            f"no folder says of any picture what it is; found: {'; '.join(found)}; name the very folder of the "
            "normal pictures, or put them into a folder called good"
        )


def _class_names(rests: Mapping[int, Parts], roles: Mapping[int, Role]) -> dict[int, str]:
    """The class of each picture by the folders that it lies in, `rests`; nothing where it lies in none.

    Raises `DataError` when that cannot be said.
    """
    counts = Counter(rests.values())
    wrapped = _wrappers([rest for rest in counts if rest])
    counts = Counter({rest[wrapped:]: count for rest, count in counts.items()})
    level = _class_level({rest: count for rest, count in counts.items() if rest})
    for file in set(roles.values()):
        found = {rest[wrapped:] for i, rest in rests.items() if roles[i] is file}
        shallow = {rest for rest in found if len(rest) <= level}
        if file is Role.TRAIN and shallow and shallow != found:
            beside = sum(roles[i] is file and len(rest[wrapped:]) <= level for i, rest in rests.items())
            folders = {rest[len(min(shallow, key=len))] for rest in found - shallow}
            raise DataError(
                f"{counted(beside, 'picture lies', 'pictures lie')} beside the folders {some(folders)}; move "
                "such pictures into a folder, or name one of the folders"
            )
    for rest in counts:
        own = sense(rest[level]) if len(rest) > level else Sense.ANOMALOUS
        if own >= 0 and {*map(sense, rest)} - {own, Sense.NOTHING}:
            raise DataError(
                f"the folders {'/'.join(rest)} say different things of their pictures, and {rest[level]} lies where "
                "others are classes; move or rename one of them"
            )
    return {i: rest[wrapped:][level] if len(rest) > wrapped + level else "" for i, rest in rests.items()}


def _wrappers(rests: Sequence[Parts]) -> int:
    """How many folders all the pictures lie in before anything tells them apart; the last one is kept as their class,
    and so is one that says normal or anomalous where no other does.
    """
    common = 0
    while rests and {len(rest) for rest in rests} != {common + 1}:
        tops = {rest[common : common + 1] for rest in rests}
        if len(tops) > 1 or () in tops:
            break
        below = {part for rest in rests for part in rest[common + 1 :]}
        if sense(rests[0][common]) and not any(map(sense, below)):
            break
        common += 1
    return common


def _class_level(counted: Mapping[Parts, int]) -> int:
    """The depth at which folders are classes: where most of them say normal or anomalous, or the first."""

    def said(level: int) -> tuple[int, int]:
        senses = {rest: sense(rest[level]) for rest in counted}
        return sum(count for rest, count in counted.items() if senses[rest]), len(set(senses.values()) - {0})

    depth = min(map(len, counted), default=0)
    return max(range(depth), key=said, default=0)


def _match(
    masks: Mapping[int, Place], pictures: Mapping[int, Place], stems: Mapping[int, str], names: Mapping[int, str]
) -> dict[int, int]:
    """The picture of each mask that fits one: in folders called the same, and called the same itself, but for `_mask`
    and its like; or in a folder called as the picture; or, in folders that do not differ, the only one called so.
    """
    at = defaultdict[tuple[Parts, str], list[int]](list)
    called = defaultdict[str, list[int]](list)
    for i, place in pictures.items():
        at[_folded(place.rest), stems[i]].append(i)
        called[stems[i]].append(i)
    found = {}
    for mask, place in masks.items():
        where, stem = _folded(place.rest), stems[mask]
        plain = MASK_AFFIX.sub("", stem) or stem
        keys = [(where, stem), (where, plain), *([(where[:-1], where[-1])] if where else [])]
        exact = next((at[key] for key in keys if key in at), [])
        alike = [i for name in {stem, plain} for i in called.get(name, ()) if _ends_alike(pictures[i].rest, where)]
        novel = [i for i in alike if sense(names[i]) is not Sense.NORMAL]
        for candidates in (exact, novel, alike):
            of_role = [i for i in candidates if place.role in (None, pictures[i].role)]
            tested = [i for i in of_role if pictures[i].role is Role.TEST]
            if len(of_role) == 1 or len(tested) == 1:
                found[mask] = (tested or of_role)[0]
                break
    return found


def _ends_alike(folders: Parts, others: Parts) -> bool:
    """Whether one of them is the end of the other."""
    shorter = min(len(folders), len(others))
    return _folded(folders)[len(folders) - shorter :] == others[len(others) - shorter :]


def _told_by_masks(names: Mapping[int, str], roles: Mapping[int, Role], masked: Collection[int | None]) -> bool:
    """Whether nothing but masks says which pictures are normal: no folder does, and every picture has a mask, or the
    folders do not differ and are not for a test alone.
    """
    classes = set(names.values())
    return (
        bool(masked)
        and not any(map(sense, classes))
        and (set(names) <= set(masked) or (len(classes) == 1 and Role.TRAIN in roles.values()))
    )


def _require_plain(classes: set[str], masked: set[str]) -> None:
    """Raise `DataError` when classes that say normal or anomalous lie beside `test`, `images`, `labels` …"""
    odd = {
        name
        for name in classes
        if role(name)[0] or is_container(name) or (may_be_mask_folder(name) and name not in masked)
    }
    if odd and any(map(sense, classes)):
        raise DataError(
            f"what the pictures in {some(odd)} are, beside {some(classes - odd)}, cannot be told; put all of them "
            "into folders for training and test, or give it a name that says what is in it"
        )


def _one_spelling(names: Mapping[int, str], roles: Mapping[int, Role]) -> dict[int, str]:
    """Class names, with one for what is written with other capitals in training and test; that of the training."""
    spelled = defaultdict[str, dict[Role, set[str]]](lambda: defaultdict(set))
    for i, name in names.items():
        spelled[same_class(name)][roles[i]].add(name)
    one = {
        name: min(by_role.get(Role.TRAIN) or set[str]().union(*by_role.values()))
        for by_role in spelled.values()
        if all(len(same) == 1 for same in by_role.values())
        for same in by_role.values()
        for name in same
    }
    return {i: one.get(name, name) for i, name in names.items()}


def _one_normal(names: Mapping[int, str], roles: Mapping[int, Role]) -> dict[int, str]:
    """Class names, with one for what is called good, normal, ok … here and there: that of the training, and what
    alone is trained on is normal, whatever it is called.
    """
    trained = {name for i, name in names.items() if roles[i] is Role.TRAIN}
    others = set(names.values()) - trained
    normal = {name for name in others if sense(name) > 0}
    said = {name for name in trained if sense(name) > 0} or (trained if len(trained) == 1 else set())
    if len(said) != 1 or min(map(sense, said)) < 0:
        return {i: name or NORMAL for i, name in names.items()}
    one = next(iter(said)) or min(normal, default=NORMAL)
    return {i: one if name in normal | said else name for i, name in names.items()}


def _normal(trained: set[str], bare: Sequence[str], untrained: Sequence[str]) -> tuple[str | None, str]:
    """The class that is normal, or None and why that cannot be known.

    bare: folders called good … without pictures; untrained: those for training, where there is none with pictures
    """
    said = {name for name in trained if sense(name) > 0}
    if untrained:
        return None, f"{some(untrained)} holds no picture"
    none = f", and {some(bare)} holds no picture" if bare else ""
    if len(said) == 1:
        return said.pop(), ""
    if said:
        return None, f"the classes {some(said)} all sound normal"
    if all(sense(name) < 0 for name in trained):
        return None, f"all there is to train on is called {some(trained)}, which is no name for what is normal{none}"
    if len(trained) > 1:
        return None, f"no name of the classes {some(trained)} says normal{none}"
    (only,) = trained
    if bare or may_be_mask_folder(only):
        return None, f"all there is to train on lies in {only}, which may be something else{none}"
    return only, ""


def _file(found: Role, present: Collection[Role]) -> str:
    """The file that pictures of a role belong to: validation pictures are the test where there is no other."""
    if Role.TRAIN not in present or found is Role.TRAIN:
        return TRAIN
    return TEST if found is Role.TEST or Role.TEST not in present else TRAIN


def _about(present: Collection[Role], classes: int) -> str:
    """The arrangement in words, by the roles that there are folders for."""
    if present:
        folders = " and ".join(each for each in Role if each in present)
        if Role.TRAIN not in present:
            return f"folders {folders}, and none for training: some of their normal pictures are"
        joined = Role.VAL in present and Role.TEST in present
        return f"folders {folders}" + ("; normal pictures of val are trained with" if joined else "")
    return "all pictures in one folder" if classes == 1 else "a folder for each class"


def _folder(name: str, paths: Sequence[Parts]) -> str:
    """The path of the folder called so that all these files lie in; nothing where there is none."""
    common = paths[0][: _common(paths)]
    return "/".join(common[: len(common) - common[::-1].index(name)]) if name in common else ""


def _common(folders: Sequence[Parts]) -> int:
    """How many folders at the beginning are the same."""
    first, last = min(folders, default=()), max(folders, default=())
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def _by_value(mapping: Mapping[K, V]) -> dict[V, tuple[K, ...]]:
    """The keys by their value."""
    found = defaultdict[V, list[K]](list)
    for key, value in mapping.items():
        found[value].append(key)
    return {value: tuple(keys) for value, keys in found.items()}


def _stem(name: str) -> str:
    """The name of a file without its ending."""
    return name.rpartition(".")[0] or name


def _folded(parts: Parts) -> Parts:
    return tuple(map(same_class, parts))


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Names in order; numbers by their value."""
    return tuple(sorted(set(names), key=lambda name: (not _number(name), int(name) if _number(name) else 0, name)))


def _number(name: str) -> bool:
    return name.isascii() and name.isdecimal()
