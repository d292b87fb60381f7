from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.augmentation.corruption import Corrupted, Corruption
from anomaly_ae.autoencoders import AUTOENCODERS, Autoencoder, build_autoencoder
from anomaly_ae.autoencoders.inference import map_images
from anomaly_ae.autoencoders.twins import PARTS, Twins, part_count
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.runtime.torch_state import left_as_found, thread_map

IMAGES = torch.rand(65, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def loss_of(network: Autoencoder, images: Tensor, spoiled: Corrupted) -> Tensor:
    return functional.mse_loss(network(spoiled.images).reconstruction, images)


def network(**settings: object) -> Autoencoder:
    torch.manual_seed(0)
    return build_autoencoder("conv", (1, 12, 12), RunConfig.build({"normal": "0"}, settings)).train()


def gradients(twins: Twins, images: Tensor = IMAGES) -> list[Tensor]:
    twins.backward(loss_of, images, Corrupted(images, None), map)
    return [weights.grad.clone() for weights in twins.weights if weights.grad is not None]


def test_the_gradients_of_parts_come_to_those_of_the_whole_batch() -> None:
    whole, parts = (Twins(network(batch_norm=False), count) for count in (1, 3))
    expected = gradients(whole)
    torch.testing.assert_close(gradients(parts), expected)
    torch.testing.assert_close(expected, _plain(whole.networks[0]))
    parts.forget()
    assert all(weights.grad is None for weights in parts.weights)


def _plain(plain: Autoencoder) -> list[Tensor]:
    plain.zero_grad()
    torch.autograd.backward(loss_of(plain, IMAGES, Corrupted(IMAGES, None)))
    return [weights.grad for weights in plain.parameters() if weights.grad is not None]


def test_each_part_has_batch_statistics_of_its_own_and_joined_they_are_the_mean() -> None:
    twins = Twins(network(), 2)
    together = gradients(twins)
    halves = [network(), network()]
    alone = [_of_half(half, part) for half, part in zip(halves, IMAGES.tensor_split(2), strict=True)]
    for weights, first, second in zip(together, *alone, strict=True):
        torch.testing.assert_close(weights, (33 * first + 32 * second) / 65)
    twins.join()
    for own, twin, *each in zip(*(each.buffers() for each in (*twins.networks, *halves)), strict=True):
        torch.testing.assert_close(own, torch.stack(each).float().mean(dim=0).to(own.dtype))
        assert torch.equal(own, twin)


def _of_half(half: Autoencoder, images: Tensor) -> list[Tensor]:
    return gradients(Twins(half, 1), images)


def test_twins_have_the_same_weights_not_equal_ones() -> None:
    first, second = Twins(network(), 2).networks
    assert all(own is other for own, other in zip(first.parameters(), second.parameters(), strict=True))
    assert not any(own is other for own, other in zip(first.buffers(), second.buffers(), strict=True))


def test_at_a_time_or_one_after_another_the_bits_are_the_same() -> None:
    spoiled = Corruption(defects=0.5)(IMAGES)
    one, other = (Twins(network(), 2) for _ in range(2))
    with left_as_found():
        torch.set_num_threads(2)
        with thread_map(2) as run:
            loss = one.backward(loss_of, IMAGES, spoiled, run)
    assert torch.equal(loss, other.backward(loss_of, IMAGES, spoiled, map))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(one.weights, other.weights, strict=True))


def test_scores_are_the_same_bits_however_many_threads_there_are() -> None:
    images = torch.rand(700, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    read = partial(map_images, network(), images, lambda _, outputs: outputs.reconstruction)
    with left_as_found():
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            assert torch.equal(read(), read())
            assert torch.get_num_threads() == threads
        several = read()
        torch.set_num_threads(1)
        assert torch.equal(read(), several)


WRAPPED = [("vae", {"tile": "16"}), ("conv", {"objective": "restore"}), ("conv", {"tile": "16", "dropout": "0.1"})]


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in AUTOENCODERS), *WRAPPED], ids=str)
def test_only_who_draws_by_chance_moves_the_random_numbers(name: str, settings: dict[str, object]) -> None:
    """Else two parts at a time would draw theirs in any order, and no training would be like another."""
    built = build_autoencoder(name, (1, 28, 28), RunConfig.build({"normal": "0"}, settings))
    images, before = torch.zeros(4, 1, 28, 28), torch.get_rng_state()
    built.train()(images)
    assert torch.equal(torch.get_rng_state(), before) != built.draws


def test_only_batches_that_are_worth_it_are_divided() -> None:
    plain, dropping, drawing = network(), network(dropout=0.1), build_autoencoder("vae", (1, 12, 12))
    assert part_count(plain, 128, 128 * 784) == PARTS
    assert part_count(plain, 128, 128 * 64) == part_count(plain, 16, 16 * 128 * 128) == 1
    assert part_count(dropping, 128, 128 * 784) == part_count(drawing, 128, 128 * 784) == 1
