"""Files beside pictures that may say what is in them, and are not read: tables of labels, boxes, outlines."""

import codecs
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

from anomaly_ae.escaping import counted
from anomaly_ae.images.folder_words import junk, same_class, split_path, stem_of

SHEETS = (".xlsx", ".xlsm", ".ods")  # of a spreadsheet: archives of XML
TEXTS = (".txt", ".xml", ".json", ".jsonl", ".ndjson", ".geojson", ".csv", ".tsv", ".yaml", ".yml")
ARRAYS = (".mat", ".npy", ".npz")
ANNOTATION_ENDINGS = tuple(ending.encode() for ending in (*SHEETS, *TEXTS, *ARRAYS))
MOST_ANNOTATION_BYTES, MOST_FILES = 2**22, 100  # of a file, and files that are looked into
SHORTEST = 4  # letters of a name without its ending; a shorter one, or one without digits, may be any number or word
MOST_CHANCE = 0.5  # share of the pictures whose names without endings may be in a file by chance
BETWEEN = re.compile(r"[,;|\t\r\n\"'<>/\\]+")
SPACES = re.compile(r"[\s,;|\"'<>/\\]+")


def may_annotate(path: bytes) -> bool:
    """Whether a file is called as those that labels, boxes or outlines are kept in, and is not hidden."""
    return path.lower().endswith(ANNOTATION_ENDINGS) and not junk(split_path(path))


def find_annotations(
    files: Iterable[bytes], pictures: Collection[bytes], read: Callable[[bytes, int], bytes]
) -> list[str]:
    """Which files are called as pictures but for their ending, or have the names of pictures in them; in words.

    read: gives so many of the first bytes of a file
    """
    names = {same_class(split_path(path)[-1]) for path in pictures}
    stems = {stem_of(name) for name in names}
    sure = names | {stem for stem in stems if len(stem) >= SHORTEST and any(map(str.isdigit, stem))}
    called, others = defaultdict[str, list[bytes]](list), list[bytes]()
    for path in sorted(files):
        name = same_class(split_path(path)[-1])
        if (stem := stem_of(name)) in stems or stem in names:
            called[name[len(stem) :]].append(path)
        elif not name.endswith(ARRAYS):
            others.append(path)
    naming = [
        path
        for path in others[:MOST_FILES]
        for words in (_words(path, read(path, MOST_ANNOTATION_BYTES)),)
        if not sure.isdisjoint(words) or len(stems & words) > MOST_CHANCE * len(stems)
    ]
    groups = [
        (f"{ending} file", "called as a picture", "called as pictures", paths) for ending, paths in called.items()
    ]
    groups += [("file", "with names of pictures", "with names of pictures", naming)] if naming else []
    return [
        f"{counted(len(paths), noun)} {one if len(paths) == 1 else many}, {'as ' if len(paths) > 1 else ''}"
        f"{'/'.join(split_path(paths[0]))}"
        for noun, one, many, paths in groups
    ]


def _words(path: bytes, content: bytes) -> set[str]:
    """What stands between commas, quotes, tags, slashes, or spaces as well."""
    if path.lower().endswith(tuple(map(str.encode, SHEETS))):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                parts = [name for name in archive.namelist() if name.endswith(".xml")]
                content = b"\n".join(archive.open(name).read(MOST_ANNOTATION_BYTES) for name in parts[:MOST_FILES])
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
            return set()  # it is damaged, or larger than what is looked at
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = same_class(content.decode("utf-16" if utf16 else "utf-8-sig", "replace"))
    return {word.strip() for pattern in (BETWEEN, SPACES) for word in pattern.split(text)}
