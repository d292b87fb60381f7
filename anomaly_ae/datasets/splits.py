"""The four disjoint sets of normal images, and the record of which image went where."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from anomaly_ae.datasets.copies import first_of_equals
from anomaly_ae.errors import DataChanged
from anomaly_ae.escaping import counted, shown
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.storage.schema import Count, Digest, Mismatch, Name, TensorSpec

SPLIT_PARTS = ("fit", "validation", "calibration", "test")
NO_INDICES = torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Part:
    """Some images of a data set: `file` it comes from, indices there, int64 `(N,)`, and their digest.

    hashes: of these images, int64 (N,), by which they are known whatever they are called
    names:  of picture files, by which they are found however many others there are by then
    """

    file: str
    indices: Tensor
    digest: str
    hashes: Tensor
    names: tuple[bytes, ...] | None = None

    def __repr__(self) -> str:
        return f"Part({counted(len(self.indices), 'image')} of {self.file!r})"

    @classmethod
    def of(cls, dataset: Dataset, file: str, indices: Tensor) -> "Part":
        taken = dataset.files[file].take(indices)
        return cls(file, indices, taken.digest(dataset.classes), taken.hashes(), taken.names)

    def take(self, dataset: Dataset) -> ImageSet:
        """The images of this part. Raises `DataChanged` if they are not the ones recorded."""
        images = dataset.files.get(self.file)
        indices = None if images is None else self._find(images)
        if images is None or indices is None:
            gone = sorted(set(self.names or ()) - set((images and images.names) or ()))
            which = f" ({len(gone):,} are gone, the first {shown(gone[0])})" if gone else ""
            raise DataChanged(f"{dataset.name} has fewer images than when the training began{which}; use that data")
        taken = images.take(indices)
        if taken.digest(dataset.classes) != self.digest:
            which, changed = "", torch.nonzero(taken.hashes() != self.hashes.cpu()).flatten().tolist()
            if self.names and changed:
                which = f" ({len(changed):,} have changed, the first {shown(self.names[changed[0]])})"
            raise DataChanged(
                f"the images of {dataset.name} are not those the detector was trained on{which}; use that data"
            )
        return taken

    def _find(self, images: ImageSet) -> Tensor | None:
        """Where its images are now; None if some are gone."""
        if self.names is None:
            return self.indices if int(self.indices.max()) < len(images) else None
        at = {name: i for i, name in enumerate(images.names or ())}
        return torch.tensor([at[name] for name in self.names]) if at.keys() >= set(self.names) else None


@dataclass(frozen=True)
class Split:
    """Fit, validation, calibration (normal images, disjoint) and test (disjoint from them, normal and novel).

    copies: hashes of pictures in no part that are copies of some in fit, validation or calibration, or were added to
        these from elsewhere, int64 (N,)
    groups: how many classes were taken for parts or patients, each of which is in one part alone
    most_calibration: how many images the calibration could have, were they needed
    enough: how many normal images would do for what it needs; this and the two above are not saved
    """

    fit: Part
    validation: Part
    calibration: Part
    test: Part
    copies: Tensor = field(default_factory=lambda: NO_INDICES, kw_only=True)
    groups: int = field(default=0, kw_only=True)
    most_calibration: int = field(default=0, kw_only=True)
    enough: int = field(default=0, kw_only=True)

    def __repr__(self) -> str:
        return f"Split({', '.join(f'{name}={getattr(self, name)}' for name in SPLIT_PARTS)})"

    def summary(self) -> dict[str, Any]:
        """File, number of images and digest of each part, as plain JSON values."""
        return {name: dataclasses.asdict(getattr(self.record(), name)) for name in SPLIT_PARTS}

    def record(self) -> "SplitRecord":
        """What a detector's JSON says of it."""
        parts = (getattr(self, name) for name in SPLIT_PARTS)
        records = (PartRecord(part.file, len(part.indices), part.digest) for part in parts)
        return SplitRecord(*records, copies=len(self.copies))

    def tensors(self) -> dict[str, Tensor]:
        """The indices and hashes of each part, int64, and the names of its files, uint8, with a NUL after each."""
        parts = {name: getattr(self, name) for name in SPLIT_PARTS}
        named = {f"{name}.names": pack_names(part.names) for name, part in parts.items() if part.names is not None}
        hashed = {f"{name}.hashes": part.hashes for name, part in parts.items()}
        copies = {"copies": self.copies} if len(self.copies) else {}
        return {name: part.indices for name, part in parts.items()} | named | hashed | copies

    @classmethod
    def from_record(cls, record: "SplitRecord", tensors: dict[str, Tensor]) -> "Split":
        """The split that `record` and `tensors` were taken from. Raises `Mismatch` when they do not agree."""
        parts = []
        for name in SPLIT_PARTS:
            about, indices, names = getattr(record, name), tensors[name], unpack_names(tensors.get(f"{name}.names"))
            if names is not None and len(names) != about.images:
                raise Mismatch(f"split.{name} has {about.images:,} images and {len(names):,} names")
            if len(indices) and (int(indices.min()) < 0 or len(set(indices.tolist())) < len(indices)):
                raise Mismatch(f"split.{name} has a position twice, or below 0")
            parts.append(Part(about.file, indices, about.digest, tensors[f"{name}.hashes"], names))
        for one, other in itertools.combinations(parts, 2):
            if one.file == other.file and bool(torch.isin(one.indices, other.indices).any()):
                raise Mismatch("the parts of the split have images in common")
        return cls(*parts, copies=tensors.get("copies", NO_INDICES))

    @property
    def made_with(self) -> "tuple[Part, Part, Part]":
        """The parts that a detector is made with."""
        return self.fit, self.validation, self.calibration

    def known(self, hashes: Tensor) -> tuple[Tensor, Tensor]:
        """Of images with these hashes, int64 (N,): which a detector was made with, and which are copies of such ones,
        bool (N,). Of equal ones the first counts, and the others are its copies.

        What was measured with is neither, though some detectors of before have it among the copies.
        """
        is_made = torch.isin(hashes, torch.cat([part.hashes.cpu() for part in self.made_with]))
        is_copy = torch.isin(hashes, self.copies.cpu()) & ~torch.isin(hashes, self.test.hashes.cpu())
        is_first = first_of_equals(hashes) == torch.arange(len(hashes))
        return is_made & is_first, (is_made & ~is_first) | (is_copy & ~is_made)

    def pictures(self) -> dict[str, Any]:
        """Names, indices and hashes of the pictures of each part, for `of_pictures`; nothing where none has a name.

        Bytes of names that are no UTF-8 are as Python has them in text.
        """
        return {
            name: {
                "names": [each.decode("utf-8", "surrogateescape") for each in part.names],
                "positions": part.indices.tolist(),
                "hashes": part.hashes.tolist(),
            }
            for name in SPLIT_PARTS
            if (part := getattr(self, name)).names is not None
        }

    @classmethod
    def of_pictures(cls, parts: Mapping[str, Any], pictures: Mapping[str, Any], copies: Sequence[int]) -> "Split":
        """The split that `summary`, `pictures` and hashes of copies were taken from. Raises `KeyError`, `TypeError`
        or `ValueError` when they do not belong together.
        """
        return cls(
            *(
                Part(
                    parts[name]["file"],
                    torch.tensor(pictures[name]["positions"], dtype=torch.int64),
                    parts[name]["digest"],
                    torch.tensor(pictures[name]["hashes"], dtype=torch.int64),
                    tuple(each.encode("utf-8", "surrogateescape") for each in pictures[name]["names"]),
                )
                for name in SPLIT_PARTS
            ),
            copies=torch.tensor(copies, dtype=torch.int64),
        )

    def names(self) -> frozenset[bytes]:
        """Of all files in it."""
        return frozenset(name for part in SPLIT_PARTS for name in getattr(self, part).names or ())

    def with_hashes(self, images: Mapping[str, ImageSet]) -> "Split":
        """The same with the hashes of these images, by part, as a detector sees them."""
        hashed = {
            name: dataclasses.replace(getattr(self, name), hashes=images[name].hashes()) for name in SPLIT_PARTS
        }
        return dataclasses.replace(self, **hashed)

    def with_copies(self, hashes: Tensor) -> "Split":
        """The same where images with these hashes, int64 (N,), in no part, are known to the detector, too."""
        return dataclasses.replace(self, copies=torch.cat([self.copies, hashes]))

    @property
    def trainable(self) -> int:
        """How many images are learned from with the guarantee cross: those of fit and calibration."""
        return len(self.fit.indices) + len(self.calibration.indices)

    def calibrating(self, folds: int | None = None) -> int:
        """How many images set the threshold: with the guarantee cross those that are in a fold."""
        return self.trainable // folds * folds if folds else len(self.calibration.indices)

    def about(self, dataset: Dataset, normal: Sequence[int], folds: int | None = None) -> str:
        """Which of the images go where, in words."""
        test = dataset.files[self.test.file].labels[self.test.indices]
        normals = int(torch.isin(test, torch.tensor(normal)).sum())
        parts = [len(part.indices) for part in (self.fit, self.validation, self.calibration)]
        together = f"; each of {self.groups:,} small folders, as of one part or patient, is in one of these alone"
        learned = f"{parts[0]:,} to learn from, {parts[1]:,} to stop by, {parts[2]:,} for the threshold"
        if folds:
            some = f"{turns:,} of them " if (turns := self.calibrating(folds)) < self.trainable else ""
            learned = (
                f"{self.trainable:,} to learn from, {some}in {folds} folds, each left out once for the threshold, "
                f"{parts[1]:,} to stop by"
            )
        others = f", beside {counted(number, 'other')}" if (number := len(test) - normals) else ""
        return (
            f"{sum(parts) + normals:,} normal images: {learned}, {normals:,} to measure with{others}"
            f"{together if self.groups else ''}"
        )


@dataclass(frozen=True)
class PartRecord:
    """What a detector's JSON says of a part: the file it comes from, how many images, and their digest."""

    file: Name
    images: Count
    digest: Digest


@dataclass(frozen=True)
class SplitRecord:
    """What a detector's JSON says of its split: of its parts, and how many copies of images are in none."""

    fit: PartRecord
    validation: PartRecord
    calibration: PartRecord
    test: PartRecord
    copies: Count = field(kw_only=True)

    def specs(self, with_names: bool) -> dict[str, TensorSpec]:
        """The tensors beside it, with or without names of files."""
        specs = {"copies": TensorSpec((self.copies,), "I64")} if self.copies else {}
        for name in SPLIT_PARTS:
            images = getattr(self, name).images
            specs |= dict.fromkeys((name, f"{name}.hashes"), TensorSpec((images,), "I64"))
            if with_names:
                specs[f"{name}.names"] = TensorSpec((f"bytes of {name}",), "U8")
        return specs


def pack_names(names: Sequence[bytes]) -> Tensor:
    """Names as uint8, with a NUL after each."""
    return torch.frombuffer(bytearray(b"".join(name + b"\0" for name in names)), dtype=torch.uint8)


def unpack_names(packed: Tensor | None) -> tuple[bytes, ...] | None:
    """The names that `pack_names` was given; None for None."""
    return None if packed is None else tuple(packed.cpu().numpy().tobytes().split(b"\0")[:-1])
