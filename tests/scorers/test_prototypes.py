import pytest
import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers import ImageBatches
from anomaly_ae.scorers.prototypes import PROTOTYPES, AlignedPrototypes, means_of
from tests.scorers.conftest import batches

Batch = tuple[Tensor, Outputs]


def bars(latents: Tensor) -> Tensor:
    """What a decoder makes of latents (N, 2): a horizontal bar, lower with the first and longer with the second, and
    with `latents[:, 1] > 9` another bar, as a decoder has it that draws what it never saw.
    """
    images = torch.zeros(len(latents), 1, 28, 28)
    for image, (row, length) in zip(images, latents.round().int().tolist(), strict=True):
        image[0, row : row + 3, 6 : 6 + min(length, 9)] = 1
        if length > 9:
            image[0, row + 10 : row + 13, 6:15] = 1
    return images


def seen(latents: Tensor) -> Batch:
    """Images that the network reconstructs to the last pixel."""
    return bars(latents), Outputs(bars(latents), latents)


def fitted(latents: Tensor) -> AlignedPrototypes:
    scorer, batch = AlignedPrototypes(), seen(latents)
    known = ImageBatches(len(latents), lambda: [batch], bars)
    scorer.fit(known, known)
    return scorer


NORMAL = torch.cartesian_prod(torch.arange(4.0, 10), torch.arange(5.0, 9))


def test_what_is_reconstructed_perfectly_is_far_if_no_prototype_is_like_it() -> None:
    scorer, novel, normal = fitted(NORMAL), torch.tensor([[6.0, 12]]), NORMAL[[9]] + 0.2
    assert scorer.score(*seen(novel)).item() > 20 * scorer.score(*seen(normal)).item()
    heat = scorer.anomaly_map(*seen(novel))[0]
    assert heat[15:20].sum() > 10 * heat[:13].sum()  # the second bar


def test_of_two_images_as_near_by_edges_that_with_the_usual_latent_is_nearer() -> None:
    scorer, (images, outputs) = fitted(NORMAL), seen(NORMAL[[9]] + 0.2)
    odd = outputs._replace(latent=outputs.latent + 40)
    near, far = (scorer.score(images * 0.8, each).item() for each in (outputs, odd))
    apart = [torch.cdist(each.latent, NORMAL).topk(3, largest=False).values.mean().item() for each in (outputs, odd)]
    assert far / near == pytest.approx((apart[1] / apart[0]) ** 0.5, rel=1e-4)


def test_no_image_is_kept_and_what_is_kept_does_not_grow(generator: torch.Generator) -> None:
    images, latents = torch.rand(600, 1, 12, 12, generator=generator), torch.randn(600, 3, generator=generator)
    drawn = torch.full((1, 1, 12, 12), 0.5)
    known = ImageBatches(
        600, lambda: [(images, Outputs(images, latents))], lambda z: drawn.expand(len(z), -1, -1, -1)
    )
    scorer = AlignedPrototypes()
    scorer.fit(known, known)
    assert scorer.state()["images"].shape == (PROTOTYPES, 1, 12, 12)
    assert scorer.state()["images"].unique().tolist() == [128]  # nothing but what the decoder drew
    assert scorer.state()["features.memory"].shape == (PROTOTYPES, 3)


def test_means_are_those_of_what_is_nearest_to_them(generator: torch.Generator) -> None:
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    latents = (centres.unsqueeze(1) + torch.randn(3, 40, 2, generator=generator)).flatten(0, 1)
    expected = latents.view(3, 40, 2).mean(dim=1)
    found = means_of(latents, 3)
    torch.testing.assert_close(found[torch.cdist(expected, found).argmin(dim=1)], expected)
    assert torch.equal(means_of(latents[:2], 3), latents[:2])
    assert torch.isfinite(means_of(torch.zeros(9, 2), 3)).all()


def test_the_same_images_in_other_batches_are_scored_alike(generator: torch.Generator) -> None:
    latents = torch.randn(400, 3, generator=generator)
    images = torch.rand(400, 3, 40, 33, generator=generator)
    scorer, batch = AlignedPrototypes(), (images, Outputs(images, latents))
    scorer.fit(batches(batch), batches(batch))
    whole = scorer.score(images[:50], Outputs(images[:50], latents[:50]))
    single = [scorer.score(images[[i]], Outputs(images[[i]], latents[[i]])) for i in range(50)]
    torch.testing.assert_close(torch.cat(single), whole, rtol=1e-5, atol=0)
