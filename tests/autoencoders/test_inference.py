import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from anomaly_ae.autoencoders import Outputs, build_autoencoder, inference
from anomaly_ae.autoencoders.inference import (
    batch_size,
    draw_latents,
    exact_float32,
    forward_batches,
    interpolate_latents,
    map_images,
    map_jointly,
    padded_count,
    part_counts,
    perceive_all,
    pick_device,
)
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.errors import UsageError
from anomaly_ae.images.preprocessing import resize
from anomaly_ae.runtime.torch_state import left_as_found
from anomaly_ae.scorers import build_scorer


def test_large_images_are_mapped_whole(generator: torch.Generator) -> None:
    network = build_autoencoder("conv", (1, 700, 700), RunConfig(latent=4))
    images = torch.randint(0, 256, (9, 1, 700, 700), dtype=torch.uint8, generator=generator)
    assert map_images(network, images, lambda _, outputs: outputs.latent).shape == (9, 4)


def test_few_images_are_seen_in_a_batch_that_is_not_much_larger() -> None:
    assert [padded_count(count, 28, 28) for count in (1, 2, 4, 5, 16, 17, 64, 65, 256)] == [
        *(1, 4, 4, 16, 16, 64, 64, 256, 256)
    ]
    assert [padded_count(count, 128, 171) for count in (1, 64, 65, 95)] == [1, 64, 95, 95]
    assert padded_count(1, 5000, 5000) == 1


@pytest.mark.parametrize("size", [(28, 28), (256, 341), (256, 160), (700, 700), (5000, 5000)])
def test_less_than_twice_as_many_images_are_seen_as_there_are(size: tuple[int, int]) -> None:
    for count in range(1, 2 * batch_size(*size) + 1):
        counts = part_counts(count, *size)
        assert sum(counts) == count
        assert sum(padded_count(part, *size) for part in counts) < 2 * count
    assert part_counts(0, *size) == [0]
    assert part_counts(54, 256, 341) == [24, 24, 4, 1, 1]


def test_several_tensors_are_made_in_one_pass(generator: torch.Generator) -> None:
    network = build_autoencoder("conv", (1, 12, 12), RunConfig(latent=4))
    images = torch.rand(270, 1, 12, 12, generator=generator)
    latents, rebuilt = map_jointly(network, images, lambda _, outputs: [outputs.latent, outputs.reconstruction])
    assert torch.equal(latents, map_images(network, images, lambda _, outputs: outputs.latent))
    assert torch.equal(rebuilt, map_images(network, images, lambda _, outputs: outputs.reconstruction))
    none, nothing = map_jointly(network, images[:0], lambda _, outputs: [outputs.latent, outputs.reconstruction])
    assert (none.shape, nothing.shape) == ((0, 4), (0, 1, 12, 12))


@pytest.mark.parametrize(
    ("scorer", "tile"),
    [
        ("aligned-knn", None),
        ("relative+latent-knn", None),
        ("relative+latent-knn", (12, 12)),
        ("contrast", None),
        ("patch-knn+feature-knn", None),
        ("pixel-knn+pca", None),
    ],
)
def test_how_many_images_come_together_changes_no_score_by_more_than_a_hundred_thousandth(
    scorer: str, tile: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor, in whole batches, by a single bit."""
    monkeypatch.setattr(inference, "BATCH_IMAGES", 64)
    torch.manual_seed(0)
    images = resize(load_dataset("digits").files["train"].images[:110], (20, 20))
    config = RunConfig(latent=4, tile=tile)
    network = build_autoencoder("conv", (1, 20, 20), config)
    fitted = fit_scorer(build_scorer(scorer), network, images[50:95], images[95:], config)  # which remembers some
    images = images[:70]
    whole = map_images(network, images, fitted.score)
    slack = 1e-5 * float(whole.std())  # of combinations, which are logarithms and may be about zero
    for count in (1, 3, 17, 64, 65):
        few = map_images(network, images[:count], fitted.score)
        torch.testing.assert_close(few, whole[:count], rtol=1e-5, atol=slack)
        assert torch.equal(few, map_images(network, images[:count], fitted.score))
        assert torch.equal(few[: count // 64 * 64], whole[: count // 64 * 64])


def test_batches_that_are_too_few_for_all_threads_have_them_one_after_another(generator: torch.Generator) -> None:
    network = build_autoencoder("conv", (1, 12, 12), RunConfig(latent=4))
    threads = list[int]()

    def read(_: Tensor, outputs: Outputs) -> Tensor:
        threads.append(torch.get_num_threads())
        return outputs.latent

    images = torch.rand(3 * 256, 1, 12, 12, generator=generator)
    with left_as_found():
        torch.set_num_threads(2)
        map_images(network, images, read)
        map_images(network, images[:256], read)
    assert threads == [1, 1, 2, 2]


def test_a_network_that_goes_by_images_perceives_these_themselves() -> None:
    images = torch.zeros(3, 1, 12, 12, dtype=torch.uint8)
    assert perceive_all(build_autoencoder("conv", (1, 12, 12)), images) is images


def test_batches_hold_the_images_as_floats(generator: torch.Generator) -> None:
    network = build_autoencoder("conv", (1, 12, 12), RunConfig(latent=4))
    images = torch.randint(0, 256, (300, 1, 12, 12), dtype=torch.uint8, generator=generator)
    batches = list(forward_batches(network, images))
    assert torch.equal(torch.cat([floats for floats, _ in batches]), images.float() / 255)
    assert len(batches[-1][1].latent) == len(batches[-1][1].features[0]) == 300 - 256


def test_large_images_come_in_small_batches() -> None:
    assert batch_size(28, 28) == 256
    assert batch_size(1024, 1024) == 2
    assert batch_size(5000, 5000) == 1


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no device 'cuda'"):
            pick_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_outputs(generator: torch.Generator) -> None:
    network = build_autoencoder("conv", (1, 28, 28), RunConfig(latent=12))
    images = torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8, generator=generator)
    ((_, here),) = forward_batches(network, images)
    ((_, there),) = forward_batches(network.cuda(), images)
    torch.testing.assert_close(there.reconstruction.cpu(), here.reconstruction, rtol=1e-4, atol=1e-5)


def settings() -> list[object]:
    """torch's settings for exact numbers, by their newer names."""
    flags = torch.backends
    places = flags.cuda.matmul, flags.cudnn.conv, flags.mkldnn.matmul
    return [*(place.fp32_precision for place in places), flags.cudnn.benchmark, flags.cudnn.deterministic]


@pytest.fixture
def fast() -> Iterator[list[object]]:
    """A program that wants speed for its own networks, and sets so, by the newer names."""
    usual = settings()
    torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision = "tf32", "tf32"
    torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cudnn.benchmark = "bf16", True
    yield settings()
    matmul, conv, onednn, torch.backends.cudnn.benchmark, _ = usual
    torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision = matmul, conv
    torch.backends.mkldnn.matmul.fp32_precision = onednn


def test_within_a_pass_numbers_are_exact_and_afterwards_all_is_as_it_was(fast: list[object]) -> None:
    with exact_float32("cpu"):
        assert settings() == ["ieee", "ieee", "ieee", False, True]
    assert settings() == fast
    torch.set_float32_matmul_precision("medium")  # by the older name
    with exact_float32("cpu"):
        assert settings() == ["ieee", "ieee", "ieee", False, True]
    assert torch.get_float32_matmul_precision() == "medium"


def test_two_passes_that_are_interleaved_leave_no_trace(fast: list[object], generator: torch.Generator) -> None:
    network = build_autoencoder("conv", (1, 12, 12), RunConfig(latent=4))
    images = torch.randint(0, 256, (300, 1, 12, 12), dtype=torch.uint8, generator=generator)
    first, second = forward_batches(network, images), forward_batches(network, images)
    next(first), next(second)
    assert settings() == fast  # between batches the settings are the caller's
    assert len([*first]) == 1
    assert settings() == fast
    second.close()
    assert settings() == fast


def test_passes_in_two_threads_are_exact_to_the_end_of_each(fast: list[object]) -> None:
    begun, ended = threading.Event(), threading.Event()

    def other() -> None:
        with exact_float32("cpu"):
            begun.set()
            ended.wait(60)

    with exact_float32("cpu"):
        thread = threading.Thread(target=other)
        thread.start()
        assert begun.wait(60)
    assert settings()[0] == "ieee"  # the other pass goes on
    ended.set()
    thread.join()
    assert settings() == fast


def test_a_pass_that_fails_leaves_no_trace(fast: list[object]) -> None:
    with pytest.raises(ZeroDivisionError), exact_float32("cpu"):
        raise ZeroDivisionError
    assert settings() == fast


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
