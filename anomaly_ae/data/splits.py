"""The four disjoint sets of normal images, and the record of which image went where."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anomaly_ae.data.images import Dataset, ImageSet
from anomaly_ae.data.sources import shown
from anomaly_ae.errors import DataChanged, DataError
from anomaly_ae.schema import Count, Digest, Mismatch, Name, TensorSpec

PARTS = ("fit", "validation", "calibration", "test")
WITH_OFFICIAL_TEST = (0.8, 0.1, 0.1, 0.0)
WITHOUT_OFFICIAL_TEST = (0.5, 0.1, 0.2, 0.2)
MOST_CALIBRATION = 0.5


@dataclass(frozen=True)
class Part:
    """Some images of a data set: `file` it comes from, positions there, int64 `(N,)`, and their digest.

    names:  of picture files, by which they are found however many others there are by then
    hashes: of these pictures, int64 (N,), by which they are known whatever they are called
    """

    file: str
    indices: Tensor
    digest: str
    names: tuple[bytes, ...] | None = None
    hashes: Tensor | None = None

    @classmethod
    def of(cls, dataset: Dataset, file: str, indices: Tensor) -> "Part":
        taken = dataset.files[file].take(indices)
        return cls(file, indices, taken.digest(), taken.names, None if taken.names is None else taken.hashes())

    def take(self, dataset: Dataset) -> ImageSet:
        """The images of this part. Raises `DataChanged` if they are not the ones recorded."""
        images = dataset.files.get(self.file)
        indices = None if images is None else self._find(images)
        if images is None or indices is None:
            gone = self._gone(images)
            raise DataChanged(
                f"{dataset.name} has fewer images than when the detector was trained{gone}; use that data"
            )
        taken = images.take(indices)
        if taken.digest() != self.digest:
            raise DataChanged(
                f"the images of {dataset.name} are not those the detector was trained on{self._other(taken)}; "
                "use that data"
            )
        return taken

    def _gone(self, images: ImageSet | None) -> str:
        """Which pictures are gone, in words."""
        gone = sorted(set(self.names or ()) - set((images and images.names) or ()))
        return f" ({len(gone):,} are gone, the first {shown(gone[0])})" if gone else ""

    def _other(self, taken: ImageSet) -> str:
        """Which pictures are others than they were, in words."""
        if self.names is None or self.hashes is None:
            return ""
        changed = torch.nonzero(taken.hashes() != self.hashes.cpu()).flatten().tolist()
        return f" ({len(changed):,} have changed, the first {shown(self.names[changed[0]])})" if changed else ""

    def _find(self, images: ImageSet) -> Tensor | None:
        """Where its images are now; None if some are gone."""
        if self.names is None:
            return self.indices if int(self.indices.max()) < len(images) else None
        at = {name: i for i, name in enumerate(images.names or ())}
        return torch.tensor([at[name] for name in self.names]) if at.keys() >= set(self.names) else None


@dataclass(frozen=True)
class Split:
    """Fit, validation, calibration (normal images, disjoint) and test (disjoint from them, normal and novel)."""

    fit: Part
    validation: Part
    calibration: Part
    test: Part

    def summary(self) -> dict[str, Any]:
        """File, number of images and digest of each part, as plain JSON values."""
        return dataclasses.asdict(self.record())

    def record(self) -> "SplitRecord":
        """The same, typed."""
        parts = (getattr(self, name) for name in PARTS)
        return SplitRecord(*(PartRecord(part.file, len(part.indices), part.digest) for part in parts))

    def tensors(self) -> dict[str, Tensor]:
        """The positions of each part, int64, and the names of its files, uint8, with a NUL after each."""
        parts = {name: getattr(self, name) for name in PARTS}
        named = {f"{name}.names": _packed(part.names) for name, part in parts.items() if part.names is not None}
        hashed = {f"{name}.hashes": part.hashes for name, part in parts.items() if part.hashes is not None}
        return {name: part.indices for name, part in parts.items()} | named | hashed

    @classmethod
    def from_record(cls, record: "SplitRecord", tensors: dict[str, Tensor]) -> "Split":
        """The split that `record` and `tensors` were taken from. Raises `Mismatch` when they do not agree."""
        parts = [_part(name, getattr(record, name), tensors) for name in PARTS]
        for one, other in itertools.combinations(parts, 2):
            if one.file == other.file and bool(torch.isin(one.indices, other.indices).any()):
                raise Mismatch("the parts of the split have images in common")
        return cls(*parts)

    def seen(self) -> Tensor:
        """The hashes of the pictures that a detector was made with, int64; none where images came from elsewhere."""
        parts = (self.fit.hashes, self.validation.hashes, self.calibration.hashes)
        return torch.cat([hashes for hashes in parts if hashes is not None] or [torch.zeros(0, dtype=torch.int64)])


@dataclass(frozen=True)
class PartRecord:
    """What a detector's JSON says of a part: the file it comes from, how many images, and their digest."""

    file: Name
    images: Count
    digest: Digest


@dataclass(frozen=True)
class SplitRecord:
    """What a detector's JSON says of its split."""

    fit: PartRecord
    validation: PartRecord
    calibration: PartRecord
    test: PartRecord

    def specs(self, with_names: bool) -> dict[str, TensorSpec]:
        """The tensors beside it, with or without names of files."""
        specs = {}
        for name in PARTS:
            images = getattr(self, name).images
            specs[name] = TensorSpec((images,), "I64")
            if with_names:
                specs[f"{name}.hashes"] = TensorSpec((images,), "I64")
                specs[f"{name}.names"] = TensorSpec((f"bytes of {name}",), "U8")
        return specs


def _part(name: str, about: PartRecord, tensors: dict[str, Tensor]) -> Part:
    """A part of what was saved. Raises `Mismatch`."""
    hashes, names = tensors.get(f"{name}.hashes"), _unpacked(tensors.get(f"{name}.names"))
    indices = tensors[name]
    if names is not None and len(names) != about.images:
        raise Mismatch(f"split.{name} has {about.images:,} images and {len(names):,} names")
    if len(indices) and (int(indices.min()) < 0 or len(set(indices.tolist())) < len(indices)):
        raise Mismatch(f"split.{name} has a position twice, or below 0")
    return Part(about.file, indices, about.digest, names, hashes)


def _packed(names: Sequence[bytes]) -> Tensor:
    return torch.frombuffer(bytearray(b"".join(name + b"\0" for name in names)), dtype=torch.uint8)


def _unpacked(packed: Tensor | None) -> tuple[bytes, ...] | None:
    return None if packed is None else tuple(packed.cpu().numpy().tobytes().split(b"\0")[:-1])


def split_dataset(
    dataset: Dataset, normal: Sequence[int], seed: int, contamination: float = 0.0, needed: int = 0
) -> Split:
    """Divide the normal images, class by class, as the seed says; novel images are for the test alone.

    contamination: the share of the fit set, below 1, that is novel all the same, drawn from the training file
    needed: images that the calibration needs

    With an official test split: 80/10/10 % of the training file for fit, validation and calibration, and
    the whole test file. Without: 50/10/20/20 %, and all novel images in the test part. Where that is too little for
    the calibration, it gets what it needs, up to half of all, and the fit set less.
    Raises `DataError` when a part would be empty.
    """
    official = "test" in dataset.files
    labels = dataset.files["train"].labels
    normals = int(torch.isin(labels, torch.tensor(normal)).sum())
    # half an image more for each class, since each is cut for itself
    wanted = (needed + len(normal) / 2) / max(1, normals)
    shares = _shares(WITH_OFFICIAL_TEST if official else WITHOUT_OFFICIAL_TEST, wanted)
    generator = torch.Generator().manual_seed(seed)
    pieces = [_cut(torch.nonzero(labels == c).flatten(), shares, generator) for c in normal]
    fit, validation, calibration, test = (torch.cat(part).sort().values for part in zip(*pieces, strict=True))
    novel = torch.nonzero(~torch.isin(labels, torch.tensor(normal))).flatten()
    smuggled, novel = _smuggle(novel, round(len(fit) * contamination / (1 - contamination)), generator)
    fit = torch.cat([fit, smuggled]).sort().values
    test = torch.arange(len(dataset.files["test"])) if official else torch.cat([test, novel]).sort().values
    if min(map(len, (fit, validation, calibration, test))) == 0:
        found = sum(len(part) for piece in pieces for part in piece)
        raise DataError(
            f"{found} normal images are too few for fit, validation, calibration and test; with 40 they are enough"
        )
    return Split(
        fit=Part.of(dataset, "train", fit),
        validation=Part.of(dataset, "train", validation),
        calibration=Part.of(dataset, "train", calibration),
        test=Part.of(dataset, "test" if official else "train", test),
    )


def split_rows(count: int, seed: int, needed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, int64, of fit, validation and calibration among so many rows, 3 at the least, as the seed says.

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
    """The shares of the parts, with `calibration` for the calibration if that is more than usual and can be had."""
    if not usual[2] < calibration <= MOST_CALIBRATION:
        return usual
    return (usual[0] + usual[2] - calibration, usual[1], calibration, usual[3])


def _smuggle(novel: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` of the novel positions, and the others. Raises `DataError` when there are fewer."""
    if count > len(novel):
        raise DataError(f"contamination needs {count:,} novel images, and there are {len(novel):,}; ask for less")
    shuffled = novel[torch.randperm(len(novel), generator=generator)]
    return shuffled[:count], shuffled[count:]


def _cut(indices: Tensor, shares: Sequence[float], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Shuffle one class's positions and cut them at the cumulated shares."""
    shuffled = indices[torch.randperm(len(indices), generator=generator)]
    ends = [round(sum(shares[: i + 1]) * len(indices)) for i in range(len(shares))]
    return tuple(shuffled[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True))
