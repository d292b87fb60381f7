import pytest

from anomaly_ae.datasets.folder_layout import OUTSIDE, UNSAID, find_layout
from anomaly_ae.datasets.normal_classes import ALL_CLASSES
from anomaly_ae.errors import DataError


def test_pictures_in_one_folder_are_all_normal() -> None:
    layout = find_layout([b"a.png", b"b.jpg"])
    assert (layout.classes, layout.normal) == (("normal",), ALL_CLASSES)
    assert layout.files == {"train": ([0, 1], [0, 0])}


def test_folders_are_classes_whatever_lies_deeper() -> None:
    layout = find_layout([b"bad/x.png", b"good/2024/05/a.png", b"good/b.png", b"other/c.png"])
    assert layout.classes == ("bad", "good", "other")
    assert layout.files == {"train": ([0, 1, 2, 3], [0, 1, 1, 2])}
    assert layout.normal == "good"


def test_classes_called_by_numbers_are_in_their_order_and_none_is_normal_by_its_name() -> None:
    layout = find_layout([f"{name}/x.png".encode() for name in (10, 9, 1)])
    assert layout.classes == ("1", "9", "10")
    assert layout.files["train"][1] == [2, 1, 0]
    assert layout.normal is None


def test_two_classes_that_sound_normal_are_left_to_the_user() -> None:
    assert find_layout([b"good/a.png", b"ok/a.png", b"bad/a.png"]).normal is None


def test_the_layout_of_mvtec_with_its_masks() -> None:
    paths = [
        b"ground_truth/crack/000_mask.png",
        b"ground_truth/crack/002.png",
        b"test/crack/000.jpg",
        b"test/crack/001.jpg",
        b"test/crack/002.jpg",
        b"test/good/000.png",
        b"train/good/000.png",
        b"train/good/001.png",
        b"readme/sketch.png",
    ]
    layout = find_layout(paths)
    assert layout.classes == ("crack", "good")
    assert layout.files == {"train": ([6, 7], [1, 1]), "test": ([2, 3, 4, 5], [0, 0, 0, 1])}
    assert layout.masks == {2: (0,), 4: (1,)}  # those of 000 and 002, by name with or without _mask
    assert layout.normal == "good"
    assert layout.left_out == {OUTSIDE: [8]}


def test_training_pictures_alone_and_without_a_class_of_their_own() -> None:
    layout = find_layout([b"train/a.png", b"train/b.png", b"test/a.png", b"test/scratch/a.png"])
    assert layout.classes == ("normal", "scratch")
    assert layout.files == {"train": ([0, 1], [0, 0]), "test": ([3], [1])}
    assert layout.normal == "normal"
    assert layout.left_out == {UNSAID: [2]}  # what test/a.png is, nobody has said
    assert find_layout([b"train/good/a.png"]).normal == ALL_CLASSES  # nothing is there to be detected


def test_a_training_set_of_several_classes_has_the_one_called_good_as_normal() -> None:
    assert find_layout([b"train/good/a.png", b"train/bad/a.png", b"test/bad/b.png"]).normal == "good"
    assert find_layout([b"train/cat/a.png", b"train/dog/a.png"]).normal is None


def test_pictures_beside_and_in_folders_are_not_guessed_at() -> None:
    with pytest.raises(DataError, match="1 picture lies beside the folders bad, good"):
        find_layout([b"good/a.png", b"bad/b.png", b"c.png"])


def test_names_that_are_no_utf_8_stay_apart() -> None:
    assert find_layout([b"\xe9/a.png", b"\xe8/a.png"]).classes == ("\\xe8", "\\xe9")


def test_pictures_to_measure_on_alone() -> None:
    layout = find_layout([b"ground_truth/hole/0_mask.png", b"test/good/0.png", b"test/hole/0.png"])
    assert layout.files == {"train": ([1, 2], [0, 1])}
    assert layout.masks == {2: (0,)}
    assert layout.normal == "good"


@pytest.mark.parametrize("train", ["train/a.png", "train/good/a.png", "train/OK/a.png"])
def test_what_is_called_normal_here_and_good_there_is_one_class(train: str) -> None:
    layout = find_layout([train.encode(), b"test/good/a.png", b"test/hole/a.png"])
    assert layout.normal is not None
    assert layout.files["test"][1][0] == layout.files["train"][1][0] == layout.classes.index(layout.normal)


def test_a_layout_one_folder_deeper_is_found() -> None:
    paths = [b"tile/train/good/0.png", b"tile/test/hole/0.png", b"tile/ground_truth/hole/0_mask.png"]
    assert find_layout(paths) == find_layout([path.removeprefix(b"tile/") for path in paths])


def test_classes_may_have_masks() -> None:
    layout = find_layout([b"good/a.png", b"hole/a.png", b"hole/b.png", b"ground_truth/hole/b_mask.png"])
    assert layout.classes == ("good", "hole")
    assert layout.masks == {2: (3,)}


def test_a_class_may_be_called_train() -> None:
    layout = find_layout([b"car/a.png", b"plane/a.png", b"train/a.png"])
    assert layout.classes == ("car", "plane", "train")


def test_hidden_folders_are_left_alone_and_odd_digits_are_names() -> None:
    layout = find_layout([b".ipynb_checkpoints/a.png", "²/a.png".encode(), b"2/a.png"])
    assert layout.classes == ("2", "²")
    assert layout.left_out == {"hidden pictures": [0]}
