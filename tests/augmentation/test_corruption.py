import torch

from anomaly_ae.augmentation.corruption import Corruption


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
