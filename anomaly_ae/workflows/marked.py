"""Images that people have marked as good or bad, for whoever calibrates, measures or trains with them."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.datasets.copies import called_one_way, one_of_each
from anomaly_ae.datasets.splits import Part
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import MarksUsed
from anomaly_ae.errors import DataError, DataMissing
from anomaly_ae.escaping import printable
from anomaly_ae.images.folder_words import Sense, sense, split_path
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.listing import NOT_KNOWN, Listing, Source
from anomaly_ae.images.sources import open_source
from anomaly_ae.reporting.text.detectors import marks_words
from anomaly_ae.scoring.encode import score_images
from anomaly_ae.scoring.marks import BAD, GOOD, UNDECIDED, Mark, MarkFile, contradicting, read_marks
from anomaly_ae.storage.atomic import expand
from anomaly_ae.workflows.new_pictures import ALL_KNOWN, new_normals

MOST_TOLD = 5  # contradictions, by name


@dataclass(frozen=True)
class Marked:
    """Images marked good, or bad, at a detector's size, with their scores, float32 (N,), and names.

    left_out: those that the detector was made with, and copies of others, which count once
    """

    images: Tensor
    scores: Tensor
    names: tuple[bytes, ...]
    unreadable: int = 0
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.names)


class MarkedImages:
    """What is in a file of marks, as a detector sees it; files that have changed since are left out, and so are those
    that are marked good while copies of them are marked bad.

    Raises `DataMissing` where there are no marks, or none that still holds and says good or bad.
    """

    def __init__(self, path: str | Path) -> None:
        file = read_marks(expand(path))
        self.place = str(file.path.resolve())
        try:
            self._sources = {name: open_source(name) for name in file.places()}
        except DataMissing as error:
            raise DataMissing(f"{error}; marks in {path} are on what was there") from error
        holding = [mark for mark in file if mark.holds(self._sources[mark.place])]
        if not holding:
            raise DataMissing(f"none of the marks in {path} holds, for their files have changed; mark them again")
        self.read, self._holding = file.content(), holding
        against = contradicting(holding)
        self._counting = [mark for mark in holding if mark not in against]
        self.used = _used(file, self._counting, against, self._sources.values())
        if not (self.used.good or self.used.bad):
            found = "; ".join(f"{name}: {text}" for name, text in marks_words(self.used))
            raise DataMissing(f"{path} says of no image that it is good or bad ({found}); mark some")

    def of(self, detector: Detector, mark: str) -> Marked:
        """The images with a mark that the detector has not been made with, each once."""
        by_source = defaultdict[str, list[Mark]](list)
        for each in self._counting:
            if each.mark == mark:
                by_source[each.place].append(each)
        found = [_scored(detector, name, marks) for name, marks in by_source.items()]
        if not found:
            return Marked(torch.zeros(0, *detector.preprocessing.shape, dtype=torch.uint8), torch.zeros(0), ())
        images = torch.cat([each.images for each in found])
        try:
            unseen = detector.unseen(images)
            new = new_normals(detector, images, unseen) if mark == GOOD else one_of_each(images, unseen)
            if not len(new):
                raise DataError(ALL_KNOWN)
        except DataError as error:
            raise DataError(f"{error}: those marked {mark} in {self.place}") from error
        names = [name for each in found for name in each.names]
        return Marked(
            images[new],
            torch.cat([each.scores for each in found])[new],
            tuple(names[i] for i in new.tolist()),
            sum(each.unreadable for each in found),
            len(images) - len(new),
        )

    def digests(self, mark: str) -> frozenset[str]:
        """The SHA-256 of the files with a mark."""
        return frozenset(each.sha256 for each in self._counting if each.mark == mark)

    def called_bad(self) -> frozenset[str]:
        """The SHA-256 of the files that are marked bad, those with copies that are marked good among them."""
        return frozenset(each.sha256 for each in self._holding if each.mark == BAD)

    def as_test(self, detector: Detector) -> tuple[Detector, ImageSet]:
        """A detector that knows the classes good and bad, and the marked images as its test images."""
        good, bad = (self.of(detector, mark) for mark in (GOOD, BAD))
        labels = torch.tensor([0] * len(good) + [1] * len(bad))
        test = ImageSet(torch.cat([good.images, bad.images]), labels, good.names + bad.names)
        test = test.take(called_one_way(test.hashes(), labels == 0).nonzero().flatten())
        config = dataclasses.replace(detector.config, dataset=self.place)
        part = Part.of(Dataset(self.place, (GOOD, BAD), {"test": test}), "test", torch.arange(len(test)))
        split = dataclasses.replace(detector.split, test=part)
        return dataclasses.replace(detector, config=config, classes=(GOOD, BAD), normal=(GOOD,), split=split), test


def _scored(detector: Detector, source: str, marks: Sequence[Mark]) -> Marked:
    unknown = np.full(len(marks), NOT_KNOWN)
    listing = Listing(sorted(mark.file for mark in marks), unknown, unknown)
    scored = score_images(detector, open_source(source), listing)
    return Marked(scored.images, scored.scores, scored.names, len(scored.errors))


def _used(file: MarkFile, counting: Sequence[Mark], copies: Collection[Mark], sources: Iterable[Source]) -> MarksUsed:
    """What is to be said of the marks, before any image is read."""
    marked = {(mark.source, mark.file) for mark in file}
    kinds, against = Counter(mark.mark for mark in counting), [mark for mark in counting if _contradicts(mark)]
    return MarksUsed(
        file=str(file.path),
        good=kinds[GOOD],
        bad=kinds[BAD],
        undecided=kinds[UNDECIDED],
        changed=len(marked) - len(counting) - len(copies),
        damaged=file.damaged,
        unmarked=sum((each.identity, path) not in marked for each in sources for path in each.pictures().paths),
        contradictions=len(against),
        examples=_first_of(against),
        copies=len(copies),
        copies_examples=_first_of(sorted(copies, key=lambda mark: (mark.sha256, mark.path))),
    )


def _first_of(marks: Sequence[Mark]) -> list[str]:
    return [f"{printable(mark.path)} is marked {mark.mark}" for mark in marks[:MOST_TOLD]]


def _contradicts(mark: Mark) -> bool:
    """Whether the folders that a file lies in say the opposite."""
    said = {sense(part) for part in split_path(mark.file)[:-1]}
    if Sense.ANOMALOUS in said:  # what says both is anomalous
        return mark.mark == GOOD
    return Sense.NORMAL in said and mark.mark == BAD
