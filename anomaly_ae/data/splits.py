"""The four disjoint sets of normal images, and the record of which image went where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anomaly_ae.data.images import Dataset, ImageSet
from anomaly_ae.errors import DataChanged, DataError

PARTS = ("fit", "validation", "calibration", "test")
WITH_OFFICIAL_TEST = (0.8, 0.1, 0.1, 0.0)
WITHOUT_OFFICIAL_TEST = (0.5, 0.1, 0.2, 0.2)


@dataclass(frozen=True)
class Part:
    """Some images of a data set: `file` it comes from, positions there, int64 `(N,)`, and their digest."""

    file: str
    indices: Tensor
    digest: str

    @classmethod
    def of(cls, dataset: Dataset, file: str, indices: Tensor) -> "Part":
        return cls(file, indices, dataset.files[file].take(indices).digest())

    def take(self, dataset: Dataset) -> ImageSet:
        """The images of this part. Raises `DataChanged` if they are not the ones recorded."""
        images = dataset.files.get(self.file)
        if images is None or int(self.indices.max()) >= len(images):
            raise DataChanged(f"{dataset.name} has fewer images than when the detector was trained; use that data")
        taken = images.take(self.indices)
        if taken.digest() != self.digest:
            raise DataChanged(
                f"the images of {dataset.name} are not those the detector was trained on; use that data"
            )
        return taken


@dataclass(frozen=True)
class Split:
    """Fit, validation, calibration (normal images, disjoint) and test (disjoint from them, normal and novel)."""

    fit: Part
    validation: Part
    calibration: Part
    test: Part

    def summary(self) -> dict[str, Any]:
        """File, number of images and digest of each part, as plain JSON values."""
        parts = {name: getattr(self, name) for name in PARTS}
        return {name: {"file": p.file, "images": len(p.indices), "digest": p.digest} for name, p in parts.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The positions of each part, int64."""
        return {name: getattr(self, name).indices for name in PARTS}

    @classmethod
    def from_record(cls, summary: dict[str, Any], tensors: dict[str, Tensor]) -> "Split":
        """The split that `summary` and `tensors` were taken from."""
        return cls(*(Part(summary[name]["file"], tensors[name], summary[name]["digest"]) for name in PARTS))


def split_dataset(dataset: Dataset, normal: Sequence[int], seed: int, contamination: float = 0.0) -> Split:
    """Divide the normal images, class by class, as the seed says; novel images are for the test alone.

    contamination: the share of the fit set, below 1, that is novel all the same, drawn from the training file

    With an official test split: 80/10/10 % of the training file for fit, validation and calibration, and
    the whole test file. Without: 50/10/20/20 %, and all novel images in the test part.
    Raises `DataError` when a part would be empty.
    """
    official = "test" in dataset.files
    labels = dataset.files["train"].labels
    shares = WITH_OFFICIAL_TEST if official else WITHOUT_OFFICIAL_TEST
    generator = torch.Generator().manual_seed(seed)
    pieces = [_cut(torch.nonzero(labels == c).flatten(), shares, generator) for c in normal]
    fit, validation, calibration, test = (torch.cat(part).sort().values for part in zip(*pieces, strict=True))
    novel = torch.nonzero(~torch.isin(labels, torch.tensor(normal))).flatten()
    smuggled, novel = _smuggle(novel, round(len(fit) * contamination / (1 - contamination)), generator)
    fit = torch.cat([fit, smuggled]).sort().values
    test = torch.arange(len(dataset.files["test"])) if official else torch.cat([test, novel]).sort().values
    if min(map(len, (fit, validation, calibration, test))) == 0:
        found = sum(len(part) for piece in pieces for part in piece)
        raise DataError(f"{found} normal images are too few for fit, validation, calibration and test; add some")
    return Split(
        fit=Part.of(dataset, "train", fit),
        validation=Part.of(dataset, "train", validation),
        calibration=Part.of(dataset, "train", calibration),
        test=Part.of(dataset, "test" if official else "train", test),
    )


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
