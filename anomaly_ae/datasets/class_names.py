"""What the classes of pictures are called, by the folders that they lie in, and which of them is normal."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from anomaly_ae.datasets.placements import folders_called, some
from anomaly_ae.errors import DataError
from anomaly_ae.escaping import counted
from anomaly_ae.images.folder_words import (
    NORMAL_CLASS,
    Parts,
    Role,
    Sense,
    is_container,
    may_be_mask_folder,
    role,
    same_class,
    sense,
)

SAME_FOLDERS = 0.5  # share of numbered folders that must hold the same ones, for these to be the classes


def find_class_names(rests: Mapping[int, Parts], roles: Mapping[int, Role]) -> dict[int, str]:
    """The class of each picture by the folders that it lies in, `rests`; nothing where it lies in none.

    Raises `DataError` when that cannot be said.
    """
    counts = Counter(rests.values())
    wrapped = _wrappers([rest for rest in counts if rest])
    counts = Counter({rest[wrapped:]: count for rest, count in counts.items()})
    level = _class_level({rest: count for rest, count in counts.items() if rest})
    for file in set(roles.values()):
        folders_of_role = {rest[wrapped:] for i, rest in rests.items() if roles[i] is file}
        shallow = {rest for rest in folders_of_role if len(rest) <= level}
        if file is Role.TRAIN and shallow and shallow != folders_of_role:
            loose = sum(roles[i] is file and len(rest[wrapped:]) <= level for i, rest in rests.items())
            folders = {rest[len(min(shallow, key=len))] for rest in folders_of_role - shallow}
            raise DataError(
                f"{counted(loose, 'picture lies', 'pictures lie')} beside {folders_called(folders)}; move "
                f"them into a folder called good or bad, or {some(folders)} elsewhere; or name one folder alone"
            )
    for rest in counts:
        meaning = sense(rest[level]) if len(rest) > level else Sense.ANOMALOUS
        if meaning >= 0 and {*map(sense, rest)} - {meaning, Sense.NOTHING}:
            raise DataError(
                f"the folders {'/'.join(rest)} say different things of their pictures, and {rest[level]} lies where "
                "others are classes; move what is in it out of it, or give it a name that says what its pictures are"
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
    """The depth at which folders are classes: where most of them say normal or anomalous; or where there are the same
    few in each of several that are numbered, as patients are; or the first.
    """

    def said(level: int) -> tuple[int, int]:
        senses = {rest: sense(rest[level]) for rest in counted}
        return sum(count for rest, count in counted.items() if senses[rest]), len(set(senses.values()) - {0})

    depth = min(map(len, counted), default=0)
    level = max(range(depth), key=said, default=0)
    if level or depth < 2 or said(0)[0]:
        return level
    inner = defaultdict[str, set[str]](set)
    for first, second, *_ in counted:
        inner[first].add(second)
    common = set.union(*inner.values())
    same = sum(names == common for names in inner.values())
    is_numbered = all(any(map(str.isdigit, first)) for first in inner)
    return int(is_numbered and 1 < len(common) < len(inner) and same > SAME_FOLDERS * len(inner))


def require_plain(classes: set[str], masked: set[str]) -> None:
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


def one_spelling(names: Mapping[int, str], roles: Mapping[int, Role]) -> dict[int, str]:
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


def one_normal(names: Mapping[int, str], roles: Mapping[int, Role]) -> dict[int, str]:
    """Class names, with one for what is called good, normal, ok … here and there: that of the training, and what
    alone is trained on is normal, whatever it is called.
    """
    trained = {name for i, name in names.items() if roles[i] is Role.TRAIN}
    others = set(names.values()) - trained
    normal = {name for name in others if sense(name) > 0}
    said = {name for name in trained if sense(name) > 0} or (trained if len(trained) == 1 else set())
    if len(said) != 1 or min(map(sense, said)) < 0:
        return {i: name or NORMAL_CLASS for i, name in names.items()}
    one = next(iter(said)) or min(normal, default=NORMAL_CLASS)
    return {i: one if name in normal | said else name for i, name in names.items()}


def find_normal(
    names: Mapping[int, str], roles: Mapping[int, Role], empty: Sequence[str], divided: bool
) -> tuple[str | None, str]:
    """The class that is normal, or None and why that cannot be known.

    empty: folders without pictures; divided: whether there are folders for roles
    """
    trained = {name for i, name in names.items() if roles[i] is Role.TRAIN} or set(names.values())
    said = {name for name in trained if sense(name) > 0}
    bare = [name for name in empty if sense(name) > 0]
    untrained = [name for name in empty if role(name)[0] is Role.TRAIN]
    if untrained and divided and Role.TRAIN not in {roles[i] for i in names}:
        return None, f"{some(untrained)} holds no picture"
    none = f", and {some(bare)} holds no picture" if bare else ""
    if len(said) == 1:
        return said.pop(), ""
    if said:
        return None, f"the classes {some(said)} {'both' if len(said) == 2 else 'all'} sound normal"
    if all(sense(name) < 0 for name in trained):
        return None, f"all there is to train on is called {some(trained)}, which is no name for what is normal{none}"
    if len(trained) > 1:
        return None, f"no name of the classes {some(trained)} says normal{none}"
    (only,) = trained
    if bare or may_be_mask_folder(only):
        return None, f"all there is to train on lies in {only}, which may be something else{none}"
    return only, ""
