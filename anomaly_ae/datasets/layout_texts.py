"""What was found in a folder of pictures or a manifest, for people: tables of what is used for what, a small tree."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from anomaly_ae.datasets.picture_layout import TEST, TRAIN, PictureLayout
from anomaly_ae.escaping import counted, counted_as, printable
from anomaly_ae.images.folder_words import Parts, says_something, split_path
from anomaly_ae.images.listing import Listing
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.tables import columns

TO_TRAIN, TO_MEASURE, TO_CALIBRATE = "training", "measuring", "calibrating"  # what pictures are for
MOST_ROWS, MOST_LINES, MOST_BELOW, TREE_DEPTH = 12, 16, 6, 4  # of the table; of the tree, a folder in it, its depth
MOST_UNREAD = 10  # folders and links, by name
WIDEST = 40  # characters of a name


def describe_layout(layout: PictureLayout, listing: Listing, normal: Collection[int], purpose: str) -> str:
    """What is used for what, a row for each class of each file; and what is left out, with the reason.

    normal: indices of the classes that are; purpose: what the pictures are for
    """
    rows = [row for file in (TRAIN, TEST) if file in layout.files for row in _rows(layout, file, normal, purpose)]
    lines = columns(rows[:MOST_ROWS], right=(2 if TEST in layout.files else 1,))
    if len(rows) > MOST_ROWS:
        lines.append(f"and {counted(len(rows) - MOST_ROWS, 'more row')}")
    lines += [f"not read: {what}" for what in layout.unread]
    lines += _left_out(listing, layout)
    lines += [f"no picture in {_name(folder)}" for folder in map(split_path, listing.empty) if says_something(folder)]
    lines += [*first_unread(listing), *_sets(layout, normal)]
    return "\n".join([layout.about, *(f"  {line}" for line in lines)])


def _left_out(listing: Listing, layout: PictureLayout | None) -> list[str]:
    """How many files are used for nothing, a line for each of the reasons, which are phrases in plural."""
    left_out = layout.left_out if layout else {}
    reasons = Counter({reason: len(indices) for reason, indices in left_out.items()}) + Counter(listing.left_out)
    return [f"left out: {counted_as(count, reason)}" for reason, count in sorted(reasons.items())]


def first_unread(listing: Listing) -> list[str]:
    """Some of the folders that could not be looked into, and of the links that lead nowhere, and how many more."""
    more = len(listing.unread) - MOST_UNREAD
    return [*listing.unread[:MOST_UNREAD], *([f"and {more:,} more of that kind"] if more > 0 else [])]


def say_left_out_of(listing: Listing, layout: PictureLayout | None = None) -> None:
    """Say what is none of the pictures that were found though people may think so."""
    for line in (*_left_out(listing, layout), *first_unread(listing)):
        logger.info(line)


def _sets(layout: PictureLayout, normal: Collection[int]) -> list[str]:
    """The data sets that were taken together, a row for each."""
    is_normal = {i: label in normal for of in layout.files.values() for i, label in zip(*of, strict=True)}
    rows = [
        (f"  {_name([name])}", f"{good:,} normal", f"{len(chosen) - good:,} anomalous")
        for name, chosen in layout.sets.items()
        for good in (sum(is_normal.get(i, False) for i in chosen),)
    ]
    more = [f"  and {len(rows) - MOST_ROWS:,} more"] if len(rows) > MOST_ROWS else []
    return ["taken together:", *columns(rows[:MOST_ROWS], right=(1, 2)), *more] if rows else []


def _rows(layout: PictureLayout, file: str, normal: Collection[int], purpose: str) -> list[tuple[str, ...]]:
    """The classes of a file, normal ones first: the file, where there are two, name, pictures, and their use."""
    tested = TEST in layout.files
    indices, labels = layout.files[file]
    masked = Counter(label for i, label in zip(indices, labels, strict=True) if i in layout.masks)
    counts = sorted(Counter(labels).items(), key=lambda item: (item[0] not in normal, item[0]))
    return [
        (
            *([file] if tested else []),
            _name([layout.classes[label]]),
            f"{count:,}",
            f"{'normal' if label in normal else 'anomalous'}: "
            + _use(file, label in normal, tested, purpose)
            + (f"; {masked[label]:,} with masks" if masked[label] else ""),
        )
        for label, count in counts
    ]


def _use(file: str, is_normal: bool, tested: bool, purpose: str) -> str:
    """What pictures are used for, by their file and whether there is one for the test."""
    if purpose == TO_CALIBRATE:
        return "to set the threshold" if is_normal else "not used"
    if file == TEST or not (tested or (purpose == TO_TRAIN and is_normal)):
        return "to measure with"
    if purpose == TO_MEASURE or not is_normal:
        return "not used"
    return "to learn from, to set the threshold" + ("" if tested else ", and to measure with")


def folder_tree(paths: Iterable[bytes], empty: Iterable[bytes]) -> list[str]:
    """The folders that pictures lie in, and empty ones, each with how many are below it; as many as can be read."""
    counts = Counter({split_path(path): 0 for path in empty})
    for path in paths:
        folders = split_path(path)[:-1]
        counts.update(folders[:depth] for depth in range(len(folders) + 1))
    below = defaultdict[Parts, list[Parts]](list)
    for folder in sorted(counts):
        if folder:
            below[folder[:-1]].append(folder)
    lines = columns(_branch((), below, counts), right=(1,))
    return lines[:MOST_LINES] + (["…"] if len(lines) > MOST_LINES else [])


def label_table(layout: PictureLayout) -> list[str]:
    """The classes of pictures, each with how many there are; as many as can be read."""
    counts = Counter(label for _, labels in layout.files.values() for label in labels)
    rows = [(_name([layout.classes[label]]), f"{count:,}") for label, count in counts.most_common(MOST_ROWS)]
    more = [f"and {counted(len(counts) - MOST_ROWS, 'more label')}"] if len(counts) > MOST_ROWS else []
    return [*columns(rows, right=(1,)), *more]


def _branch(
    folder: Parts, below: Mapping[Parts, Sequence[Parts]], counts: Mapping[Parts, int]
) -> list[tuple[str, str]]:
    """A folder and what is below it, as names and counts."""
    indent = "  " * len(folder)
    rows = [(f"{indent}{_name(folder[-1:])}/" if folder else "all pictures", f"{counts[folder]:,}")]
    inner = below[folder] if len(folder) < TREE_DEPTH else []
    for each in inner[:MOST_BELOW]:
        rows += _branch(each, below, counts)
    if more := inner[MOST_BELOW:]:
        rows.append((f"{indent}  {counted(len(more), 'more folder')}", f"{sum(counts[each] for each in more):,}"))
    return rows


def _name(parts: Sequence[str]) -> str:
    """Names of folders, as wide as a line bears, with what cannot be printed escaped."""
    plain = printable("/".join(parts))
    return plain if len(plain) <= WIDEST else f"{plain[: WIDEST - 1]}…"
