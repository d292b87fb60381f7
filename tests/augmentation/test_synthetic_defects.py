import pytest
import torch

from anomaly_ae.augmentation.synthetic_defects import VISIBLE, plant


@pytest.mark.parametrize("shape", [(64, 1, 64, 64), (16, 3, 97, 130), (4, 3, 8, 9)], ids=str)
def test_defects_change_images_where_they_say(shape: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    images = torch.rand(shape) * 0.2 + 0.4
    spoiled, planted = plant(images, 1.0)
    assert spoiled.shape == images.shape
    assert planted.shape == (shape[0], 1, *shape[2:])
    assert set(planted.unique().tolist()) <= {0.0, 1.0}
    assert 0 <= float(spoiled.min()) <= float(spoiled.max()) <= 1
    change = (spoiled - images).abs().mean(dim=1, keepdim=True)
    assert float(change[planted == 1].mean()) > 2 * VISIBLE
    assert float(change[planted == 0].mean()) < VISIBLE / 3


def test_defects_are_small_and_most_images_have_one() -> None:
    torch.manual_seed(0)
    _, planted = plant(torch.rand(200, 1, 64, 64) * 0.1 + 0.5, 1.0)
    shares = planted.mean(dim=(1, 2, 3))
    assert float((shares > 0).float().mean()) > 0.7
    assert 0.005 < float(shares.mean()) < 0.1


def test_the_share_of_images_is_kept_and_nothing_is_planted_for_none() -> None:
    torch.manual_seed(0)
    images = torch.full((400, 1, 32, 32), 0.5)
    spoiled, _ = plant(images, 0.5)
    changed = (spoiled != images).flatten(1).any(dim=1).float().mean()
    assert 0.4 < float(changed) < 0.55
    untouched, nowhere = plant(images, 0.0)
    assert torch.equal(untouched, images)
    assert not nowhere.any()


def test_the_seed_decides() -> None:
    images = torch.rand(8, 3, 40, 30)
    torch.manual_seed(3)
    first = plant(images, 0.7)
    torch.manual_seed(3)
    again, other = plant(images, 0.7), plant(images, 0.7)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
