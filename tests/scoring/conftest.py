"""A folder of digits as files, some of them bad."""

from pathlib import Path

import pytest
from PIL import Image

from anomaly_ae.datasets.builtin import load_dataset


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """20 digits in two folders, and one file that is no image."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for i, image in enumerate(load_dataset("digits").files["train"].images[:20, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "in" / ("sub" if i % 2 else "") / f"{i:02}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"bad")
    return tmp_path / "in"
