"""What the pictures of a folder are and what they are for, found out from the paths in it alone."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from anomaly_ae.datasets.class_names import find_class_names, find_normal, one_normal, one_spelling, require_plain
from anomaly_ae.datasets.normal_classes import ALL_CLASSES
from anomaly_ae.datasets.placements import (
    Placement,
    by_value,
    find_placements,
    folders_called,
    match_masks,
    ordered_names,
)
from anomaly_ae.errors import DataError
from anomaly_ae.escaping import counted, counted_as
from anomaly_ae.images.folder_words import (
    ANOMALOUS_CLASS,
    DRAWN,
    DRAWN_AFFIX,
    NORMAL_CLASS,
    Parts,
    Role,
    Sense,
    junk,
    kinds_of,
    odd_ones,
    sense,
    split_path,
    stem_of,
)

TRAIN, TEST = "train", "test"
MARKED = "defective"  # class of the pictures with a defect in their mask
MANY_GROUPS, SMALL_GROUP = 20, 20  # more folders than so many with fewer images than so many are parts or patients
ASTRAY = "masks without a picture"
OUTSIDE = "pictures outside of the folders for training and test"
UNSAID = "pictures that no folder calls normal or anomalous"
SPARE_VALIDATION = "anomalous validation pictures, beside a test"
UNLABELLED_PICTURES = "unlabelled pictures"
MASK_UNKNOWN = "pictures whose mask cannot be used"

Indices = list[int]  # of pictures among the paths


@dataclass(frozen=True)
class FolderLayout:
    """What each picture is. Each of the paths is in `files`, in `masks` or in `left_out`, once.

    about:    the arrangement, in words
    classes:  names, in order
    files:    "train", and "test" where there is one: indices of the pictures among the paths, and of their classes
    normal:   what is normal unless something else is said; None where that cannot be known
    doubt:    then, why not
    masks:    by the position of a picture, those of its masks
    by_masks: whether nothing but the masks says which pictures are normal, see `marked`
    told:     whether folders or masks say which pictures are normal or anomalous
    by_names: whether nothing but names of files tells the normal ones of a folder from others
    unread:   files that may say so, too, and are not read, in words
    sets:     folders side by side that hold a data set each, with the indices of their pictures; none if one does
    alone:    the path of one of them, where there is one
    left_out: pictures that are used for nothing, by the reason
    """

    about: str
    classes: tuple[str, ...]
    files: dict[str, tuple[Indices, list[int]]]
    normal: str | None
    doubt: str = ""
    masks: dict[int, tuple[int, ...]] = field(default_factory=dict)
    by_masks: bool = False
    told: bool = True
    by_names: bool = False
    unread: tuple[str, ...] = ()
    sets: dict[str, Indices] = field(default_factory=dict)
    alone: str = ""
    left_out: dict[str, Indices] = field(default_factory=dict)

    def marked(self, marked: Collection[int], unknown: Collection[int]) -> "FolderLayout":
        """The same with the pictures at the indices `marked` defective, and the others normal, but for those at
        `unknown`, whose masks cannot be used.
        """
        classes = (MARKED, NORMAL_CLASS) if marked else (NORMAL_CLASS,)
        chosen = {file: [i for i in indices if i not in unknown] for file, (indices, _) in self.files.items()}
        files = {
            file: (usable, [classes.index(MARKED if i in marked else NORMAL_CLASS) for i in usable])
            for file, usable in chosen.items()
            if usable
        }
        if TRAIN not in files:
            raise DataError(
                "none of the masks, which alone would say what is normal, can be used; mend or remove them"
            )
        if classes.index(NORMAL_CLASS) not in files[TRAIN][1]:
            return dataclasses.replace(
                self, normal=None, doubt="each of the pictures has a mask that marks something in it"
            )
        bare = [[i for i in usable if i not in self.masks] for usable, _ in files.values()]
        empty = [sum(i in self.masks and i not in marked for i in usable) for usable, _ in files.values()]
        without = counted(sum(map(len, bare)), "picture has no mask", "pictures have no mask") if any(bare) else ""
        doubt = self.doubt if self.sets else ""
        if not doubt and any(missing and sound for missing, sound in zip(bare, empty, strict=True)):
            doubt = f"{without}, and {counted(sum(empty), 'has an empty one', 'have an empty one')}"
        return dataclasses.replace(
            self,
            about=f"{self.about}; normal are those that no mask marks anything in{f'; {without}' * bool(without)}",
            classes=classes,
            files=files,
            normal=None if doubt else NORMAL_CLASS if marked else ALL_CLASSES,
            doubt=doubt,
            left_out=self.left_out | ({MASK_UNKNOWN: sorted(unknown)} if unknown else {}),
        )

    def as_one(self) -> "FolderLayout":
        """The same where somebody says what all the pictures of a folder are: names of files tell nothing then."""
        if not self.by_names or {*self.classes} != {NORMAL_CLASS, ANOMALOUS_CLASS}:
            return self
        files = {file: (indices, [0] * len(indices)) for file, (indices, _) in self.files.items()}
        return dataclasses.replace(self, classes=(NORMAL_CLASS,), files=files, by_names=False)

    def with_unread(self, unread: Sequence[str]) -> "FolderLayout":
        """The same, where there are files of labels, boxes or outlines that are not read, in words: where nothing
        else says which pictures are normal, they may say that some are not.
        """
        if not unread or self.told or self.doubt:
            return dataclasses.replace(self, unread=tuple(unread))
        doubt = f"which pictures are anomalous may be said in {' and '.join(unread)}, and such files are not read"
        return dataclasses.replace(self, normal=None, doubt=doubt, unread=tuple(unread))


def find_layout(paths: Sequence[bytes], empty: Iterable[bytes] = ()) -> FolderLayout:
    """The layout of pictures at these paths: in folders for roles (train, val, test), for classes, for masks, and for
    nothing but pictures (images, data), in any order and depth; with masks beside the pictures; or all in one folder.

    empty: folders without any picture
    Classes are told by the folders whose names say normal or anomalous, else by the first that differ.
    Raises `DataError` where it cannot be known what pictures are.
    """
    split = [split_path(path) for path in paths]
    left_out = _drawn(split) | {i: reason for i, parts in enumerate(split) if (reason := junk(parts))}
    ordered = sorted(range(len(paths)), key=paths.__getitem__)  # so that nothing depends on the order of the paths
    placed = find_placements({i: split[i] for i in ordered if i not in left_out})
    left_out |= _unused(placed.pictures)
    pictures = {i: place for i, place in placed.pictures.items() if i not in left_out}
    _require_pictures(len(pictures), len(placed.masks), left_out)
    roles = {i: place.role or Role.TRAIN for i, place in pictures.items()}
    within, rests = _find_sets(pictures, placed.masks)
    names = find_class_names(rests, roles)
    fitting = placed.beside | match_masks(placed, pictures, names)
    by_masks = _told_by_masks(names, roles, set(fitting.values()))
    # Not for training and in no class, unless masks tell what those of their role are
    roles_told = {Role.TRAIN, *(roles[i] for i in fitting.values() if by_masks and i in roles)}
    left_out |= {i: UNSAID for i, name in names.items() if not name and roles[i] not in roles_told}
    names = {i: name for i, name in names.items() if i not in left_out}
    _require_pictures(len(names), len(placed.masks), left_out)
    require_plain(set(names.values()), {part for place in placed.masks.values() for part in place.rest})
    untold = [i for i, name in names.items() if not sense(name) and not by_masks]
    said = set(names.values())
    names = one_normal(one_spelling(names, roles), roles)
    divided = any(place.role for place in pictures.values())
    normal, doubt = find_normal(
        names, roles, [parts[-1] for parts in map(split_path, empty) if not junk(parts)], divided
    )
    is_told = by_masks or any(map(sense, said))
    odd, remark, many = odd_ones({i: split[i][-1] for i in untold if names[i] == normal})
    if many:
        renamed = {normal: normal if is_told else NORMAL_CLASS}
        names = {i: ANOMALOUS_CLASS if i in odd else renamed.get(name) or name for i, name in names.items()}
        normal, doubt = None, remark
    elif not is_told and normal and not remark:
        remark = kinds_of([split[i][-1] for i, name in names.items() if name == normal])
    present = {roles[i] for i in names}
    if {Role.TRAIN, Role.VAL, Role.TEST} <= present:
        is_spare = [i for i, name in names.items() if roles[i] is Role.VAL and normal not in (None, name)]
        left_out |= dict.fromkeys(is_spare, SPARE_VALIDATION)
    names = {i: name for i, name in names.items() if i not in left_out}
    by_set = by_value({i: within[i] for i in names if i in within})
    sets = {name: sorted(by_set[name]) for name in sorted(by_set)}
    if sets:
        normal, doubt = None, f"{folders_called(sets)} hold a data set each"
    classes = ordered_names(names.values())
    fits = {mask: i for mask, i in fitting.items() if i in names}
    left_out |= {i: ASTRAY for i in (*placed.masks, *placed.beside) if i not in fits}
    return FolderLayout(
        about=_about(present if divided else set(), 1 if many else len(classes)) + (f"; {remark}" if remark else ""),
        classes=classes,
        files=_files(names, roles, classes, present),
        normal=ALL_CLASSES if normal and len(classes) == 1 else normal,
        doubt=doubt,
        masks=by_value(fits),
        by_masks=by_masks,
        told=is_told,
        by_names=many,
        sets=sets,
        alone=_alone({name: [split[i] for i in chosen] for name, chosen in sets.items()}),
        left_out={reason: sorted(chosen) for reason, chosen in by_value(left_out).items()},
    )


def _drawn(split: Sequence[Parts]) -> dict[int, str]:
    """Pictures called as another one beside them, with `_overlay`, `_heatmap` … after it."""
    stems = [(parts[:-1], stem_of(parts[-1])) for parts in split]
    originals = set(stems)
    return {
        i: DRAWN
        for i, (folder, stem) in enumerate(stems)
        if (plain := DRAWN_AFFIX.sub("", stem)) != stem and (folder, plain) in originals
    }


def _unused(pictures: Mapping[int, Placement]) -> dict[int, str]:
    """Pictures in folders of unlabelled ones, and those in none for training or test where there are such folders."""
    divided = any(place.role not in (None, Role.UNLABELLED) for place in pictures.values())
    return {
        i: UNLABELLED_PICTURES if place.role else OUTSIDE
        for i, place in pictures.items()
        if place.role is Role.UNLABELLED or (divided and place.role is None)
    }


def _files(
    names: Mapping[int, str], roles: Mapping[int, Role], classes: Sequence[str], present: Collection[Role]
) -> dict[str, tuple[Indices, list[int]]]:
    """Indices of each file's pictures, and of their classes; validation pictures are the test where there is none."""
    tested = None if Role.TRAIN not in present else Role.TEST if Role.TEST in present else Role.VAL
    by_file = by_value({i: TEST if roles[i] is tested else TRAIN for i in sorted(names)})
    return {
        file: ([*by_file[file]], [classes.index(names[i]) for i in by_file[file]])
        for file in (TRAIN, TEST)
        if file in by_file
    }


def _find_sets(
    pictures: Mapping[int, Placement], masks: Mapping[int, Placement]
) -> tuple[dict[int, str], dict[int, Parts]]:
    """The folder that each picture lies in which holds a data set, where several do; and of each picture the
    `Placement.rest` without it.

    Such a folder has folders for normal or anomalous pictures in it, or for training and test with classes or masks.
    There are none where only one has normal pictures to train on, or where they are so many and so small that they
    are parts or patients.
    """
    places = [*pictures.values(), *masks.values()]
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
    several = not parts and len(normal & sizes.keys()) > 1
    within = {
        i: name
        for i, place in pictures.items()
        if several and (name := "".join(place.rest[level : level + 1])) in sizes
    }
    rests = {i: place.rest for i, place in pictures.items()}
    return within, rests | {i: rests[i][:level] + rests[i][level + 1 :] for i in within}


def _require_pictures(pictures: int, masks: int, left_out: Mapping[int, str]) -> None:
    if not pictures:
        counts = [counted_as(count, reason) for reason, count in Counter(left_out.values()).items()]
        counts += [f"{counted(masks, 'mask')}, by the names of their folders"] if masks else []
        raise DataError(
            f"no folder says of any picture what it is; found: {'; '.join(counts)}; name the very folder of the "
            "normal pictures, or put them into a folder called good"
        )


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


def _about(present: Collection[Role], classes: int) -> str:
    """The arrangement in words, by the roles that there are folders for."""
    if present:
        folders = " and ".join(each for each in Role if each in present)
        folder = "folders " if len(present) > 1 else "folder "
        if Role.TRAIN not in present:
            return f"{folder}{folders}, and none for training: some of their normal pictures are"
        joined = Role.VAL in present and Role.TEST in present
        return f"{folder}{folders}" + ("; normal pictures of val are trained with" if joined else "")
    return "all pictures in one folder" if classes == 1 else "a folder for each class"


def _alone(files: Mapping[str, Sequence[Parts]]) -> str:
    """The path of the first folder, of those called as the keys, that all of its files lie in; nothing if none is."""
    for name, paths in files.items():
        common = paths[0][: _common(paths)]
        if name in common:
            return "/".join(common[: len(common) - common[::-1].index(name)])
    return ""


def _common(folders: Sequence[Parts]) -> int:
    """How many folders at the beginning are the same."""
    first, last = min(folders, default=()), max(folders, default=())
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
