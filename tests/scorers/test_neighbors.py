import pytest
import torch

from anomaly_ae.scorers.neighbors import distances, nearest_rows


@pytest.mark.parametrize(("count", "known"), [(1, 1), (3, 3), (5, 37), (96, 101), (96, 1_000), (12, 5_003)])
def test_the_nearest_rows_are_the_first_of_all_sorted(count: int, known: int, generator: torch.Generator) -> None:
    """Also where they do not divide into groups, and where there are hardly more than are asked for."""
    rows, others = (torch.randn(size, 8, generator=generator) for size in (70, known))
    expected = distances(rows, others).sort(dim=1).indices[:, :count]
    torch.testing.assert_close(nearest_rows(rows, others, count), expected)


def test_nearest_rows_that_are_all_in_one_group_are_found(generator: torch.Generator) -> None:
    others = 10 + torch.rand(1_000, 4, generator=generator)
    alike = torch.arange(0, 1_000, 100)  # in tens, which are groups
    others[alike] = torch.arange(10.0).unsqueeze(1) / 10
    torch.testing.assert_close(nearest_rows(torch.zeros(1, 4), others, 10), alike.unsqueeze(0))
