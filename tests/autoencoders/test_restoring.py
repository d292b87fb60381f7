from pathlib import Path

import pytest
import torch

from anomaly_ae.augmentation.corruption import Gray, turned_copies
from anomaly_ae.autoencoders import build_autoencoder
from anomaly_ae.autoencoders.network_files import load_part, save_parts
from anomaly_ae.autoencoders.restoring import RESTORATIONS, Restoring
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.objectives import build_objective


def restoring(name: str, shape: tuple[int, int, int], **told: str) -> Restoring:
    torch.manual_seed(0)
    network = build_autoencoder(name, shape, RunConfig(objective="ssim+0.5*restore", **told))
    assert isinstance(network, Restoring)
    return network.eval()


@pytest.mark.parametrize("name", ["conv", "skip-conv", "repair"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 20, 32)], ids=str)
def test_each_gray_turned_copy_is_given_back_upright_first(name: str, shape: tuple[int, int, int]) -> None:
    network, images = restoring(name, shape), torch.rand(5, *shape)
    outputs = network(images)
    made = [network.inner(copy).reconstruction for copy in turned_copies(Gray()(images))]
    assert torch.equal(outputs.heads[RESTORATIONS], torch.cat(made, dim=1))
    assert torch.equal(outputs.reconstruction, made[0])
    assert torch.equal(outputs.latent, network.encode(images)[0])
    colourless = images.mean(dim=1, keepdim=True).expand_as(images)
    torch.testing.assert_close(network(colourless).reconstruction, outputs.reconstruction)


def test_in_training_each_image_is_turned_by_chance_and_the_loss_is_of_that_copy() -> None:
    network = restoring("conv", (1, 8, 8), batch_norm="false").train()
    images, objective = torch.rand(200, 1, 8, 8), build_objective("restore")
    with torch.no_grad():
        outputs = network(images)
        copies = torch.stack([network.inner(copy).reconstruction for copy in turned_copies(images)])
        seen = network.eval()(images)
    nearest = (copies - outputs.reconstruction).abs().amax(dim=(2, 3, 4)).min(dim=0)
    assert float(nearest.values.max()) < 1e-5
    assert nearest.indices.bincount(minlength=4).min() > 25
    assert objective(images, outputs).item() == pytest.approx((outputs.reconstruction - images).abs().mean().item())
    assert objective(images, seen).item() == pytest.approx((copies - images).abs().mean().item(), rel=1e-4)


def test_tiles_and_folds_of_it_have_what_is_made_of_their_copies() -> None:
    network = build_autoencoder("conv", (1, 30, 40), RunConfig(objective="restore", tile="16", folds=2)).eval()
    for member in network(torch.rand(3, 1, 30, 40)).members:
        assert member.heads[RESTORATIONS].shape == (3, 4, 30, 40)


def test_its_parts_are_whole_in_themselves(tmp_path: Path) -> None:
    network, images = restoring("conv", (3, 16, 16)), torch.rand(4, 3, 16, 16)
    save_parts(tmp_path, network, "conv", (3, 16, 16), RunConfig(objective="restore"))
    encoder, decoder, whole = (
        load_part(tmp_path / f"{part}.safetensors") for part in ("encoder", "decoder", "autoencoder")
    )
    assert torch.equal(whole(images).heads[RESTORATIONS], network(images).heads[RESTORATIONS])
    assert torch.equal(decoder(encoder(images)), network(images).reconstruction)
