"""A data set by its name, or by the place where its pictures lie."""

import contextlib
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from anomaly_ae.datasets.builtin import DATASETS, NamedData, data_root
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.datasets.manifest import MANIFEST_ENDINGS, is_manifest
from anomaly_ae.datasets.normal_classes import ALL_CLASSES, parse_normal
from anomaly_ae.errors import DataMissing, UnknownName, UsageError
from anomaly_ae.images.folder_words import same_class, sense
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import expand

Data = NamedData | PictureData


def open_data(name: str, data_dir: str | None = None) -> Data:
    """Find a data set and its classes; no image is read yet.

    name: one of the catalogue; or a folder of pictures or a manifest, also one in the folder where data sets lie; or
    the address of one (s3://…). Raises `UnknownName`, `DataMissing` when there is no such thing or no picture in it,
    `DataError`.
    """
    require_dataset(name, data_dir)
    if name in DATASETS:
        return NamedData(name, data_dir)
    try:
        return PictureData.open(whole_name(name, data_dir))
    except DataMissing as error:
        if similar := next((similar for similar in DATASETS if _letters(similar) == _letters(name)), None):
            raise DataMissing(f"{error}; did you mean the data set {similar}?") from error
        raise


def normal_classes(text: str, data: Data) -> tuple[int, ...]:
    """The indices of the classes of a data set that `text` calls normal, or where it is empty the data set itself.

    Raises what `parse_normal` raises, and `UsageError` where neither does.
    """
    if not text.strip() and isinstance(data, PictureData) and data.normal is None:
        raise data.undecided()
    return parse_normal(text if text.strip() else data.normal or "", data.classes)


def normal_there(normal: Sequence[str], known: Sequence[str], data: Data) -> tuple[str, ...]:
    """The classes of another data set that are normal to a detector, to which those called `normal` among the `known`
    ones are: what is called so there, or else what is normal by its name or as the only one; none where all are
    anomalous by their names or were so in the training.

    Raises `UsageError` where that cannot be known.
    """
    alone = len(data.classes) == 1 and sense(data.classes[0]) >= 0
    if alone and isinstance(data, PictureData) and data.normal is None:
        raise data.undecided(settable=False)
    trained, seen = ({same_class(name) for name in names} for names in (normal, known))
    if called := tuple(name for name in data.classes if same_class(name) in trained):
        return called
    new = [name for name in data.classes if same_class(name) not in seen and sense(name) >= 0]
    by_name = tuple(name for name in new if data.normal in (name, ALL_CLASSES) or sense(name) > 0)
    if new and not by_name:
        raise UsageError(
            f"{data.name} has no class that is known to be normal or anomalous to the detector; its classes are "
            f"{', '.join(data.classes)}, and normal are {', '.join(normal)}; call the folder of its normal "
            "pictures so"
        )
    return by_name


def require_dataset(name: str, data_dir: str | None = None) -> None:
    """Raise `UnknownName` or `DataMissing` when there is no such data set, without looking into it."""
    if name in DATASETS or "://" in name or _place(name, data_dir):
        return
    endings = ", ".join(MANIFEST_ENDINGS)
    known = f"a data set is a folder of pictures, a manifest ({endings}), or one of {', '.join(DATASETS)}"
    if os.path.isfile(expand(name)):  # noqa: PTH113 (takes any text for a name)
        raise UsageError(
            f"{name} is a file; {known}; if it says which pictures are normal, make it a manifest, as a .csv with "
            "columns path and label; or move those into a folder called good, and the others into one called bad"
        )
    if any(mark in name for mark in "/\\.~"):
        kind = "manifest" if is_manifest(name) else "folder"
        raise DataMissing(
            f"there is no {kind} {name}; if it has moved, say where it is with {setting('dataset')}; {known}"
        )
    raise UnknownName("data set", name, [*DATASETS, "or a folder of pictures"])


def whole_name(name: str, data_dir: str | None = None) -> str:
    """A data set's name, that of a folder or a manifest as a path which means the same everywhere on this machine."""
    place = None if name in DATASETS or "://" in name else _place(name, data_dir)
    return str(place.resolve()) if place else name


def _place(name: str, data_dir: str | None) -> Path | None:
    """The folder or manifest that a name means: as a path, or within the folder where data sets lie."""
    spellings = dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)))
    places = [place for each in spellings if each for place in (expand(each), data_root(data_dir) / each)]
    with contextlib.suppress(OSError):  # no name that a file could have
        return next((place for place in places if place.is_dir() or (is_manifest(name) and place.is_file())), None)
    return None


def _letters(name: str) -> str:
    """The letters and digits of a name, for `MNIST` and `FashionMNIST` are folders where those data sets lie."""
    return re.sub(r"[\W_]", "", name).casefold()
