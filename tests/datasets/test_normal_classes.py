import pytest

from anomaly_ae.datasets.builtin import DIGITS, FASHION
from anomaly_ae.datasets.normal_classes import parse_normal
from anomaly_ae.errors import UnknownName, UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,1,2", (0, 1, 2)),
        ("2, 0 ,2", (0, 2)),
        ("0-4", (0, 1, 2, 3, 4)),
        ("0-2,8", (0, 1, 2, 8)),
        ("all-but:7", (0, 1, 2, 3, 4, 5, 6, 8, 9)),
        ("all-but:0-7", (8, 9)),
        ("all", tuple(range(10))),
    ],
)
def test_what_normal_may_say(text: str, expected: tuple[int, ...]) -> None:
    assert parse_normal(text, DIGITS) == expected


def test_class_names_with_dashes_slashes_and_spaces() -> None:
    assert parse_normal("t-shirt/top, Ankle boot,1", FASHION) == (0, 1, 9)


@pytest.mark.parametrize(
    ("text", "classes", "expected"),
    [
        ("1-2", ("1", "2", "3", "4"), ["1", "2"]),  # names, not positions
        ("2", ("1", "2", "3"), ["2"]),
        ("1-3", ("001", "002", "003", "010"), ["001", "002", "003"]),
        ("010", ("001", "010"), ["010"]),
        ("1", ("a", "b", "c"), ["b"]),
        ("a-b", ("a", "a-b", "b"), ["a-b"]),
        ("1-2", ("1", "1-2", "2"), ["1-2"]),  # a name goes before a range
        ("a,b", ("a", "a,b", "c"), ["a,b"]),
        ("c,a,b", ("a", "a,b", "b", "c"), ["a,b", "c"]),
        ("none", ("none", "some"), ["none"]),
        ("all", ("all", "some"), ["all"]),
        ("latest", ("latest", "some"), ["latest"]),
        ("a", ("A", "a"), ["a"]),
        ("GOOD", ("good", "bad"), ["good"]),
        ("gro\u0308sse", ("gr\u00f6sse", "rest"), ["gr\u00f6sse"]),  # as macOS composes it
        ("gr\u00f6sse", ("gro\u0308sse", "rest"), ["gro\u0308sse"]),
        ("bad", ("bad",), ["bad"]),  # of one class alone it says nothing new
        ("all-but:1-2", ("1", "2", "3"), ["3"]),
    ],
)
def test_names_go_before_numbers_and_words(text: str, classes: tuple[str, ...], expected: list[str]) -> None:
    assert [classes[i] for i in parse_normal(text, classes)] == expected


@pytest.mark.parametrize(
    ("text", "classes", "reason"),
    [
        ("0,,1", DIGITS, "nothing between two commas"),
        ("0,1,", DIGITS, "nothing between two commas"),
        ("0", ("1", "2", "3"), "no class 0"),
        ("01", DIGITS, "no class 01"),
        ("0-2", ("1", "2", "3"), "no class 0; the classes are called 1, 2, 3"),
        ("2-4", ("1", "2", "10"), "no class 4"),
        ("good", ("Good", "GOOD", "bad"), "may mean Good or GOOD"),
        ("9" * 5000, DIGITS, "unknown class"),
    ],
)
def test_what_is_no_name_is_refused_in_words(text: str, classes: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_normal(text, classes)


@pytest.mark.parametrize("text", [" , ", "all-but:"])
def test_an_empty_set_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no class"):
        parse_normal(text, DIGITS)


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="normal is needed"):
        parse_normal(" ", DIGITS)


def test_all_classes_are_refused_for_nothing_would_be_left() -> None:
    with pytest.raises(UsageError, match='nothing is left to detect; if that is meant, write normal="all"'):
        parse_normal("0-9", DIGITS)
    with pytest.raises(UsageError, match="leaves no class"):
        parse_normal("all-but:0-9", DIGITS)


@pytest.mark.parametrize(("text", "reason"), [("10", "no class 10"), ("3-12", "no class 12"), ("4-2", "write 2-4")])
def test_numbers_beyond_the_classes_and_ranges_backwards(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_normal(text, DIGITS)


def test_an_unknown_class_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'Sandal'"):
        parse_normal("sandals", FASHION)
