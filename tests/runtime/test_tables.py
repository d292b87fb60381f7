from anomaly_ae.runtime.tables import columns, markdown_table, plain_table

ROWS = [
    {"system": "a|b", "parameters": 219_584, "seconds": 1.26, "train_mse": None},
    {"system": "long name", "parameters": 5, "seconds": 1234.5, "train_mse": 0.012345678},
]


def test_columns_are_as_wide_as_they_need_to_be() -> None:
    assert columns([("a", "1"), ("bcd", "234")], right=(1,)) == ["a      1", "bcd  234"]


def test_numbers_stand_to_the_right_and_what_is_absent_is_a_dash() -> None:
    assert plain_table(ROWS) == [
        "system     parameters  seconds  train mse",
        "a|b           219,584      1.3          –",
        "long name           5  1,234.5    0.01235",
    ]


def test_markdown_escapes_bars() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| system | parameters | seconds | train mse |",
        "| --- | ---: | ---: | ---: |",
        r"| a\|b | 219,584 | 1.3 | – |",
        "| long name | 5 | 1,234.5 | 0.01235 |",
    ]


def test_no_rows_are_no_table() -> None:
    assert plain_table([]) == []
    assert markdown_table([]) == ""
