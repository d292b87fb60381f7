"""Pictures of one's own as a data set: found by looking, decoded once, kept in memory, or on disk where too many."""

import itertools
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.datasets.decoded import decode_files, decode_pictures
from anomaly_ae.datasets.folder_layout import find_layout
from anomaly_ae.datasets.layout_texts import TO_TRAIN, describe_layout, folder_tree, label_table
from anomaly_ae.datasets.manifest import is_manifest
from anomaly_ae.datasets.manifest_layout import open_manifest
from anomaly_ae.datasets.picture_layout import TRAIN, PictureLayout
from anomaly_ae.datasets.picture_masks import PictureMasks
from anomaly_ae.errors import AnomalyAEError, DataError, UsageError
from anomaly_ae.escaping import counted, short_name, shown, times
from anomaly_ae.images.annotations import find_annotations
from anomaly_ae.images.decode import INSIDE, Target, further_words
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.decode_worker import Records
from anomaly_ae.images.folder_words import sense
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.intensity import EIGHT, KINDS, Intensity, Values, find_intensity, intensity_words
from anomaly_ae.images.listing import Integers, Listing, Source
from anomaly_ae.images.named_files import NamedFiles
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.images.sources import open_source
from anomaly_ae.images.statistics import COLOURED, size_words
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting

LOOKED_AT = 64  # pictures by which size and colour are found out,
MASKS_LOOKED_AT = Preprocessing(1, 64, 64)  # where they alone say which pictures are normal
MOST_BAD = 0.1  # share of the pictures that may be unreadable before training on the others makes no sense
SAMPLED = 256  # values of a picture by which the intensity is found
LOOK = Target((3, 64, 64), INSIDE, sample=SAMPLED)  # small pictures
SAMPLE = Target((1, 1, 1), sample=SAMPLED)  # next to nothing beside the values
E = TypeVar("E", bound=AnomalyAEError)
INTO_FOLDERS = "move the normal pictures into a folder called good, and the others into one called bad beside it"
CALL_GOOD = "call the folder of the normal ones good"
LABEL_ALL, LABEL_GOOD = "label the normal pictures good, and the others bad", "label the normal ones good"


@dataclass(frozen=True, eq=False)
class PictureData:
    """Pictures below a folder or an address, or in a manifest, and what each of them is.

    learned: indices of the classes that are learned from; None where that is not known yet
    roi:     what is looked at of each picture; None for all of it
    """

    name: str
    source: Source
    listing: Listing
    layout: PictureLayout
    learned: frozenset[int] | None = None
    roi: RegionOfInterest | None = None

    @classmethod
    def open(cls, place: str) -> "PictureData":
        """Raises `DataMissing` when there is no picture, `DataError` when it cannot be told what they are."""
        if is_manifest(place):
            named, listing, layout = open_manifest(place)
            return cls(named.name, named, listing, layout)
        source = open_source(place)
        listing = source.list()
        try:
            layout = find_layout(list(map(source.inside, listing.paths)), listing.empty)
            data = cls(source.name, source, listing, layout)
        except DataError as error:
            raise _with_note(
                DataError(f"{source.name}: {error}"), folder_tree(listing.paths, listing.empty)
            ) from error
        if layout.by_masks:
            masked = list(layout.masks)
            masks, usable, _ = data._masks.read([listing.paths[i] for i in masked], MASKS_LOOKED_AT)
            marked = {i for i, mask in zip(masked, masks, strict=True) if mask.any()}
            layout = layout.marked(marked, {i for i, is_usable in zip(masked, usable, strict=True) if not is_usable})
        trained = [source.inside(listing.paths[i]) for i in layout.files[TRAIN][0]]
        return replace(data, layout=layout.with_unread(find_annotations(listing.annotations, trained, source.head)))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.layout.classes

    @property
    def normal(self) -> str | None:
        """What is normal unless something else is said."""
        return self.layout.normal

    @property
    def place(self) -> None:
        """Nowhere but where its name says."""

    def describe(self, normal: Collection[int], purpose: str = TO_TRAIN) -> str:
        """What was found, and what is used for what where the classes at the indices `normal` are normal.

        purpose: of `layout_texts`
        """
        one = f"\n  one of them alone: {setting('dataset', alone)}" if (alone := self._alone) else ""
        return f"{self.name}: {describe_layout(self.layout, self.listing, normal, purpose)}{one}"

    def of_classes(self, wanted: Collection[int]) -> Listing:
        """The files of the pictures whose classes are at the indices `wanted`."""
        files = self.layout.files.values()
        return self.listing.take([i for of in files for i, label in zip(*of, strict=True) if label in wanted])

    def learning(self, normal: Collection[int], roi: RegionOfInterest | None = None) -> "PictureData":
        """The same, learning from the classes at the indices `normal`, which alone say how pictures are seen, and
        looking at a region of interest; asked again, the same that has looked at them already.
        """
        wanted = frozenset(normal), roi
        if wanted not in self._learning:
            self._learning[wanted] = replace(self, learned=wanted[0], roi=roi)
        return self._learning[wanted]

    @cached_property
    def _learning(self) -> "dict[tuple[frozenset[int], RegionOfInterest | None], PictureData]":
        return {}

    def as_one(self) -> "PictureData":
        """See `Layout.as_one`."""
        return replace(self, layout=self.layout.as_one())

    def renamed(self, name: str) -> "PictureData":
        """The same, its only class being called `name`."""
        return replace(self, layout=replace(self.layout, classes=(name,)))

    def undecided(self, settable: bool = True) -> UsageError:
        """What to say where nothing tells which classes are normal; `settable` where `normal` may tell it."""
        if isinstance(self.source, NamedFiles):
            note, rename, sort = label_table(self.layout), LABEL_GOOD, LABEL_ALL
        else:
            note, rename, sort = folder_tree(self.listing.paths, self.listing.empty), CALL_GOOD, INTO_FOLDERS
        said = f"{self.name}: {self.layout.doubt}; "
        if not settable:
            return _with_note(UsageError(f"what is normal cannot be told: {said}{sort}"), note)
        good = [name for name in self.classes if sense(name) > 0] or [
            name for name in self.classes if len(self.classes) > 1 and sense(name) == 0
        ]
        is_clear = len(good) == 1 or (bool(good) and sense(good[0]) > 0)
        choice = setting("normal", ",".join(good) if is_clear else "CLASS")
        if self.layout.sets:
            one = f"name one of them, as in {setting('dataset', alone)}; or " if (alone := self._alone) else ""
            what = f"{one}take them together with {choice}"
        elif len(self.classes) == 1:
            what = f"say {setting('normal', 'all')} if all of them are normal; or {sort}"
        else:
            everything = f"{setting('normal', 'all')} if everything is"
            what = f"say what is normal, {'as in' if is_clear else 'with'} {choice}, or {everything}"
            loose = self.layout.by_names or self.layout.by_masks
            if len(good) == 1 or not is_clear:
                what += f"; or {sort if loose else rename}"
        if self.layout.unread and len(self._tables) == 1:
            what += f"; or, if it says which are, name the manifest, {setting('dataset', self._tables[0])}"
        return _with_note(UsageError(f"{setting('normal')} is needed: {said}{what}"), note)

    @property
    def _tables(self) -> list[str]:
        """The files in the folder that may be manifests."""
        files = [os.fsdecode(self.source.locate(path)) for path in self.listing.annotations]
        return list(filter(is_manifest, files))

    @property
    def says_bad(self) -> bool:
        """Whether the folder itself is called so that all in it is anomalous; a manifest's name says nothing."""
        return not isinstance(self.source, NamedFiles) and sense(short_name(self.name)) < 0

    @property
    def _alone(self) -> str:
        """Where one of several data sets lies; nothing where none has a folder of its own."""
        alone = self.layout.alone
        return os.fsdecode(self.source.locate(os.fsencode(alone))) if alone else ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what is looked at of the pictures: gray if none of some has colour, and of
        their median size.
        """
        pixels = self._looked_at["pixels"]
        spread = pixels.max(axis=1).astype(int) - pixels.min(axis=1)  # of the channels of a pixel
        height, width = (round(float(np.median(side))) for side in zip(*self.sizes, strict=True))
        size = self.roi.part_size((height, width)) if self.roi else (height, width)
        return (3 if (spread > COLOURED).any() else 1, *size)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of some of the pictures that are learned from."""
        return list(zip(*(self._looked_at[side].tolist() for side in ("height", "width")), strict=True))

    def size_words(self, seen: tuple[int, int], side: int, resize_mode: str) -> list[str]:
        """What size and colour the pictures have, and what seeing them in height and width `seen` does to them, or
        costs: see `statistics.size_words`.
        """
        heights, widths = (self._looked_at[name].astype(np.int64) for name in ("height", "width"))
        count, colour = len(self._learned), "in colour" if self.shape[0] == 3 else "gray"
        sample = f" ({LOOKED_AT} of {count:,} looked at)" if count > LOOKED_AT else ""
        by_area = np.lexsort((heights, heights * widths))  # upright ones after others as large
        low, high = (times((int(heights[i]), int(widths[i]))) for i in by_area[[0, -1]])
        sizes = low if low == high else f"{low} to {high}"
        looks = f"pictures: {sizes}, {colour}{sample}; seen at {times(seen)}"
        if self.roi:
            heights, widths = np.array([self.roi.part_size(size) for size in self.sizes]).T
        return [looks, *size_words(heights, widths, seen, side, resize_mode)]

    @cached_property
    def _learned(self) -> Integers:
        """The training pictures that are learned from; all of them where that is not known, or none is."""
        indices, labels = self.layout.files[TRAIN]
        learned = [i for i, label in zip(indices, labels, strict=True) if self.learned and label in self.learned]
        return np.array(learned or indices)

    @cached_property
    def _looked_at(self) -> Records:
        """Some of the pictures that are learned from; of more than 8 bits, between their own black and white."""
        look = replace(LOOK, roi=self.roi)
        good = self._look(look)
        intensity = find_intensity(*_kinds_and_samples(good), None)
        return self._look(replace(look, intensity=intensity)) if intensity else good

    def _look(self, target: Target) -> Records:
        indices = self._learned
        sample = indices[np.linspace(0, len(indices) - 1, min(LOOKED_AT, len(indices))).astype(int)]
        with Decoders(self.source, target) as decoders:
            records = decoders.decode(*self.listing.at(sample))
        good: Records = records[records["error"] == b""]
        if not len(good):
            first = f"{shown(self.listing.paths[sample[0]])}: {records['error'][0].decode()}"
            raise DataError(
                f"not one of {counted(len(sample), 'picture')} in {self.name} can be read; the first {first}"
            )
        return good

    def find_intensity(self, requested: str | None = None) -> Intensity | None:
        """Which values are black and white in the pictures that are learned from, see `intensity.find_intensity`; it
        is said. One that was asked for is for the others where these have 8 bits.
        """
        if (self._looked_at["kind"] == KINDS.index(EIGHT)).all() and not requested:
            return None
        kinds, samples = self._sampled(self._learned)
        if requested and not samples:
            kinds, samples = self._sampled(np.concatenate([of for of, _ in self.layout.files.values()]))
        intensity = find_intensity(kinds, samples, requested)
        if intensity:
            logger.info(intensity_words(intensity, samples, requested))
        return intensity

    def _sampled(self, indices: Integers) -> tuple[list[str], list[Values]]:
        """The kinds of the pictures at some indices, and of those of more than 8 bits some values."""
        target = replace(SAMPLE, roi=self.roi)
        records = np.concatenate(list(decode_files(self.source, self.listing, indices, target, "looked at")))
        return _kinds_and_samples(records[records["error"] == b""])

    def load(self, preprocessing: Preprocessing, only: Collection[bytes] | None = None) -> Dataset:
        """The pictures as a detector sees them; those with names in `only`, where it is given.

        Files that cannot be read are left out, and it is said how many have further pages or frames.
        Raises `DataError` when too few can be read to go on.
        """
        files, bad, further = {}, list[str](), 0
        for file, (indices, labels) in self.layout.files.items():
            is_wanted = np.array([only is None or self.listing.paths[i] in only for i in indices], bool)
            if not is_wanted.any():
                continue
            decoded = decode_pictures(self.source, self.listing, np.array(indices)[is_wanted], preprocessing)
            further += decoded.further
            for note in decoded.notes:
                logger.info(f"brightness: {note}")
            names = [self.listing.paths[i] for i in np.array(indices)[is_wanted]]
            bad += [f"{shown(name)}: {error}" for name, error in zip(names, decoded.errors, strict=True) if error]
            is_good = np.array([not error for error in decoded.errors], bool)
            good = torch.from_numpy(np.array(labels)[is_wanted][is_good]).long()
            files[file] = ImageSet(decoded.pixels, good, tuple(itertools.compress(names, is_good)))
        if len(bad) > MOST_BAD * (count := len(bad) + sum(map(len, files.values()))):
            raise DataError(
                f"{len(bad):,} of {count:,} pictures in {self.name} cannot be read; the first {bad[0]}; "
                "mend or remove them"
            )
        for words in further_words(further):
            logger.info(words)
        return Dataset(self.name, self.classes, files, tuple(bad), prepared=True)

    def masks(self, names: Sequence[bytes], preprocessing: Preprocessing) -> tuple[Tensor, Tensor] | None:
        """See `PictureMasks.of`."""
        return self._masks.of(names, preprocessing)

    @property
    def _masks(self) -> PictureMasks:
        return PictureMasks(self.source, self.listing, self.layout)


def _with_note(error: E, lines: Sequence[str]) -> E:
    """The error with what was found as a note."""
    error.add_note("\n".join(lines))
    return error


def _kinds_and_samples(good: Records) -> tuple[list[str], list[Values]]:
    """Of records: the kinds, and the samples of those of more than 8 bits."""
    return [KINDS[kind] for kind in good["kind"]], list(good["sample"][good["kind"] != KINDS.index(EIGHT)])
