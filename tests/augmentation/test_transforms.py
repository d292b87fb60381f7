import pytest
import torch

from anomaly_ae.augmentation.transforms import AUGMENTATIONS, build_augmentation, light, varied_copies
from anomaly_ae.errors import UnknownName


def images(height: int = 6, width: int = 6) -> torch.Tensor:
    return torch.rand(64, 3, height, width)


def test_nothing_asked_changes_nothing() -> None:
    given = images()
    assert build_augmentation(None)(given) is given


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(6, 6), (5, 8)], ids=str)
def test_shape_and_range_stay_and_images_vary(name: str, size: tuple[int, int]) -> None:
    given = images(*size)
    varied = build_augmentation(name)(given)
    assert varied.shape == given.shape
    assert 0 <= float(varied.min()) <= float(varied.max()) <= 1
    assert torch.equal(varied, given) == (name == "as-is")


def test_flips_and_turns_move_pixels_and_keep_them() -> None:
    given = images()
    for name, ways in (("mirror", 2), ("flips", 4), ("turns", 8)):
        varied = build_augmentation(name)(given)
        assert torch.equal(varied.flatten(2).sort(dim=2).values, given.flatten(2).sort(dim=2).values)
        same = torch.full((200, 1, 6, 6), 0.5)
        same[:, :, 0, 1] = 1
        assert len(build_augmentation(name)(same).unique(dim=0)) == ways


def test_light_keeps_the_order_of_pixels() -> None:
    given = images() * 0.2 + 0.4
    varied = build_augmentation("light")(given)
    assert torch.equal(varied.flatten(1).argsort(dim=1), given.flatten(1).argsort(dim=1))
    assert float((varied.mean(dim=(1, 2, 3)) / given.mean(dim=(1, 2, 3)) - 1).abs().max()) <= 0.2 + 1e-5


def test_several_are_joined_and_unknown_ones_refused() -> None:
    assert build_augmentation("flips+light")(images()).shape == (64, 3, 6, 6)
    with pytest.raises(UnknownName, match="did you mean 'flips'"):
        build_augmentation("flip+light")


def test_copies_are_varied_by_the_seed_and_the_first_are_the_images() -> None:
    given, mirror = (255 * images()).to(torch.uint8)[:3], build_augmentation("mirror")
    state = torch.get_rng_state()
    varied = varied_copies(given, mirror, 4, seed=0)
    assert torch.equal(varied, varied_copies(given, mirror, 4, seed=0))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(varied[:3], given)
    mirrored = [torch.equal(copy, given[i % 3].flip(2)) for i, copy in enumerate(varied)]
    assert 0 < sum(mirrored) < 9
    assert all(flipped or torch.equal(varied[i], given[i % 3]) for i, flipped in enumerate(mirrored))
    assert varied_copies(given, mirror, 1, seed=0) is given


def test_varied_float_images_stay_in_their_range() -> None:
    given = images()
    varied = varied_copies(given, light, 2, seed=0)
    assert varied.dtype == torch.float32
    assert not torch.equal(varied[64:], given)
    assert 0 <= float(varied.min()) <= float(varied.max()) <= 1
