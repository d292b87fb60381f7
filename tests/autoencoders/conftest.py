import pytest
import torch


@pytest.fixture(autouse=True)
def _the_same_draws_whatever_ran_before() -> None:
    torch.manual_seed(0)
