import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.objectives import build_objective
from anomaly_ae.objectives.aligned import aligned


def loss(images: Tensor, drawn: Tensor) -> float:
    return aligned(images, Outputs(drawn, images)).item()


def bar(row: int) -> Tensor:
    """An image with a horizontal bar."""
    image = torch.zeros(1, 1, 28, 28)
    image[..., row : row + 3, 6:20] = 1
    return image


def errors(edges: np.ndarray, others: np.ndarray, reach: int) -> np.ndarray:
    """Squared distance of each edge (2, H, W) to that of the others within reach which is closest by the larger of
    its components.
    """
    padded = np.pad(others, ((0, 0), (reach, reach), (reach, reach)))
    found = np.empty(edges.shape[1:])
    for row, column in np.ndindex(found.shape):
        near = padded[:, row : row + 2 * reach + 1, column : column + 2 * reach + 1].reshape(2, -1)
        apart = np.abs(np.rint(63 * edges[:, row, column, None]) - np.rint(63 * near)).max(axis=0)
        found[row, column] = ((edges[:, row, column] - near[:, apart.argmin()]) ** 2).sum()
    return found


@pytest.mark.parametrize(("height", "width", "reach"), [(8, 11, 1), (28, 20, 2)])
def test_as_it_is_written_down(height: int, width: int, reach: int, generator: torch.Generator) -> None:
    image, drawn = torch.rand(2, 1, 1, height, width, generator=generator).double()
    x, y = (
        np.stack([ndimage.sobel(each[0, 0].numpy(), axis=axis, mode="constant") for axis in (0, 1)]) / 4
        for each in (image, drawn)
    )
    there, back = errors(x, y, reach), errors(y, x, reach)
    expected = np.sqrt((there**2 + back**2).mean()) / (2 * (x**2).sum(axis=0).mean() + 0.1)
    assert loss(image, drawn) == pytest.approx(expected, rel=1e-5)


def test_a_stroke_may_be_drawn_a_little_elsewhere_and_no_further() -> None:
    assert loss(bar(10), bar(13)) < 1e-3
    assert loss(bar(10), bar(18)) > 0.2
    assert loss(bar(10), bar(10) * 0.5) > 0.05  # faint, which moving does not mend


def test_a_drawing_learns_to_be_sharp_and_stays_where_it_is() -> None:
    faint = (bar(12) * 0.5).requires_grad_()
    aligned(bar(10), Outputs(faint, faint)).backward()
    assert faint.grad is not None
    assert faint.grad[0, 0, 12:15, 8:18].mean() < 0  # brighter there,
    assert faint.grad[0, 0, 10, 8:18].mean() > faint.grad[0, 0, 12, 8:18].mean()  # rather than where the stroke is


def test_nothing_drawn_of_nothing_has_a_slope() -> None:
    blank = torch.zeros(2, 3, 8, 8, requires_grad=True)
    aligned(torch.zeros(2, 3, 8, 8), Outputs(blank, blank)).backward()
    assert blank.grad is not None
    assert torch.isfinite(blank.grad).all()


def test_large_images_are_compared_as_small_ones(generator: torch.Generator) -> None:
    small = torch.rand(2, 2, 3, 32, 40, generator=generator)
    large = small.repeat_interleave(4, dim=3).repeat_interleave(4, dim=4)
    assert loss(*large) == pytest.approx(loss(*small), rel=1e-5)


def test_it_is_a_part_of_sums(generator: torch.Generator) -> None:
    images, drawn = torch.rand(2, 2, 1, 12, 12, generator=generator)
    outputs = Outputs(drawn, drawn)
    total = build_objective("mse+0.2*aligned")(images, outputs)
    torch.testing.assert_close(total, build_objective("mse")(images, outputs) + 0.2 * aligned(images, outputs))
