"""A data set by its name, or by the place where its pictures lie."""

from anomaly_ae.data.named import DATASETS, NamedData
from anomaly_ae.data.pictures import PictureData
from anomaly_ae.errors import DataMissing, UnknownName, UsageError
from anomaly_ae.files import expand

Data = NamedData | PictureData


def open_data(name: str, data_dir: str | None = None) -> Data:
    """Find a data set and its classes; no image is read yet.

    name: one of the catalogue, or a folder or an address (s3://…) of pictures
    Raises `UnknownName`, `DataMissing` when there is no such folder or no picture in it, `DataError`.
    """
    check_dataset(name)
    return NamedData(name, data_dir) if name in DATASETS else PictureData.open(name)


def check_dataset(name: str) -> None:
    """Raise `UnknownName` or `DataMissing` when there is no such data set, without looking into it."""
    if name in DATASETS or "://" in name or expand(name).is_dir():
        return
    if expand(name).is_file():
        raise UsageError(f"{name} is a file; a data set is a folder of pictures, or one of {', '.join(DATASETS)}")
    if any(mark in name for mark in "/\\.~"):
        raise DataMissing(f"there is no folder {name}; name a folder of pictures, or one of {', '.join(DATASETS)}")
    raise UnknownName("data set", name, [*DATASETS, "or the path of a folder of pictures"])


def whole_name(name: str) -> str:
    """A data set's name, that of a folder as a path which means the same everywhere on this machine."""
    is_folder = name not in DATASETS and "://" not in name and expand(name).is_dir()
    return str(expand(name).resolve()) if is_folder else name


def short_name(name: str) -> str:
    """A data set's name for headings: of a folder or an address the last part."""
    return name.rstrip("/").rpartition("/")[2] or name
