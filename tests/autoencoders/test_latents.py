import torch

from anomaly_ae.autoencoders.latents import draw_latents, interpolate_latents


def test_draws_have_the_mean_and_covariance_of_the_latents(generator: torch.Generator) -> None:
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, -1.0, 0.1]])
    latents = torch.randn(500, 3, generator=generator) @ mixing.T + torch.tensor([3.0, -1.0, 0.0])
    drawn = draw_latents(latents, 200_000)
    torch.testing.assert_close(drawn.mean(dim=0), latents.mean(dim=0), rtol=0, atol=0.02)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(latents.T), rtol=0.03, atol=0.03)


def test_draws_follow_the_seed_and_one_latent_is_all_there_is_to_draw() -> None:
    latents = torch.rand(9, 4)
    assert torch.equal(draw_latents(latents, 3, seed=1), draw_latents(latents, 3, seed=1))
    assert not torch.equal(draw_latents(latents, 3, seed=1), draw_latents(latents, 3, seed=2))
    torch.testing.assert_close(draw_latents(latents[:1], 2), latents[:1].expand(2, -1))


def test_interpolation_goes_in_equal_steps_from_one_to_the_other() -> None:
    between = interpolate_latents(torch.tensor([0.0, 4.0]), torch.tensor([4.0, 0.0]), 5)
    assert between.tolist() == [[0, 4], [1, 3], [2, 2], [3, 1], [4, 0]]
