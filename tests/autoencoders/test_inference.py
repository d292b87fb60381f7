import pytest
import torch

from anomaly_ae.autoencoders import Options, build_autoencoder
from anomaly_ae.autoencoders.inference import as_float, batch_size, forward_batches, map_images, pick_device
from anomaly_ae.errors import UsageError


def test_bytes_become_floats_from_0_to_1() -> None:
    assert as_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert as_float(torch.tensor([0.25])).tolist() == [0.25]


def test_large_images_are_mapped_whole(generator: torch.Generator) -> None:
    network = build_autoencoder("conv", (1, 700, 700), Options(4))
    images = torch.randint(0, 256, (9, 1, 700, 700), dtype=torch.uint8, generator=generator)
    assert map_images(network, images, lambda _, outputs: outputs.latent, (4,)).shape == (9, 4)


def test_an_image_s_outputs_do_not_depend_on_how_many_follow_it(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    network = build_autoencoder("conv", (1, 12, 12), Options(4))
    images = torch.randint(0, 256, (300, 1, 12, 12), dtype=torch.uint8, generator=generator)
    whole = torch.cat([outputs.reconstruction for _, outputs in forward_batches(network, images)])
    for count in (1, 7, 256, 257):
        part = torch.cat([outputs.reconstruction for _, outputs in forward_batches(network, images[:count])])
        assert torch.equal(part, whole[:count])


def test_batches_hold_the_images_as_floats(generator: torch.Generator) -> None:
    network = build_autoencoder("conv", (1, 12, 12), Options(4))
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
    network = build_autoencoder("conv", (1, 28, 28), Options(12))
    images = torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8, generator=generator)
    ((_, here),) = forward_batches(network, images)
    ((_, there),) = forward_batches(network.cuda(), images)
    torch.testing.assert_close(there.reconstruction.cpu(), here.reconstruction, rtol=1e-4, atol=1e-5)
