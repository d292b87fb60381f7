import torch

from anomaly_ae.augmentation.corruption import Corruption, Gray, turned_copies


def test_nothing_asked_changes_nothing_and_draws_nothing() -> None:
    images = torch.rand(2, 1, 28, 28)
    before = torch.get_rng_state()
    assert Corruption(noise=0, masked=0)(images).images is images
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_has_its_strength_and_stays_in_range() -> None:
    gray = torch.full((20, 1, 28, 28), 0.5)
    noisy = Corruption(noise=0.1, masked=0)(gray).images
    assert abs(float((noisy - gray).std()) - 0.1) < 0.005
    loud = Corruption(noise=1.0, masked=0)(gray).images
    assert 0 <= float(loud.min()) <= float(loud.max()) <= 1


def test_masks_are_square_patches_over_all_channels_and_hide_their_share() -> None:
    white = torch.ones(400, 3, 28, 31)
    masked = Corruption(noise=0, masked=0.3)(white).images
    assert abs(float((masked == 0).float().mean()) - 0.3) < 0.02
    assert torch.equal(masked[:, 0], masked[:, 1])
    first = masked[:, 0, :4, :4].flatten(1)  # a seventh of 28 pixels
    assert bool((first.amin(dim=1) == first.amax(dim=1)).all())


def test_images_smaller_than_the_patches_are_masked_too() -> None:
    assert Corruption(masked=0.5)(torch.ones(50, 1, 3, 5)).images.unique().tolist() == [0, 1]


def test_gray_images_have_as_many_channels_which_are_alike() -> None:
    images = torch.rand(2, 3, 4, 5)
    gray = Gray()(images)
    assert gray.shape == images.shape
    torch.testing.assert_close(gray[:, 1], (images[:, 0] + images[:, 1] + images[:, 2]) / 3)


def test_squares_are_turned_by_quarters_and_others_by_half() -> None:
    images = torch.rand(2, 1, 4, 4)
    upright, quarter, half, three = turned_copies(images)
    assert torch.equal(upright, images)
    assert torch.equal(quarter, images.rot90(1, (2, 3)))
    assert torch.equal(half, images.flip(2, 3))
    assert torch.equal(three.rot90(1, (2, 3)), images)
    wide = torch.rand(2, 1, 4, 5)
    assert torch.equal(turned_copies(wide), torch.stack([wide, wide.flip(2, 3)]))
