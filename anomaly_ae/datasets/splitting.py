"""Dividing normal images into the four disjoint sets, by the seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anomaly_ae.datasets.copies import Copies
from anomaly_ae.datasets.folder_layout import MANY_GROUPS, SMALL_GROUP
from anomaly_ae.datasets.splits import NO_INDICES, SPLIT_PARTS, Part, Split
from anomaly_ae.errors import DataError
from anomaly_ae.escaping import counted
from anomaly_ae.images.image_set import Dataset

WITH_OFFICIAL_TEST = (0.8, 0.1, 0.1, 0.0)
WITHOUT_OFFICIAL_TEST = (0.5, 0.1, 0.2, 0.2)
MOST_CALIBRATION, LEAST_TEST = 0.5, 0.1
SMALL_CLASS = 10  # images, fewer of which are not cut for themselves
NO_COPIES = Copies()
NO_CLASS = -1  # of what is not used


def split_dataset(
    dataset: Dataset,
    normal: Sequence[int],
    seed: int,
    contamination: float = 0.0,
    needed: int = 0,
    copies: Copies = NO_COPIES,
    enough_in_folds: int = 0,
) -> Split:
    """Divide the normal images, class by class, as the seed says; novel images are for the test alone.

    contamination: the share of the fit set, below 1, that is novel all the same, drawn from the training file
    needed: images that the calibration needs
    copies: pictures that are not to be used
    enough_in_folds: normal images that would do in folds, into which groups cannot be divided; told where they lack

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
    inexact = sum(piece.inexact for piece in pieces)
    groups = sum(len(torch.unique(piece.groups)) for piece in pieces if piece.groups is not None)
    enough = enough_in_folds
    if groups or not enough_in_folds:
        cut_singly = max(inexact, len(normal) / 2)  # inexact, when all classes are large enough for that
        enough = max(len(SPLIT_PARTS), math.ceil((needed + cut_singly) / MOST_CALIBRATION))
    shares = _shares(_usual(official), (needed + inexact) / max(1, count))
    generator = torch.Generator().manual_seed(seed)
    cut = [piece.cut(shares, generator) for piece in pieces] or [(NO_INDICES,) * len(SPLIT_PARTS)]
    fit, validation, calibration, test = (torch.cat(part).sort().values for part in zip(*cut, strict=True))
    novel = torch.nonzero(~torch.isin(labels, torch.tensor([*normal, NO_CLASS]))).flatten()
    injected, novel = _inject(novel, round(len(fit) * contamination / (1 - contamination)), generator)
    fit = torch.cat([fit, injected]).sort().values
    test = torch.cat([test, novel]).sort().values
    if official:
        test = torch.nonzero(copies.used("test", len(dataset.files["test"]))).flatten()
        if len(dataset.files["test"]) > len(test) == 0:
            raise DataError(
                f"all {len(dataset.files['test']):,} test images are left out; give others to measure with"
            )
    if min(map(len, (fit, validation, calibration, test))) == 0:
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
        enough=enough,
        groups=groups,
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
            return torch.split(shuffled, _sizes(len(self.indices), shares))
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


def count_trainable(count: int, official: bool) -> int:
    """How many of that many normal images of one class, with or without an official test, fit and calibrate."""
    fit, _, calibration, _ = _sizes(count, _usual(official))
    return fit + calibration


def _usual(official: bool) -> tuple[float, ...]:
    return WITH_OFFICIAL_TEST if official else WITHOUT_OFFICIAL_TEST


def _sizes(count: int, shares: Sequence[float]) -> list[int]:
    """So many images cut at the cumulated shares."""
    ends = [round(sum(shares[: i + 1]) * count) for i in range(len(shares))]
    sizes = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    for i, share in enumerate(shares):  # no part of a few is left out by rounding
        if share and not sizes[i] and sizes[0] > 1:
            sizes[0], sizes[i] = sizes[0] - 1, 1
    return sizes


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
