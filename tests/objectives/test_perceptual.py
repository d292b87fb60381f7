import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

import anomaly_ae
from anomaly_ae.autoencoders import Outputs, build_autoencoder
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import ModelError, ModelNotFound, UnknownName, UsageError
from anomaly_ae.objectives import build_objective
from anomaly_ae.objectives.perceptual import encoder_features, torchvision_features
from anomaly_ae.runs.store import RunStore
from tests.conftest import Trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file as torchvision's are, of an untrained network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(get_model("resnet18", weights=None).state_dict(), path)
    return path


def test_the_loss_is_zero_for_the_image_itself_and_grows_with_the_difference() -> None:
    features = encoder_features(build_autoencoder("conv", (1, 28, 28)))
    objective, images = build_objective("perceptual", features), torch.rand(4, 1, 28, 28)
    near, far = (images + s * torch.randn_like(images) for s in (0.02, 0.4))
    losses = [objective(images, Outputs(other, torch.zeros(4, 1))).item() for other in (images, near, far)]
    assert losses[0] == pytest.approx(0, abs=1e-7)
    assert losses[0] < losses[1] < losses[2]


def test_the_gradient_reaches_the_reconstruction_and_not_the_features_network() -> None:
    network = build_autoencoder("conv", (1, 28, 28))
    rebuilt = torch.rand(2, 1, 28, 28, requires_grad=True)
    build_objective("perceptual", encoder_features(network))(
        torch.rand(2, 1, 28, 28), Outputs(rebuilt, torch.zeros(2, 1))
    ).backward()
    assert rebuilt.grad is not None
    assert float(rebuilt.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_torchvision_network_gives_maps_of_gray_and_colour(weights: Path, channels: int) -> None:
    maps = torchvision_features("resnet18", weights, CPU)(torch.rand(2, channels, 28, 28))
    assert [tuple(m.shape) for m in maps] == [(2, 64, 14, 14), (2, 64, 7, 7), (2, 128, 4, 4)]


def test_wrong_weights_are_one_clear_error(weights: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    (tmp_path / "text.pth").write_text("hello")
    for path in (tmp_path / "a.safetensors", tmp_path / "text.pth"):
        with pytest.raises(ModelError, match="does not hold the weights of resnet18"):
            torchvision_features("resnet18", path, CPU)
    with pytest.raises(ModelNotFound, match="no weights file"):
        torchvision_features("resnet18", tmp_path / "absent.pth", CPU)
    with pytest.raises(UnknownName, match="did you mean 'resnet18'"):
        torchvision_features("resnet-18", weights, CPU)


def test_it_trains_on_features_of_an_encoder_trained_here_and_of_torchvision(
    trained: Trained, weights: Path, home: RunStore
) -> None:
    for whose in (str(trained.run.path / "detector"), f"resnet18:{weights}"):
        config = RunConfig(normal="0", objective="mse+0.1*perceptual", perceptual=whose, epochs=2)
        assert anomaly_ae.train(config, home=home, tracking=False).epochs == 2


def test_features_of_images_of_another_size_are_refused(trained: Trained, home: RunStore) -> None:
    config = RunConfig(
        normal="0", objective="perceptual", perceptual=str(trained.run.path / "detector"), image_size="16"
    )
    with pytest.raises(ModelError, match=r"takes images 1×8×8, and these are 1×16×16"):
        anomaly_ae.train(config, home=home, tracking=False)


def test_what_cannot_be_compared_is_said_before_anything_is_written(weights: Path, home: RunStore) -> None:
    dense = anomaly_ae.train(
        RunConfig(normal="0", autoencoder="vanilla", epochs=1, image_size="8"), home=home, tracking=False
    )
    alexnet = weights.with_name("alexnet.pth")
    torch.save(get_model("alexnet", weights=None).state_dict(), alexnet)
    runs = len(home.runs())
    for whose, reason in ((dense.run_id, "a dense encoder has none"), (f"alexnet:{alexnet}", "larger image_size")):
        with pytest.raises(UsageError, match=reason):
            anomaly_ae.train(
                RunConfig(normal="0", objective="perceptual", perceptual=whose), home=home, tracking=False
            )
    with pytest.raises(UsageError, match='take autoencoder="vae"'):
        anomaly_ae.train(RunConfig(normal="0", objective="mse+elbo"), home=home, tracking=False)
    assert len(home.runs()) == runs


def test_latest_means_the_run_that_was_the_latest_then(trained: Trained) -> None:
    config = RunConfig(normal="0", objective="mse+0.1*perceptual", perceptual="latest", epochs=1)
    result = anomaly_ae.train(config, home=trained.home, tracking=False)
    run = trained.home.find_run(result.run_id)
    assert run.config.perceptual == str((trained.run.path / "detector").resolve())
    shutil.rmtree(run.path)  # the session's other tests expect the run before to be the latest


@pytest.mark.parametrize("setting", [{"objective": "perceptual"}, {"perceptual": "latest"}])
def test_one_without_the_other_is_refused(setting: dict[str, str], home: RunStore) -> None:
    with pytest.raises(UsageError, match="go together"):
        anomaly_ae.train(RunConfig.build({"normal": "0"}, setting), home=home)
