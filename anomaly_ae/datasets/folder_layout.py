"""What the pictures of a folder are and what they are for, found out from the paths in it alone."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from anomaly_ae.datasets.class_names import find_class_names, require_plain
from anomaly_ae.datasets.picture_layout import UNLABELLED_PICTURES, PictureLayout, arrange, arrangement
from anomaly_ae.datasets.placements import Placement, by_value, find_placements, folders_called, match_masks
from anomaly_ae.errors import DataError
from anomaly_ae.escaping import counted, counted_as
from anomaly_ae.images.folder_words import DRAWN, DRAWN_AFFIX, Parts, Role, Sense, junk, sense, split_path, stem_of

MANY_GROUPS, SMALL_GROUP = 20, 20  # more folders than so many with fewer images than so many are parts or patients
ASTRAY = "masks without a picture"
OUTSIDE = "pictures outside of the folders for training and test"
UNSAID = "pictures that no folder calls normal or anomalous"


def find_layout(paths: Sequence[bytes], empty: Iterable[bytes] = ()) -> PictureLayout:
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
    divided = any(place.role for place in pictures.values())
    bare = [parts[-1] for parts in map(split_path, empty) if not junk(parts)]
    layout = arrange(names, roles, {i: split[i][-1] for i in names}, divided, bare, by_masks)
    used = {i for indices, _ in layout.files.values() for i in indices}
    by_set = by_value({i: within[i] for i in names if i in within and i in used})
    sets = {name: sorted(by_set[name]) for name in sorted(by_set)}
    if sets:
        layout = dataclasses.replace(layout, normal=None, doubt=f"{folders_called(sets)} hold a data set each")
    fits = {mask: i for mask, i in fitting.items() if i in used}
    left_out |= {i: ASTRAY for i in (*placed.masks, *placed.beside) if i not in fits}
    kinds = 1 if layout.by_names else len(layout.classes)
    about = arrangement({roles[i] for i in names} if divided else set(), "folder") or (
        "all pictures in one folder" if kinds == 1 else "a folder for each class"
    )
    return dataclasses.replace(
        layout,
        about=f"{about}; {layout.about}" if layout.about else about,
        masks=by_value(fits),
        sets=sets,
        alone=_alone({name: [split[i] for i in chosen] for name, chosen in sets.items()}),
        left_out=layout.left_out | {reason: sorted(chosen) for reason, chosen in by_value(left_out).items()},
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
