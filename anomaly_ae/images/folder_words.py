"""What the names of folders and files say: normal or anomalous, training or test, pictures or masks."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from enum import IntEnum, StrEnum
from functools import lru_cache
from itertools import pairwise

from anomaly_ae.escaping import counted

Parts = tuple[str, ...]  # of a path


class Sense(IntEnum):
    """What a name says of the pictures below it."""

    ANOMALOUS = -1
    NOTHING = 0
    NORMAL = 1


class Role(StrEnum):
    """What the pictures below a folder are for."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    UNLABELLED = "unlabelled"


def _words_in(text: str) -> frozenset[str]:
    return frozenset(text.split())


NORMAL_WORDS = _words_in(
    "good normal normals ok okay nominal intact negative negatives healthy pass passed accept accepted flawless "
    "faultless defectless defectfree undamaged unbroken uncracked conforming correct clean perfect usual inlier "
    "inliers io gut bon bueno buono 正常 良品 合格"
)
ANOMALY_WORDS = _words_in(
    "bad ng nok nio ko broken scrap scrapped scratch scratched scratches crack cracks cracked dent dents dented "
    "stain stains stained flaw flaws flawed fail fails failed failure failures faulty fault faults positive "
    "positives novel novelty novelties unhealthy irregular imperfect kaputt schlecht ausschuss fehler error errors "
    "wrong disease diseased diseases tumor tumors tumour tumours lesion lesions cancer cancerous carcinoma glioma "
    "melanoma malignant infection infections infected parasitized pneumonia pathologic pathological sick spoiled "
    "spoilt rotten rust rusty corroded corrosion torn bent chipped dirty leaking "
    "worn deformed invalid incorrect unusual suspicious fake foreign nogo malo roto 異常 异常 不良 不良品 次品 缺陷"
)
ANOMALY_STEMS = tuple(
    _words_in(
        "anomal abnorm anormal defect defekt defaut defeit difett fehler damag beschadig reject outlier contaminat "
        "malfunction"
    )
)
WHOLE_NAMES = {  # pos1, pos2 … are positions
    **dict.fromkeys(("neg", "no", "nein", "non"), Sense.NORMAL),  # to the question whether there is something
    **dict.fromkeys(("pos", "yes", "ja", "oui"), Sense.ANOMALOUS),
}
NEGATIONS = _words_in("not no non without wo un n zero kein keine ohne nicht")
PREFIXES = ("non", "not", "no", "un")  # that negate what is written together with them
AFTERWARDS = ("free", "less")  # as in defect-free

ROLE_WORDS = {
    **dict.fromkeys(_words_in("train training trainval"), Role.TRAIN),
    **dict.fromkeys(_words_in("val valid validation validate"), Role.VAL),
    **dict.fromkeys(_words_in("test testing eval evaluation"), Role.TEST),
}
UNLABELLED_WORDS = _words_in("unlabelled unlabeled unknown unsorted unsure uncertain")
HELD_BACK = "private"  # of a test, as MVTec AD 2 calls it
CONTAINERS = _words_in(
    "images image img imgs data pictures picture pics photos photo jpegimages jpegs frames png pngs jpg jpgs jpeg "
    "bmp tif tiff files samples input inputs rgb"
)
FILLERS = CONTAINERS | _words_in("set sets split splits dataset datasets folder public mixed parts part")
GLUED = (
    *("images", "image", "imgs", "img", "pictures", "photos"),
    *("samples", "parts", "pieces", "products", "items", "teile"),
)

MASKS = _words_in("masks groundtruth gt gts segmentation segmentations")
PERHAPS_MASKS = _words_in("mask label labels annotation annotations anno seg")  # or a class that is called so
BESIDE_MASKS = FILLERS | _words_in("class object binary pixel semantic instance colour color")
GROUND_TRUTH = re.compile(r"ground[\W_]*truth", re.IGNORECASE)
MASK_NAMES = "masks?|gt|ground[ _-]?truth|labels?|seg|segmentation|annotations?|anno"
MASK_AFFIX = re.compile(
    rf"(?:[ _.-]+(?:{MASK_NAMES})(?:[ _.-]*\d+)?$)|(?:^(?:{MASK_NAMES})[ _.-]+)", re.IGNORECASE
)  # in the name of a file without its ending

DRAWN = "pictures with heat maps or outlines drawn over them"
DRAWN_AFFIX = re.compile(r"[ _.-]+(?:overlay|heat[ _-]?map|visuali[sz]ation|vis|blend(?:ed)?)$", re.IGNORECASE)
MAC_REMARKS = "remarks of a Mac"
JUNK = {
    **dict.fromkeys(("@eadir", "thumbnails", "thumbs", "_thumbs", "thumb"), "thumbnails"),
    **dict.fromkeys(("__macosx",), MAC_REMARKS),
    **dict.fromkeys(("heatmap", "heatmaps", "heat_maps", "heat-maps", "heat maps", "overlay", "overlays"), DRAWN),
    **dict.fromkeys(("#recycle", "$recycle.bin", "lost+found"), "deleted files"),
}
NORMAL_CLASS, ANOMALOUS_CLASS = "normal", "anomalous"  # classes of pictures that no folder tells apart
MOST_ODD = 0.03  # share of pictures that may have names such as bad.png though their folder says nothing
MOST_KINDS, FEWEST_OF_A_KIND = 4, 2  # of names, and pictures of one
NUMBER = re.compile("([0-9]+)")
MOST_NAMES = 2**16  # whose meaning is kept
BOUNDARY = re.compile(r"(?<=[a-zß-ÿ])(?=[A-Z])")
SEPARATORS = re.compile(r"[\W\d_]+")


def split_path(path: bytes) -> Parts:
    """The parts of a path, normalised (NFC); a backslash parts them, too, as in archives that Windows packed."""
    text = path.replace(b"\\", b"/").decode("utf-8", "backslashreplace")
    return tuple(unicodedata.normalize("NFC", part) for part in text.split("/") if part) or (text,)


def stem_of(name: str) -> str:
    """The name of a file without its ending."""
    return name.rpartition(".")[0] or name


def is_container(name: str) -> bool:
    """Whether a folder is called `images`, `Data`, `JPEGImages` …, which says nothing of what is in it."""
    words = _words(name)
    return bool(words) and set(words) <= CONTAINERS


def junk(parts: Parts) -> str | None:
    """Why a file at this path is none that somebody put there as a picture, or None."""
    if any(part.startswith(".") for part in parts):
        return "hidden pictures"
    return next((JUNK[part.casefold()] for part in parts[:-1] if part.casefold() in JUNK), None)


def says_something(parts: Parts) -> bool:
    """Whether the last of these folders is called so that one would look for pictures in it."""
    return not junk(parts) and bool(sense(parts[-1]) or role(parts[-1])[0])


@lru_cache(MOST_NAMES)
def sense(name: str) -> Sense:
    """Whether a folder's name says normal, as `good`, `001_OK` and `no-defects` do, or anomalous, as `NG 1`,
    `bad_parts` and `not good`; what says both is anomalous.
    """
    words = _words(name)
    if (whole := WHOLE_NAMES.get(name.casefold()) or _known("".join(words))) is not Sense.NOTHING:
        return whole
    meanings, negated = [], False
    for word, following in pairwise((*words, "")):
        if word in NEGATIONS or (word == "free" and following in ("of", "from")):
            negated = True
        elif said := _known(word):
            meanings.append(-said if negated or following in AFTERWARDS else said)
            negated = False
    return Sense(min(meanings, default=0))


def _known(word: str) -> Sense:
    """What one word says, also after `non` or `un`, and with `images`, `parts` … at its end."""
    for plain in (word, *(word.removesuffix(ending) for ending in GLUED)):
        if plain in NORMAL_WORDS:
            return Sense.NORMAL
        if plain in ANOMALY_WORDS or plain.startswith(ANOMALY_STEMS):
            return Sense.ANOMALOUS
    negated = next((word[len(prefix) :] for prefix in PREFIXES if word.startswith(prefix) and word != prefix), "")
    return Sense(-_known(negated)) if negated else Sense.NOTHING


def role(name: str) -> tuple[Role | None, str]:
    """The role that a folder's name gives, and a class that it names as well: `train_good` is (train, good)."""
    words = _words(name)
    roles = {ROLE_WORDS[word] for word in words if word in ROLE_WORDS}
    others = [word for word in words if word not in ROLE_WORDS and word not in FILLERS | MASKS | PERHAPS_MASKS]
    if (HELD_BACK in others and roles) or (others and set(others) <= UNLABELLED_WORDS):
        return Role.UNLABELLED, ""
    rest = "_".join(others)
    if len(roles) != 1 or (rest and not sense(rest)):
        return None, ""
    return roles.pop(), rest


def is_mask_folder(name: str) -> bool:
    """Whether a folder is called so that it can only be one of masks: `ground_truth`, `masks`, `defect_mask` …"""
    words = _mask_words(name)
    return bool(MASKS & set(words)) or ("mask" in words and len(words) > 1)


def may_be_mask_folder(name: str) -> bool:
    """Whether a folder's name, `mask`, `labels` …, is that of masks or of a class."""
    return bool(_mask_words(name)) and not is_mask_folder(name)


def _mask_words(name: str) -> tuple[str, ...]:
    """The words of a name if it says masks and nothing that is none of theirs, as in `with_mask`; else none."""
    words = _words(name)
    rest = [word for word in words if word not in MASKS | PERHAPS_MASKS | BESIDE_MASKS and word not in ROLE_WORDS]
    return words if (MASKS | PERHAPS_MASKS) & set(words) and all(map(_known, rest)) else ()


@lru_cache(MOST_NAMES)
def _words(name: str) -> tuple[str, ...]:
    """The words of a name, casefolded and without accents: of `001_GoodParts` good and parts."""
    plain = "".join(letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter))
    joined = GROUND_TRUTH.sub("groundtruth", plain)
    return tuple(word.casefold() for word in SEPARATORS.split(BOUNDARY.sub(" ", joined)) if word)


def same_class(name: str) -> str:
    """What is the same of names that people take for one: with other capitals, or composed otherwise (macOS)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def odd_ones(names: Mapping[int, str]) -> tuple[set[int], str, bool]:
    """Of files by their positions: those called anomalous, or, where others are called normal, not called so; what to
    say of them; and whether they are too many to be names that mean nothing.
    """
    said = {i: sense(stem_of(name)) for i, name in names.items()}
    few = MOST_ODD * len(names)
    normal = [i for i in names if said[i] > 0]
    bad = {i for i in names if said[i] < 0}
    others = names.keys() - normal
    if len(normal) > few and others:
        remark = (
            f"{counted(len(normal), 'file name says', 'file names say')} normal, as {min(names[i] for i in normal)}, "
            f"and {counted(len(others), 'does not', 'do not')}, as {min(names[i] for i in others)}"
        )
        return set(others), remark, len(others) > few
    if not bad:
        return bad, "", False
    remark = f"{counted(len(bad), 'file name says', 'file names say')} anomalous, as {min(names[i] for i in bad)}"
    return bad, remark, len(bad) > few


def kinds_of(names: Sequence[str]) -> str:
    """What to say where the names of files are of a few kinds, as `0_#` and `1_#`: numbers are one kind of text, but
    for those that have a few values only. Nothing where they are of one kind, or of many.
    """
    shapes = defaultdict[tuple[str, ...], list[list[str]]](list)
    for name in names:
        parts = NUMBER.split(stem_of(name))
        shapes[tuple(parts[::2])].append(parts)
        if len(shapes) > MOST_KINDS:
            return ""
    kinds = Counter[str]()
    for same in shapes.values():
        values = [set(column) for column in zip(*same, strict=True)]
        few = [len(column) <= min(MOST_KINDS, len(same) // FEWEST_OF_A_KIND) for column in values]
        kinds.update("".join(part if kept else "#" for part, kept in zip(parts, few, strict=True)) for parts in same)
    if not 1 < len(kinds) <= MOST_KINDS or min(kinds.values()) < FEWEST_OF_A_KIND:
        return ""
    return "names of files are of the kinds " + ", ".join(f"{kind} ({n:,})" for kind, n in sorted(kinds.items()))
