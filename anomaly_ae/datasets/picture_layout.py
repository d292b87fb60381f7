"""What each picture is and what it is for: its class, the file it belongs to, its masks; and what is normal."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from anomaly_ae.datasets.class_names import find_normal, one_normal, one_spelling
from anomaly_ae.datasets.normal_classes import ALL_CLASSES
from anomaly_ae.datasets.placements import by_value, ordered_names
from anomaly_ae.errors import DataError
from anomaly_ae.escaping import counted
from anomaly_ae.images.folder_words import ANOMALOUS_CLASS, NORMAL_CLASS, Role, kinds_of, odd_ones, sense
from anomaly_ae.images.masks import MaskColours

TRAIN, TEST = "train", "test"
MARKED = "defective"  # class of the pictures with a defect in their mask
SPARE_VALIDATION = "anomalous validation pictures, beside a test"
UNLABELLED_PICTURES = "unlabelled pictures"
MASK_UNKNOWN = "pictures whose mask cannot be used"

Indices = list[int]  # of pictures among the paths


@dataclass(frozen=True)
class PictureLayout:
    """What each picture is. Each of the paths is in `files`, in `masks` or in `left_out`, once.

    about:    the arrangement, in words
    classes:  names, in order
    files:    "train", and "test" where there is one: indices of the pictures among the paths, and of their classes
    normal:   what is normal unless something else is said; None where that cannot be known
    doubt:    then, why not
    masks:    by the position of a picture, those of its masks
    colours:  what those of masks, by their positions, stand for, where that is said
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
    colours: dict[int, MaskColours] = field(default_factory=dict)
    by_masks: bool = False
    told: bool = True
    by_names: bool = False
    unread: tuple[str, ...] = ()
    sets: dict[str, Indices] = field(default_factory=dict)
    alone: str = ""
    left_out: dict[str, Indices] = field(default_factory=dict)

    def marked(self, marked: Collection[int], unknown: Collection[int]) -> "PictureLayout":
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

    def as_one(self) -> "PictureLayout":
        """The same where somebody says what all the pictures of a folder are: names of files tell nothing then."""
        if not self.by_names or {*self.classes} != {NORMAL_CLASS, ANOMALOUS_CLASS}:
            return self
        files = {file: (indices, [0] * len(indices)) for file, (indices, _) in self.files.items()}
        return dataclasses.replace(self, classes=(NORMAL_CLASS,), files=files, by_names=False)

    def with_unread(self, unread: Sequence[str]) -> "PictureLayout":
        """The same, where there are files of labels, boxes or outlines that are not read, in words: where nothing
        else says which pictures are normal, they may say that some are not.
        """
        if not unread or self.told or self.doubt:
            return dataclasses.replace(self, unread=tuple(unread))
        doubt = f"which pictures are anomalous may be said in {' and '.join(unread)}, and such files are not read"
        return dataclasses.replace(self, normal=None, doubt=doubt, unread=tuple(unread))


def arrange(
    names: Mapping[int, str],
    roles: Mapping[int, Role],
    called: Mapping[int, str],
    divided: bool,
    empty: Sequence[str] = (),
    by_masks: bool = False,
) -> PictureLayout:
    """The layout of pictures that have these classes and roles, and are called so, by their indices; without masks.

    divided:  whether anything says their roles
    empty:    names of folders without pictures
    by_masks: see `PictureLayout`, of which `about` has what is to be said of the names of the files, if anything
    """
    untold = [i for i, name in names.items() if not sense(name) and not by_masks]
    is_told = by_masks or any(map(sense, set(names.values())))
    names = one_normal(one_spelling(names, roles), roles)
    normal, doubt = find_normal(names, roles, empty, divided)
    odd, remark, many = odd_ones({i: called[i] for i in untold if names[i] == normal})
    if many:
        renamed = {normal: normal if is_told else NORMAL_CLASS}
        names = {i: ANOMALOUS_CLASS if i in odd else renamed.get(name) or name for i, name in names.items()}
        normal, doubt = None, remark
    elif not is_told and normal and not remark:
        remark = kinds_of([called[i] for i, name in names.items() if name == normal])
    present, spare = {roles[i] for i in names}, set[int]()
    if {Role.TRAIN, Role.VAL, Role.TEST} <= present:
        spare = {i for i, name in names.items() if roles[i] is Role.VAL and normal not in (None, name)}
    names = {i: name for i, name in names.items() if i not in spare}
    classes = ordered_names(names.values())
    return PictureLayout(
        about=remark,
        classes=classes,
        files=_files(names, roles, classes, present),
        normal=ALL_CLASSES if normal and len(classes) == 1 else normal,
        doubt=doubt,
        by_masks=by_masks,
        told=is_told,
        by_names=many,
        left_out={SPARE_VALIDATION: sorted(spare)} if spare else {},
    )


def arrangement(present: Collection[Role], noun: str) -> str:
    """The roles that there are folders, or whatever `noun` says, for, in words; nothing where there are none."""
    if not present:
        return ""
    names = " and ".join(each for each in Role if each in present)
    roles = f"{noun}s {names}" if len(present) > 1 else f"{noun} {names}"
    if Role.TRAIN not in present:
        return f"{roles}, and none for training: some of their normal pictures are"
    return f"{roles}; normal pictures of val are trained with" if {Role.VAL, Role.TEST} <= {*present} else roles


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
