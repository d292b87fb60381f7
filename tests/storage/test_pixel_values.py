import pytest
import torch

from anomaly_ae.storage.pixel_values import as_bytes, as_float


def test_bytes_become_floats_from_0_to_1_and_the_same_bytes_again() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert as_float(values)[[0, 51, 255]].tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert torch.equal(as_bytes(as_float(values)), values)
    assert as_float(torch.tensor([0.25])).tolist() == [0.25]
