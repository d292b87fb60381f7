"""Copies among pictures: equal ones, and the same picture saved anew.

Two shots of one still scene are no copies: their noise differs. A picture that was saved anew keeps its noise, as far
as JPEG lets it. So pictures are compared by what tells them from the others of their set: each less the mean picture,
with all spatial frequencies made equally strong. How alike a copy is to its original depends on the pictures, and is
tried out on them. Where there is hardly any noise, two photos of a thing that was not moved in between are as alike
as a photo and its JPEG of quality 30; one of them is used then, too.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from anomaly_ae.errors import DataError
from anomaly_ae.escaping import counted, shown
from anomaly_ae.images.decode import MODES
from anomaly_ae.images.image_set import Dataset, ImageSet, hash_rows
from anomaly_ae.runtime.messages import logger

Pictures = tuple[Tensor, Tensor]  # images, uint8 (M, C, H, W), and indices of some of them, int64 (N,)

FREQUENCIES = 32  # frequencies each way that are compared, the lowest
MOST_PICTURES = 2**16  # among more than these, only equal ones are looked for
MOST_KNOWN = 4096  # pictures that others are compared with
NEIGHBORS = 4096  # pictures that each is compared with, among more than so many those most like it in one respect
PICTURES_AT_ONCE = 256
FLOATS_AT_ONCE = 2**22  # of pictures that are large, fewer at once
POWER_STEPS = 30  # by which that one respect is found
PAIRS_AT_ONCE = 2**18  # of more it is remembered only what they join
JPEG_CHANGES = 6.0  # by about so much saving as JPEG changes a frequency, of 255
TRIED, QUALITY, FOUND = 64, 75, 0.9  # pictures that are saved anew to see how alike copies are, and the share to find
# The least correlation of copies, and in standard deviations of that of any two pictures; that of others stays below
LEAST, DEVIATIONS = 0.35, 8.0
MUCH_NEARER = 0.8  # times as far as from any other, in squared distance, a copy lies from its original at the most
LIKENESS_SAMPLE = 1000  # pictures by which these deviations are found


@dataclass(frozen=True, eq=False)
class Copies:
    """Pictures of a data set that are there more than once.

    left_out: by file, the indices of those that are not to be used, each with the reason
    first:    of copies in the training file that are left out, the indices of what they are copies of
    about:    what was found, a line for each kind
    """

    left_out: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    first: Mapping[int, int] = field(default_factory=dict)
    about: tuple[str, ...] = ()

    def used(self, file: str, count: int) -> Tensor:
        """Which of the `count` images of a file are used, bool (N,)."""
        used = torch.ones(count, dtype=torch.bool)
        used[list(self.left_out.get(file, ()))] = False
        return used

    def names(self, dataset: Dataset) -> list[str]:
        """What is left out, each with the reason."""
        return [
            f"{shown(names[position])}: {reason}"
            for file, reasons in self.left_out.items()
            for position, reason in sorted(reasons.items())
            if (names := dataset.files[file].names)
        ]


def find_copies(dataset: Dataset, normal: Sequence[int]) -> Copies:
    """Copies among the normal pictures of a data set, of which one is to be used; pictures that are in normal classes
    and in others, wherever, of which none is; and test pictures that are training pictures, too.

    Data sets that are not made of files are taken as they were published.
    """
    train, test = dataset.files["train"], dataset.files.get("test")
    if train.names is None:
        return Copies()
    classes = torch.tensor(normal)
    indices = [torch.nonzero(torch.isin(file.labels, classes)).flatten() for file in (train, test) if file]
    count = len(indices[0])
    first = first_alike(*((file.images, at) for file, at in zip((train, test), indices, strict=False) if file))
    is_copy = first[:count] < torch.arange(count)
    originals = dict(zip(indices[0][is_copy].tolist(), indices[0][first[:count][is_copy]].tolist(), strict=True))
    copies = {copy: f"a copy of {shown(train.names[original])}" for copy, original in originals.items()}
    files = [file for file in (train, test) if file]
    hashes = torch.cat([file.hashes() for file in files])
    is_normal = torch.cat([torch.isin(file.labels, classes) for file in files])
    parts = torch.tensor_split(_normal_and_not(hashes, is_normal), [len(train)])
    unclear, unclear_test = (dict.fromkeys(_positions(part), "in a normal class and in another") for part in parts)
    trained = set[int]()
    if test:
        learned = hashes[: len(train)][is_normal[: len(train)]]
        trained |= set(indices[1][first[count:] < count].tolist())
        trained |= set(_positions(torch.isin(hashes[len(train) :], learned)))
    trained_too = dict.fromkeys(sorted(trained - unclear_test.keys()), "a training picture, too")
    return Copies(
        {"train": copies | unclear, "test": unclear_test | trained_too},
        originals,
        (
            *_said(
                f"copies: {{}} of {count:,} normal pictures is equal to another, or as alike as if saved anew; one "
                "is used",
                f"copies: {{}} of {count:,} normal pictures are equal to others, or as alike as if saved anew; one "
                "of each is used",
                copies,
                train,
            ),
            *_said(
                "left out: {} picture that is both normal and not",
                "left out: {} pictures that are both normal and not",
                unclear,
                train,
            ),
            *_said(
                "left out: {} test picture that is both normal and not",
                "left out: {} test pictures that are both normal and not",
                unclear_test,
                test or train,
            ),
            *_said(
                "left out: {} test picture that is a training picture, too",
                "left out: {} test pictures that are training pictures, too",
                trained_too,
                test or train,
            ),
        ),
    )


def called_one_way(hashes: Tensor, is_normal: Tensor) -> Tensor:
    """Of pictures by their hashes, int64 (N,), and whether each is called normal, bool (N,): which are not called the
    other way, too, bool (N,); how many others there are is said.

    Raises `DataError` where all of either kind are called both.
    """
    unclear = _normal_and_not(hashes, is_normal)
    if both := int(unclear.sum()):
        logger.info(f"left out: {counted(both, 'picture that is', 'pictures that are')} both normal and not")
    for name, kind in (("normal", is_normal), ("anomalous", ~is_normal)):
        if kind.any() and unclear[kind].all():
            all_are = (
                f"all {count:,} {name} pictures are" if (count := int(kind.sum())) > 1 else f"the {name} picture is"
            )
            raise DataError(f"{all_are} both normal and not; name others")
    return ~unclear


def _normal_and_not(hashes: Tensor, is_normal: Tensor) -> Tensor:
    return torch.isin(hashes, hashes[is_normal]) & torch.isin(hashes, hashes[~is_normal])


def _positions(wanted: Tensor) -> list[int]:
    """Where a mask, bool (N,), is true."""
    return torch.nonzero(wanted).flatten().tolist()


def _said(one: str, many: str, reasons: Mapping[int, str], images: ImageSet) -> list[str]:
    """What was found, one or many, with an example; nothing where nothing was."""
    if not reasons or images.names is None:
        return []
    (i, reason), count = next(iter(reasons.items())), len(reasons)
    what = (one if count == 1 else many).format(f"{count:,}")
    return [f"{what}: {shown(images.names[i])} is {reason}{' …' if count > 1 else ''}"]


def one_of_each(images: Tensor, indices: Tensor, saved_anew: bool = True) -> Tensor:
    """Those of ascending `indices`, int64 (N,), of images (M, C, H, W) that are copies of no earlier one; how many
    others there are is said.

    saved_anew: whether those that were saved anew count as copies, too, and not equal ones alone
    """
    if not len(indices):
        return indices
    first = first_alike((images, indices)) if saved_anew else first_of_equals(hash_rows(images[indices]))
    kept = indices[torch.unique(first)]
    if copies := len(indices) - len(kept):
        which = counted(copies, "picture that is equal to another", "pictures that are equal to others")
        logger.info(f"left out: {which}, or as alike as if saved anew, for each counts once")
    return kept


def alike_known_ones(known: Pictures, pictures: Pictures) -> Tensor:
    """Which of N pictures are as alike to any of the known ones as if saved anew, bool (N,). Of the known ones,
    `MOST_KNOWN` at the most, memory is taken for what tells each from the others.

    What tells the known ones from each other decides: what all the others have in common makes them no copies. And a
    copy is far more alike to its original than to any other picture, and than any other is to that: pictures of a
    kind of which few are known are alike to all of these.
    """
    looks, (images, indices) = _Looks([known]), pictures
    if looks.count < 2 or images.shape[1] not in MODES or not len(indices):
        return torch.zeros(len(indices), dtype=torch.bool)
    least, those = _least_likeness(looks), looks.at(torch.arange(looks.count))
    found, nearest = [], torch.full((2, looks.count), -1.0)  # of each known one the likeness of the two next to it
    for part in _parts(indices, images):
        likeness = looks.of(images[part]) @ those.T
        found.append(likeness.topk(2, dim=1))
        nearest = torch.cat([nearest, likeness]).topk(2, dim=0).values
    values, positions = (torch.cat(each) for each in zip(*found, strict=True))
    first, second = nearest[:, positions[:, 0]]
    likest = values[:, 0]
    other = torch.maximum(values[:, 1], torch.where(likest >= first, second, first))
    return (likest >= least) & (1 - likest <= MUCH_NEARER * (1 - other))


def first_alike(*sets: Pictures) -> Tensor:
    """Of all pictures of the sets one after the other, N of them, the position of the first that each is a copy of,
    int64 (N,); its own if of none.

    Equal pictures are found always; those that were saved anew as JPEG, resized or made brighter, among up to
    65,536 pictures, unless so little tells the pictures apart that others are as alike; not those that were cropped,
    turned or mirrored.
    """
    hashes = torch.cat([hash_rows(images) for images in _batches(sets)])
    equal = first_of_equals(hashes)
    first = torch.arange(len(hashes))
    is_first = equal == first
    distinct, channels = first[is_first], sets[0][0].shape[1]
    if len(distinct) > MOST_PICTURES:
        logger.info(
            f"copies: {len(distinct):,} pictures are compared for equal ones alone; those that were saved anew are "
            f"looked for among up to {MOST_PICTURES:,}"
        )
    if not 1 < len(distinct) <= MOST_PICTURES or channels not in MODES:
        return equal
    parts = torch.split(is_first, [len(indices) for _, indices in sets])
    unequal = [(images, indices[part]) for (images, indices), part in zip(sets, parts, strict=True)]
    first[distinct] = distinct[_first_saved_anew(unequal)]
    return first[equal]


def _batches(sets: Sequence[Pictures]) -> Iterator[Tensor]:
    """All pictures in order, some at a time."""
    for images, indices in sets:
        yield from (images[part] for part in _parts(indices, images) if len(part))


def _parts(indices: Tensor, images: Tensor) -> Sequence[Tensor]:
    """Indices of images (M, C, H, W) in parts, each of so many images as are held as floats at once."""
    return torch.split(indices, max(1, min(PICTURES_AT_ONCE, FLOATS_AT_ONCE // images.shape[1:].numel())))


def _first_saved_anew(sets: Sequence[Pictures]) -> Tensor:
    """As `first_alike`, of pictures no two of which are equal."""
    looks = _Looks(sets)
    return _first_joined(_pairs(looks, _least_likeness(looks)), looks.count)


def _least_likeness(looks: "_Looks") -> float:
    """The correlation from which on pictures are copies: one that only copies have, and most of them."""
    sample = looks.at(torch.arange(0, looks.count, max(1, looks.count // LIKENESS_SAMPLE)))
    likeness = (sample @ sample.T)[torch.ones(len(sample), len(sample), dtype=torch.bool).triu(diagonal=1)]
    deviation = 1.4826 * (likeness - likeness.median()).abs().median()  # of a normal law, whatever copies have
    beyond_others, of_copies = float(likeness.median() + DEVIATIONS * deviation), _likeness_of_copies(looks)
    if beyond_others > max(LEAST, of_copies):
        logger.info(
            "copies: equal pictures are found, but hardly any that were saved anew, for these are too much alike"
        )
    return max(LEAST, beyond_others, of_copies)


@dataclass(frozen=True, eq=False)
class _Looks:
    """What tells pictures from the others of their sets. Worked out when it is needed, for that of all of them would
    take many times the memory of the pictures.
    """

    sets: Sequence[Pictures]

    def of(self, images: Tensor) -> Tensor:
        """Vectors of length 1, (M, D), of images (M, C, H, W): their inner products are correlations."""
        return normalize(self._spectra(images.float()) / self._strengths, dim=1)

    def at(self, positions: Tensor) -> Tensor:
        """Those of the pictures at positions, int64 (M,), of the sets one after the other: (M, D)."""
        return torch.cat([self.of(self._pictures(part)) for part in _parts(positions, self.sets[0][0])])

    @cached_property
    def count(self) -> int:
        """How many pictures there are."""
        return sum(len(indices) for _, indices in self.sets)

    def _pictures(self, positions: Tensor) -> Tensor:
        found = torch.empty(len(positions), *self.sets[0][0].shape[1:], dtype=torch.uint8)
        for images, indices in self.sets:
            inside = (positions >= 0) & (positions < len(indices))
            found[inside] = images[indices[positions[inside]]]
            positions = positions - len(indices)
        return found

    @cached_property
    def _mean(self) -> Tensor:
        """The mean picture (C, H, W), less its mean brightness."""
        total = sum((images.double().sum(dim=0) for images in _batches(self.sets)), torch.zeros(()))
        return (total - total.mean()).float() / self.count

    @cached_property
    def _strengths(self) -> Tensor:
        """How strong each frequency is in the sets, (D,); weaker than what JPEG changes counts for less."""
        squares = (self._spectra(images.float()).square().sum(dim=0) for images in _batches(self.sets))
        return (sum(squares, torch.zeros(())) / self.count).sqrt() + JPEG_CHANGES

    def _spectra(self, images: Tensor) -> Tensor:
        """The lowest frequencies, (M, D), of what is left of images (M, C, H, W) without mean brightness and mean
        picture, so that light and exposure make no difference.
        """
        left = images - images.mean(dim=(1, 2, 3), keepdim=True)
        share = (left * self._mean).sum(dim=(1, 2, 3), keepdim=True) / self._mean.square().sum().clamp(min=1e-9)
        height, width = images.shape[2:]
        lowest = _cosines(height) @ (left - share * self._mean) @ _cosines(width).T
        return lowest.flatten(1)


def _cosines(size: int) -> Tensor:
    """The first rows of the orthonormal cosine transform of `size` values."""
    rows, columns = torch.arange(min(FREQUENCIES, size))[:, None], torch.arange(size)[None]
    waves: Tensor = torch.cos(torch.pi * rows * (columns + 0.5) / size) * (2 / size) ** 0.5
    return waves / torch.where(rows == 0, 2**0.5, 1.0)


def _likeness_of_copies(looks: _Looks) -> float:
    """The correlation that nine of ten pictures of the first set have, or more, with themselves saved as JPEG."""
    images, indices = looks.sets[0]
    tried = indices[torch.linspace(0, len(indices) - 1, min(TRIED, len(indices))).long()]
    originals = (images[part] for part in _parts(tried, images))
    likeness = [(looks.of(some) * looks.of(_saved_as_jpeg(some))).sum(dim=1) for some in originals]
    return float(torch.cat(likeness).quantile(1 - FOUND))


def _saved_as_jpeg(images: Tensor) -> Tensor:
    """Copies of images, uint8 (M, C, H, W)."""
    copies = []
    for pixels in images.permute(0, 2, 3, 1).numpy():  # (H, W, C) each
        content = io.BytesIO()
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(content, "JPEG", quality=QUALITY)
        copies.append(torch.from_numpy(np.array(Image.open(content))).view(pixels.shape).permute(2, 0, 1))
    return torch.stack(copies)


def _pairs(looks: _Looks, least: float) -> Iterator[Tensor]:
    """Pairs of positions, int64 (P, 2), of pictures with a correlation of `least` or more, some at a time."""
    order = _alike_side_by_side(looks) if looks.count > NEIGHBORS else torch.arange(looks.count)
    near = looks.at(order[:NEIGHBORS])
    for start in range(0, looks.count, PICTURES_AT_ONCE):
        next_ones = order[start + NEIGHBORS : start + NEIGHBORS + PICTURES_AT_ONCE]
        if len(next_ones):
            near = torch.cat([near, looks.at(next_ones)])
        rows, columns = ((near[:PICTURES_AT_ONCE] @ near.T).triu(diagonal=1) >= least).nonzero(as_tuple=True)
        yield order[start + torch.stack([rows, columns], dim=1)]
        near = near[PICTURES_AT_ONCE:]


def _alike_side_by_side(looks: _Looks) -> Tensor:
    """All positions, int64 (N,), by what tells most pictures apart, so that copies lie near each other."""
    sample = torch.split(torch.arange(0, looks.count, looks.count // NEIGHBORS), PICTURES_AT_ONCE)
    products = sum((part.T @ part for part in map(looks.at, sample)), torch.zeros(()))
    direction = products[:, products.diagonal().argmax()]
    for _ in range(POWER_STEPS):  # near enough to the first eigenvector, which takes long to be found exactly
        direction = normalize(products @ direction, dim=0)
    return torch.cat([looks.of(images) @ direction for images in _batches(looks.sets)]).argsort()


def _first_joined(pairs: Iterable[Tensor], count: int) -> Tensor:
    """The first of those that pairs, int64 (P, 2) each, join with each of `count` positions, int64 (count,)."""
    positions = torch.arange(count)
    joined = torch.zeros(0, 2, dtype=torch.int64)
    for some in pairs:
        joined = torch.cat([joined, some])
        if len(joined) > PAIRS_AT_ONCE:
            joined = torch.stack([positions, _first_connected(joined, count)], dim=1)
    return _first_connected(joined, count)


def _first_connected(pairs: Tensor, count: int) -> Tensor:
    from scipy.sparse import coo_array  # here, for scoring alone needs none of it
    from scipy.sparse.csgraph import connected_components

    rows, columns = pairs.T.numpy()
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(count, count))
    return first_of_equals(torch.from_numpy(connected_components(graph, directed=False)[1]).long())


def first_of_equals(values: Tensor) -> Tensor:
    """Of whole numbers, int64 (N,), the position of the first that each is equal to, (N,)."""
    distinct, groups = torch.unique(values, return_inverse=True)
    firsts = torch.full((len(distinct),), len(values)).scatter_reduce(0, groups, torch.arange(len(values)), "amin")
    return firsts[groups]
