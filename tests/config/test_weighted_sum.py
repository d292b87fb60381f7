import pytest

from anomaly_ae.config.weighted_sum import parse_weighted_sum
from anomaly_ae.errors import UnknownName, UsageError


def test_weights_and_names_are_read() -> None:
    assert parse_weighted_sum("fruit", "pear + 0.5 * apple", ("apple", "pear"), "pear+2*apple") == [
        (1.0, "pear"),
        (0.5, "apple"),
    ]


def test_what_is_no_name_or_no_weight_is_said() -> None:
    with pytest.raises(UnknownName, match=r"unknown fruit 'aple'.*'apple'"):
        parse_weighted_sum("fruit", "pear+aple", ("apple", "pear"), "pear+2*apple")
    for wrong in ("0", "-1", "inf", "nan", "two", ""):
        with pytest.raises(UsageError, match=f"the weight of fruit pear is a number above 0.*is {wrong!r}"):
            parse_weighted_sum("fruit", f"{wrong}*pear", ("apple", "pear"), "pear+2*apple")
