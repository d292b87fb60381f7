"""The four disjoint sets of normal images, and the record of which image went where."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from anomaly_ae.datasets.copies import Copies, first_of_equals
from anomaly_ae.datasets.folder_layout import MANY_GROUPS, SMALL_GROUP
from anomaly_ae.errors import DataChanged, DataError
from anomaly_ae.escaping import counted, shown
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.storage.schema import Count, Digest, Mismatch, Name, TensorSpec

SPLIT_PARTS = ("fit", "validation", "calibration", "test")
WITH_OFFICIAL_TEST = (0.8, 0.1, 0.1, 0.0)
WITHOUT_OFFICIAL_TEST = (0.5, 0.1, 0.2, 0.2)
MOST_CALIBRATION, LEAST_TEST = 0.5, 0.1
SMALL_CLASS = 10  # images, fewer of which are not cut for themselves
NO_COPIES = Copies()
NO_INDICES = torch.zeros(0, dtype=torch.int64)
NO_CLASS = -1  # of what is not used


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
    most_calibration: how many images the calibration could have, were they needed; this and `groups` are not saved
    """

    fit: Part
    validation: Part
    calibration: Part
    test: Part
    copies: Tensor = field(default_factory=lambda: NO_INDICES, kw_only=True)
    groups: int = field(default=0, kw_only=True)
    most_calibration: int = field(default=0, kw_only=True)

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

    def known(self, hashes: Tensor) -> tuple[Tensor, Tensor]:
        """Of images with these hashes, int64 (N,): which a detector was made with, and which are copies of such ones,
        bool (N,). Of equal ones the first counts, and the others are its copies.

        What was measured with is neither, though some detectors of before have it among the copies.
        """
        made_with = torch.cat([part.hashes.cpu() for part in (self.fit, self.validation, self.calibration)])
        is_made = torch.isin(hashes, made_with)
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

    def about(self, dataset: Dataset, normal: Sequence[int], folds: int | None = None) -> str:
        """Which of the images go where, in words."""
        test = dataset.files[self.test.file].labels[self.test.indices]
        normals = int(torch.isin(test, torch.tensor(normal)).sum())
        parts = [len(part.indices) for part in (self.fit, self.validation, self.calibration)]
        together = f"; each of {self.groups:,} small folders, as of one part or patient, is in one of these alone"
        learned = f"{parts[0]:,} to learn from, {parts[1]:,} to stop by, {parts[2]:,} for the threshold"
        if folds:
            learned = (
                f"{self.trainable:,} to learn from, in {folds} folds, each left out once for the threshold, "
                f"{parts[1]:,} to stop by"
            )
        return (
            f"{sum(parts) + normals:,} normal images: {learned}, {normals:,} to measure with, "
            f"beside {len(test) - normals:,} others{together if self.groups else ''}"
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


def split_dataset(
    dataset: Dataset,
    normal: Sequence[int],
    seed: int,
    contamination: float = 0.0,
    needed: int = 0,
    copies: Copies = NO_COPIES,
) -> Split:
    """Divide the normal images, class by class, as the seed says; novel images are for the test alone.

    contamination: the share of the fit set, below 1, that is novel all the same, drawn from the training file
    needed: images that the calibration needs
    copies: pictures that are not to be used

    With an official test split: 80/10/10 % of the training file for fit, validation and calibration, and
    the whole test file. Without: 50/10/20/20 %, and all novel images in the test part. Where that is too little for
    the calibration, it gets what it needs, up to half of all; the test part gives way first, down to a tenth, then
    the fit set. Classes of fewer than 10 images are cut together; more than 20 of fewer than 20 are taken for parts
    or patients, whose images stay together.
    Raises `DataError` when a part would be empty.
    """
    official = "test" in dataset.files
    labels = dataset.files["train"].labels.where(copies.used("train", len(dataset.files["train"])), NO_CLASS)
    pieces = _pieces(labels, normal)
    count = sum(len(piece.indices) for piece in pieces)
    usual = WITH_OFFICIAL_TEST if official else WITHOUT_OFFICIAL_TEST
    inexact = sum(piece.inexact for piece in pieces)
    shares = _shares(usual, (needed + inexact) / max(1, count))
    generator = torch.Generator().manual_seed(seed)
    cut = [piece.cut(shares, generator) for piece in pieces] or [(NO_INDICES,) * len(SPLIT_PARTS)]
    fit, validation, calibration, test = (torch.cat(part).sort().values for part in zip(*cut, strict=True))
    novel = torch.nonzero(~torch.isin(labels, torch.tensor([*normal, NO_CLASS]))).flatten()
    injected, novel = _inject(novel, round(len(fit) * contamination / (1 - contamination)), generator)
    fit = torch.cat([fit, injected]).sort().values
    test = torch.cat([test, novel]).sort().values
    if official:
        test = torch.nonzero(copies.used("test", len(dataset.files["test"]))).flatten()
    if min(map(len, (fit, validation, calibration, test))) == 0:
        enough = max(len(SPLIT_PARTS), math.ceil((needed + inexact) / MOST_CALIBRATION))
        raise DataError(
            f"{counted(count, 'normal image is', 'normal images are')} too few for fit, validation, calibration and "
            f"test; with {enough:,} they are enough for this false-alarm rate"
        )
    used = {*fit.tolist(), *validation.tolist(), *calibration.tolist()}
    copied = torch.tensor([copy for copy, first in copies.first.items() if first in used], dtype=torch.int64)
    return Split(
        fit=Part.of(dataset, "train", fit),
        validation=Part.of(dataset, "train", validation),
        calibration=Part.of(dataset, "train", calibration),
        test=Part.of(dataset, "test" if official else "train", test),
        copies=torch.unique(dataset.files["train"].take(copied).hashes()),
        most_calibration=int(MOST_CALIBRATION * count - inexact),
        groups=sum(len(torch.unique(piece.groups)) for piece in pieces if piece.groups is not None),
    )


@dataclass(frozen=True)
class Piece:
    """Normal images that are cut together.

    indices: of the images, int64 (N,)
    groups:  of images that stay together, int64 (N,); None where each is for itself
    """

    indices: Tensor
    groups: Tensor | None = None

    @property
    def inexact(self) -> float:
        """By how many images a part of it may be smaller than its share."""
        return 0.5 if self.groups is None else float(self.groups.bincount().max())

    def cut(self, shares: Sequence[float], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Its indices, shuffled and cut at the cumulated shares."""
        if self.groups is None:
            shuffled = self.indices[torch.randperm(len(self.indices), generator=generator)]
            ends = [round(sum(shares[: i + 1]) * len(self.indices)) for i in range(len(shares))]
            sizes = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
            for i, share in enumerate(shares):  # no part of a few is left out by rounding
                if share and not sizes[i] and sizes[0] > 1:
                    sizes[0], sizes[i] = sizes[0] - 1, 1
            return torch.split(shuffled, sizes)
        groups, sizes = torch.unique(self.groups, return_counts=True)
        order = torch.randperm(len(groups), generator=generator)
        middles = sizes[order].cumsum(0) - sizes[order] / 2
        ends_within = torch.tensor(shares).cumsum(0)[:-1].contiguous() * len(self.indices)
        parts = torch.searchsorted(ends_within, middles, right=True)  # of each group
        return tuple(self.indices[torch.isin(self.groups, groups[order[parts == i]])] for i in range(len(shares)))


def _pieces(labels: Tensor, normal: Sequence[int]) -> list[Piece]:
    """The normal images, class by class where the classes are large enough for that."""
    sizes = {c: int((labels == c).sum()) for c in normal}
    groups = [c for c, size in sizes.items() if 0 < size < SMALL_GROUP]
    together = groups if len(groups) > MANY_GROUPS else [c for c, size in sizes.items() if 0 < size < SMALL_CLASS]
    pieces = [Piece(torch.nonzero(labels == c).flatten()) for c in normal if sizes[c] and c not in together]
    if together:
        indices = torch.nonzero(torch.isin(labels, torch.tensor(together))).flatten()
        pieces.append(Piece(indices, labels[indices] if len(together) > MANY_GROUPS else None))
    return pieces


def split_rows(count: int, seed: int, needed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices, int64, of fit, validation and calibration among so many rows, 3 at the least, as the seed says.

    80/10/10 %, but one row at the least for each; calibration gets the `needed` ones if it takes no more than half.
    """
    usual, half = round(WITH_OFFICIAL_TEST[2] * count), int(MOST_CALIBRATION * count)
    calibration = max(1, min(half, max(usual, needed)))
    validation = max(1, round(WITH_OFFICIAL_TEST[1] * count))
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    sizes = [count - validation - calibration, validation, calibration]
    fit, validating, calibrating = (part.sort().values for part in torch.split(shuffled, sizes))
    return fit, validating, calibrating


def _shares(usual: tuple[float, ...], calibration: float) -> tuple[float, ...]:
    """The shares of the parts, with `calibration` for the calibration if that is more than usual and can be had: at
    the cost of the test first, down to a tenth, then of the fit set.
    """
    if not usual[2] < calibration <= MOST_CALIBRATION:
        return usual
    more = calibration - usual[2]
    of_test = min(more, max(0.0, usual[3] - LEAST_TEST))
    return (usual[0] - (more - of_test), usual[1], calibration, usual[3] - of_test)


def _inject(novel: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` of the novel indices, and the others. Raises `DataError` when there are fewer."""
    if count > len(novel):
        raise DataError(f"contamination needs {count:,} novel images, and there are {len(novel):,}; ask for less")
    shuffled = novel[torch.randperm(len(novel), generator=generator)]
    return shuffled[:count], shuffled[count:]
