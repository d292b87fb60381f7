import numpy as np
import pytest
import torch

from anomaly_ae.errors import DataError
from anomaly_ae.images.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(channels=1, height=8, width=9)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 1, 8, 9, dtype=torch.uint8), torch.rand(0, 1, 8, 9), torch.ones(1, 1, 8, 9)]
)
def test_fitting_images_pass(images: torch.Tensor) -> None:
    assert PREPROCESSING.prepare(images) is images


def test_other_sizes_are_resized_and_uint8_stays_uint8() -> None:
    large = torch.full((3, 1, 16, 18), 200, dtype=torch.uint8)
    resized = PREPROCESSING.prepare(large)
    assert (resized.shape, resized.dtype, resized.unique().tolist()) == ((3, 1, 8, 9), torch.uint8, [200])
    checkers = (torch.arange(16)[:, None] + torch.arange(18)) % 2
    smooth = PREPROCESSING.prepare(checkers[None, None].float())
    assert 0.3 < float(smooth.min()) <= float(smooth.max()) < 0.7  # smoothed, not picked
    assert PREPROCESSING.prepare(large[:0]).shape == (0, 1, 8, 9)


def test_numpy_arrays_are_taken_too() -> None:
    for kind in ("uint8", "float32", "float64"):
        assert isinstance(PREPROCESSING.prepare(np.zeros((2, 1, 8, 9), kind)), torch.Tensor)
    flipped = np.arange(72, dtype=np.uint8).reshape(1, 1, 8, 9)[..., ::-1]
    flipped.flags.writeable = False
    assert PREPROCESSING.prepare(flipped)[0, 0, 0].tolist() == [8, 7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((2, 1, 8, 9), bool), "ndarray of bool"),
        (np.array(["a"]), "ndarray of <U1"),
        ([[0.0]], "these are: list"),
        (None, "NoneType"),
        (torch.zeros(2, 3, 8, 9), "N×1×8×9"),
        (torch.zeros(2, 1, 0, 9), "N×1×8×9"),
        (torch.zeros(8, 9), "given 8×9"),
        (torch.zeros(2, 1, 8, 9, dtype=torch.int64), "torch.int64"),
        (torch.full((2, 1, 8, 9), 255.0), "divide by 255"),
        (torch.full((2, 1, 8, 9), float("nan")), "clean"),
    ],
)
def test_others_are_refused_with_the_reason(images: torch.Tensor, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        PREPROCESSING.prepare(images)
