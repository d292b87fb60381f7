from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anomaly_ae.autoencoders import AUTOENCODERS, Autoencoder, build_autoencoder, image_size
from anomaly_ae.autoencoders.network_files import load_part, save_parts
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import ModelError, ModelNotFound
from tests.conftest import Trained


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_each_part_is_whole_in_itself(name: str, tmp_path: Path) -> None:
    shape, options = (3, *image_size(name, None, (28, 28))), RunConfig(batch_norm=True)
    network = build_autoencoder(name, shape, options).eval()
    save_parts(tmp_path, network, name, shape, options)
    encoder, decoder, whole = (
        load_part(tmp_path / f"{part}.safetensors") for part in ("encoder", "decoder", "autoencoder")
    )
    images = torch.rand(4, *shape)
    assert isinstance(whole, Autoencoder)
    assert torch.equal(whole(images).reconstruction, network(images).reconstruction)
    latents = encoder(images)
    assert torch.equal(latents, network(images).latent)
    assert torch.equal(decoder(latents), network.decode(latents))


def test_every_training_leaves_its_parts(trained: Trained) -> None:
    detector, folder = trained.detector(), trained.run.path / "network"
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(load_part(folder / "encoder.safetensors")(images), detector.encode(images))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no file"):
        load_part(tmp_path / "encoder.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    save_parts(tmp_path, build_autoencoder("vanilla", (1, 8, 8)), "vanilla", (1, 8, 8), RunConfig())
    whole = (tmp_path / "decoder.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "other", "cut"):
        with pytest.raises(ModelError, match="damaged, or no part"):
            load_part(tmp_path / f"{name}.safetensors")
