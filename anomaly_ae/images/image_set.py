"""`ImageSet`: labelled images in memory; `Dataset`: the files of one data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from anomaly_ae.escaping import counted, times
from anomaly_ae.storage.atomic import sha256
from anomaly_ae.storage.memmap import take_rows


@dataclass(frozen=True)
class ImageSet:
    """Images with a class each.

    images: uint8 `(N, C, H, W)`, values 0 to 255, on the CPU
    labels: int64 `(N,)`, indices in the data set's `classes`
    names:  of the files they were, as bytes, or None where they come from elsewhere
    """

    images: Tensor
    labels: Tensor
    names: tuple[bytes, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"ImageSet({counted(len(self), 'image')} of {times(self.images.shape[1:])})"

    def take(self, indices: Tensor) -> "ImageSet":
        """The images at `indices`, int64 `(M,)`, in that order."""
        names = None if self.names is None else tuple(self.names[i] for i in indices.tolist())
        return ImageSet(take_rows(self.images, indices), self.labels[indices], names)

    def joined(self, other: "ImageSet") -> "ImageSet":
        """These images and those of another set, in that order."""
        names = None if self.names is None or other.names is None else self.names + other.names
        return ImageSet(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]), names)

    def hashes(self) -> Tensor:
        """A number for the pixels of each image, int64 (N,): equal for equal images, and hardly ever for others."""
        return hash_rows(self.images)

    def digest(self, classes: Sequence[str]) -> str:
        """SHA-256 of shape, pixels and names of the classes: equal exactly when the content is."""
        shape = repr(tuple(self.images.shape)).encode()
        names = "\0".join(classes[label] for label in self.labels.tolist()).encode("utf-8", "surrogateescape")
        return sha256(shape, self.images.contiguous().numpy().data, names)

    def relabelled(self, classes: Sequence[str], others: Sequence[str]) -> "ImageSet":
        """The same with labels that are indices in `others`, where their classes are called as in `classes`."""
        if tuple(classes) == tuple(others):
            return self
        moved = torch.tensor([others.index(name) if name in others else -1 for name in classes])
        return ImageSet(self.images, moved[self.labels], self.names)


def hash_rows(images: Tensor) -> Tensor:
    """The hashes of images (N, C, H, W), int64 (N,), see `ImageSet.hashes`."""
    rows = images.flatten(1).numpy()
    hashes = [int.from_bytes(blake2b(row, digest_size=8).digest(), "big", signed=True) for row in rows]
    return torch.tensor(hashes, dtype=torch.int64)


@dataclass(frozen=True)
class Dataset:
    """A data set: its class names and its files.

    `files` holds "train" and, where there is an official test split, "test".
    left_out: pictures that could not be read, each with the reason
    prepared: whether the images are as a detector sees them already
    """

    name: str
    classes: tuple[str, ...]
    files: dict[str, ImageSet]
    left_out: tuple[str, ...] = ()
    prepared: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        channels, height, width = self.files["train"].images.shape[1:]
        return channels, height, width

    def digest(self) -> str:
        """SHA-256 over the digests of all its files."""
        return sha256(*(self.files[file].digest(self.classes).encode() for file in sorted(self.files)))
