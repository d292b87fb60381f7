"""The named data sets: one bundled with scikit-learn, four in torchvision's layout."""

import contextlib
import gzip
import math
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.errors import DataDamaged, DataError, DataMissing, StorageError, UnknownName, one_line
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import expand

DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
HIRAGANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IDX_FILES = {"train": "train", "test": "t10k"}
UNSIGNED_BYTE = 8  # the type code of an IDX file
GZIP_MOST = 1032  # deflate never packs tighter than 1032 to 1


@dataclass(frozen=True)
class DatasetEntry:
    """A line of the catalogue: `torchvision` is the class that can download it, None if it is bundled."""

    about: str
    classes: tuple[str, ...]
    torchvision: str | None
    read: "Callable[[Path, DatasetEntry], dict[str, ImageSet] | None]"


@dataclass(frozen=True)
class NamedData:
    """A data set of the catalogue, loaded when its images are needed.

    whole: the same without a region of interest, whose images these are
    """

    name: str
    data_dir: str | None = None
    roi: RegionOfInterest | None = None
    whole: "NamedData | None" = None

    normal = None  # nothing is normal in it unless the user says so

    @property
    def classes(self) -> tuple[str, ...]:
        return find_dataset(self.name).classes

    @property
    def about(self) -> str:
        return f"{self.name}: {find_dataset(self.name).about}"

    @cached_property
    def dataset(self) -> Dataset:
        """Raises what `load_dataset` raises."""
        return self.whole.dataset if self.whole else load_dataset(self.name, self.data_dir)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what is looked at of its images."""
        (size,) = self.sizes
        return (self.dataset.shape[0], *(self.roi.part_size(size) if self.roi else size))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of its images, which are all alike."""
        return [self.dataset.shape[1:]]

    @property
    def place(self) -> str | None:
        """The folder where it lies; None for what is bundled."""
        return str(data_root(self.data_dir).resolve()) if find_dataset(self.name).torchvision else None

    def learning(self, normal: Collection[int], roi: RegionOfInterest | None = None) -> "NamedData":
        """The same, looking at a region of interest; all its images are alike."""
        return self if roi == self.roi else replace(self, roi=roi, whole=self)

    def find_intensity(self, requested: str | None = None) -> None:
        """All have 8 bits. Raises `DataError` where an intensity was asked for."""
        if requested:
            raise DataError(f"the images of {self.name} have 8 bits; leave {setting('intensity', requested)} out")

    def load(self, preprocessing: Preprocessing, only: Collection[bytes] | None = None) -> Dataset:
        """All its images, as they are."""
        return self.dataset

    def masks(self, names: Sequence[bytes], preprocessing: Preprocessing) -> None:
        """It has none."""


def load_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """Load a named data set: its images with their labels.

    Args:
        name: digits, mnist, fashion-mnist, kmnist or cifar10
        data_dir: where data sets lie, whose files are used as they are, and absent ones downloaded there; None:
            ANOMALY_AE_DATA_DIR, else ./data

    Raises:
        UnknownName: there is no data set of that name
        DataMissing: it is neither there nor to be had
        DataDamaged: a file is not what it must be

    Examples:
        >>> import anomaly_ae
        >>> digits = anomaly_ae.load_dataset("digits")
        >>> digits.files["train"]
        ImageSet(1,797 images of 1×8×8)
        >>> test = anomaly_ae.load("latest").split.test.take(digits)  # what a detector is measured with
        >>> test.images.shape, test.labels[:3]
        (torch.Size([1367, 1, 8, 8]), tensor([...]))
    """
    entry, root = find_dataset(name), data_root(data_dir)
    files = entry.read(root, entry)
    if files is None:
        _download(name, entry, root)
        files = entry.read(root, entry)
    if files is None:
        raise DataMissing(f"{name} was downloaded to {root} and is not complete; remove it and try again")
    return Dataset(name, entry.classes, files)


def data_root(data_dir: str | None) -> Path:
    """The folder where data sets lie: the one named, else ANOMALY_AE_DATA_DIR, else ./data."""
    return expand(data_dir or os.environ.get("ANOMALY_AE_DATA_DIR") or "data")


def find_dataset(name: str) -> DatasetEntry:
    """The catalogue's line for a data set, without loading it. Raises `UnknownName`."""
    if name not in DATASETS:
        raise UnknownName("data set", name, DATASETS)
    return DATASETS[name]


def read_digits(root: Path, entry: DatasetEntry) -> dict[str, ImageSet]:
    """1,797 handwritten digits, 8×8, sixteen levels of gray (https://doi.org/10.24432/C50P49)."""
    package = find_spec("sklearn")  # which is not imported, for that takes a second
    assert package
    assert package.origin
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    images = torch.from_numpy(np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8))
    return {"train": ImageSet(images.reshape(-1, 1, 8, 8), torch.from_numpy(table[:, -1]).long())}


def read_idx_pair(root: Path, entry: DatasetEntry) -> dict[str, ImageSet] | None:
    """Both files of an IDX data set, or None where one of the four parts is absent."""
    folder, files = root / str(entry.torchvision) / "raw", {}
    for file, prefix in IDX_FILES.items():
        path, labels_path = (find_idx(folder, f"{prefix}-{part}-ubyte") for part in ("images-idx3", "labels-idx1"))
        if path is None or labels_path is None:
            return None
        images, labels = read_idx(path, 3).unsqueeze(1), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DataDamaged(f"{path} holds {len(images):,} images for {len(labels):,} labels; get both again")
        if int(labels.max()) >= len(entry.classes):
            raise DataDamaged(f"the labels beside {path} go beyond {len(entry.classes)} classes; get them again")
        files[file] = ImageSet(images, labels.long())
    return files


def find_idx(folder: Path, name: str) -> Path | None:
    """The file `name` in `folder`, unpacked or else with `.gz`; None if neither is there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of unsigned bytes, packed with gzip or not, as a uint8 tensor of its own shape.

    The format: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a
    big-endian 32-bit number, then the values (http://yann.lecun.com/exdb/mnist/).
    Raises `DataDamaged` when the header is not that of such a file with `dimensions` dimensions or the
    values are fewer or more than it says, `StorageError` when it cannot be read.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        most = path.stat().st_size * (GZIP_MOST if path.suffix == ".gz" else 1)
        with opened(path, "rb") as file:
            shape = _header_shape(file.read(4 + 4 * dimensions), path, dimensions, most)
            values = bytearray(file.read(math.prod(shape)))
            surplus = file.read(1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataDamaged(f"{path} is cut short or damaged ({error}); get it again") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}; it must be a readable file") from error
    if len(values) != math.prod(shape) or surplus:
        count_words = "more" if surplus else f"{len(values):,}"
        raise DataDamaged(f"{path} should hold {math.prod(shape):,} values and holds {count_words}; get it again")
    return torch.from_numpy(np.frombuffer(values, np.uint8).reshape(shape))


def _header_shape(header: bytes, path: Path, dimensions: int, most: int) -> tuple[int, ...]:
    """The shape the header names, refused before anything of that size is allocated if it cannot be."""
    if header[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]) or len(header) < 4 + 4 * dimensions:
        raise DataDamaged(f"{path} is no IDX file of {dimensions} dimensions; get it again")
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", header[4:])
    if not 0 < math.prod(shape) <= most:
        raise DataDamaged(f"{path} says it holds {shape} values, which its size rules out; get it again")
    return shape


def read_cifar10(root: Path, entry: DatasetEntry) -> dict[str, ImageSet] | None:
    """CIFAR-10 through torchvision, which unpacks its batches only after comparing their checksums."""
    folder = root / "cifar-10-batches-py"
    if not folder.is_dir():
        return None
    from torchvision.datasets import CIFAR10

    try:
        parts = {file: CIFAR10(root, train=file == "train") for file in IDX_FILES}
    except (RuntimeError, OSError) as error:
        raise DataDamaged(
            f"{folder} is incomplete or damaged ({one_line(error)}); remove it and try again"
        ) from error
    return {
        file: ImageSet(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for file, part in parts.items()
    }


def _download(name: str, entry: DatasetEntry, root: Path) -> None:
    """Download through torchvision (progress bar, checksums) to a folder aside, then move it in place."""
    import torchvision.datasets

    if root.is_file():
        raise DataMissing(
            f"data sets lie in a folder, and {root} is a file; name a folder with {setting('data_dir')}"
        )
    logger.info(f"{name} is not in {root.resolve()}: downloading it there")
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".download-", dir=root) as aside,
            contextlib.redirect_stdout(sys.stderr),  # standard output is for results
        ):
            getattr(torchvision.datasets, str(entry.torchvision))(aside, download=True)
            for path in [path for path in Path(aside).rglob("*") if path.is_file()]:
                target = root / path.relative_to(aside)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
    except (RuntimeError, OSError, HTTPException) as error:
        for folder in filter(Path.is_dir, made):
            with contextlib.suppress(OSError):  # something else is in it by now
                folder.rmdir()
        raise DataMissing(
            f"{name} is not in {root.resolve()} and could not be downloaded ({one_line(error)}); is there a network? "
            f"put torchvision's {entry.torchvision} files there, name their folder with {setting('data_dir')}, "
            f"or use {setting('dataset', 'digits')}, which needs no download"
        ) from error


DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry(
        "1,797 handwritten digits, 8×8 gray, bundled with scikit-learn", DIGITS, None, read_digits
    ),
    "mnist": DatasetEntry("70,000 handwritten digits, 28×28 gray", DIGITS, "MNIST", read_idx_pair),
    "fashion-mnist": DatasetEntry("70,000 pieces of clothing, 28×28 gray", FASHION, "FashionMNIST", read_idx_pair),
    "kmnist": DatasetEntry("70,000 cursive Japanese letters, 28×28 gray", HIRAGANA, "KMNIST", read_idx_pair),
    "cifar10": DatasetEntry("60,000 photographs of ten things, 32×32 colour", CIFAR, "CIFAR10", read_cifar10),
}
