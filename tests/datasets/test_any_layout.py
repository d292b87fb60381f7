"""Any folders at all: each file is used, left out or asked about."""

import itertools
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ae.datasets.folder_layout import find_layout
from anomaly_ae.datasets.normal_classes import parse_normal
from anomaly_ae.datasets.picture_layout import PictureLayout
from anomaly_ae.errors import DataError
from anomaly_ae.images.folder_words import sense

PARTS = st.sampled_from(
    [
        *("train", "Test", "val", "test_private", "training", "good", "OK", "bad", "NG 1", "not_good", "no-defects"),
        *(
            "anomaly",
            "images",
            "Data",
            "masks",
            "ground_truth",
            "label",
            "mask",
            "labels",
            "cat",
            "dog",
            "1",
            "2024-05",
        ),
        *(
            ".hidden",
            "@eaDir",
            "__MACOSX",
            "e\u0301",
            "\u00e9",
            "good\\train",
            "a\\",
            "\\",
            " ",
            "bad_masks",
            "train_good",
        ),
    ]
).map(str.encode) | st.sampled_from([b"\xff\xfe", b"caf\xe9"])


NAMES = st.sampled_from(
    [
        b"0.png",
        b"1.png",
        b"0_mask.png",
        b"1_GT.bmp",
        b"gt_0.png",
        b".x.png",
        b"x",
        b"\\.png",
        b"_mask.png",
        b"0.jpg",
        b"bad_1.png",
    ]
)


TREES = st.lists(
    st.builds(lambda folders, name: b"/".join([*folders, name]), st.lists(PARTS, max_size=5), NAMES),
    min_size=1,
    max_size=12,
    unique=True,
)


SETS = st.builds(  # folders that belong together, in any order
    lambda wrapper, layers, order, kept: [
        b"/".join([*wrapper, *(folders[i] for i in order), name])
        for *folders, name in itertools.product(*layers)
        if kept.random() < 0.8
    ],
    st.lists(PARTS, max_size=1),
    st.tuples(
        st.sampled_from([[b"train", b"test"], [b"Training", b"val", b"Testing"], [b"images", b"masks"], [b""]]),
        st.lists(PARTS, min_size=1, max_size=3, unique=True),
        st.sampled_from([[b"images"], [b"d1", b"d2"], [b"Data", b"label"], [b"0"]]),
        st.lists(NAMES, min_size=1, max_size=3, unique=True),
    ),
    st.permutations(range(3)),
    st.randoms(use_true_random=False),
).filter(bool)


@settings(max_examples=200)
@given(
    TREES | SETS.map(lambda paths: list(dict.fromkeys(paths))),
    st.lists(st.lists(PARTS, min_size=1, max_size=3).map(b"/".join), max_size=3),
    st.randoms(),
)
def test_any_tree_is_understood_or_asked_about(paths: list[bytes], empty: list[bytes], chance: random.Random) -> None:
    shuffled = chance.sample(paths, len(paths))
    try:
        layout = find_layout(paths, empty)
    except DataError:
        with pytest.raises(DataError):
            find_layout(shuffled, empty)
        return
    used = [i for positions, _ in layout.files.values() for i in positions]
    out = itertools.chain(*layout.left_out.values())
    assert sorted([*used, *itertools.chain(*layout.masks.values()), *out]) == list(range(len(paths)))
    assert set(layout.masks) <= set(used)
    assert layout.normal or layout.doubt
    if layout.normal:
        chosen = {layout.classes[i] for i in parse_normal(layout.normal, layout.classes)}
        assert min(map(sense, chosen)) >= 0
    assert by_path(find_layout(shuffled, empty), shuffled) == by_path(layout, paths)


def by_path(layout: PictureLayout, paths: list[bytes]) -> Iterable[object]:
    """A layout by the names of its files, whatever their order."""
    pictures = {
        paths[i]: (file, layout.classes[label])
        for file, (positions, labels) in layout.files.items()
        for i, label in zip(positions, labels, strict=True)
    }
    masks = {paths[i]: {paths[mask] for mask in masks} for i, masks in layout.masks.items()}
    out = {paths[i]: reason for reason, positions in layout.left_out.items() for i in positions}
    return layout.normal, layout.classes, pictures, masks, out
