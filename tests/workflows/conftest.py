from collections.abc import Iterator

import pytest

from tests.decoding import decoded_here


@pytest.fixture(scope="package", autouse=True)
def _decoded_here() -> Iterator[None]:
    with decoded_here():
        yield
