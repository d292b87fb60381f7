import pytest

from anomaly_ae.escaping import shown
from anomaly_ae.scoring.row_paths import bytes_beside, path_of


@pytest.mark.parametrize("path", [b"a.png", "ä/\u202e.png".encode(), b"\xff \n.png", b"\\xff.png", "\ufffd".encode()])
def test_a_path_is_itself_again_whatever_its_bytes(path: bytes) -> None:
    beside = bytes_beside(path)
    assert (beside is None) == (path != b"\xff \n.png")  # the only one that is no UTF-8
    assert path_of(shown(path), beside) == path
    assert path_of(shown(path), beside and beside.hex()) == path


def test_what_is_no_hexadecimal_is_an_error() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        path_of("a.png", "zz")
