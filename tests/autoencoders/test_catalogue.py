"""The shapes and parameter counts that the source projects print, and every architecture trained for a moment."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import anomaly_ae
from anomaly_ae.autoencoders import (
    AUTOENCODERS,
    Autoencoder,
    AutoencoderEntry,
    build_autoencoder,
    image_size,
    parameter_count,
)
from anomaly_ae.autoencoders.summary import list_layers, summarise
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import UnknownName, UsageError
from anomaly_ae.runs.store import RunStore
from anomaly_ae.workflows.find_model import find_model

GRAY = (1, 28, 28)
ANCESTORS = [name for name in AUTOENCODERS if name not in ("conv", "skip-conv", "vae", "repair", "feature-conv")]


def maps(name: str) -> list[tuple[int, ...]]:
    """The shapes of all layers' outputs without repetitions, as a project prints them."""
    shapes = [layer.output_shape for layer in list_layers(name, GRAY)]
    return [shape for i, shape in enumerate(shapes) if i == 0 or shape != shapes[i - 1]]


def test_the_parameters_of_the_dense_bottleneck_are_those_printed() -> None:
    network = build_autoencoder("dense-bottleneck-64", GRAY)
    assert (parameter_count(network.encoder), parameter_count(network.decoder)) == (219_584, 259_521)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("shallow-cnn", [(32, 28, 28), (64, 28, 28), (64, 14, 14), (64, 14, 14), (1, 28, 28)]),
        ("deep-cnn", [(32, 28, 28), (64, 14, 14), (128, 7, 7), (1, 28, 28)]),
        ("dense-bottleneck-64", [(32, 14, 14), (64, 7, 7), (3136,), (64,), (3136,), (64, 7, 7), (1, 28, 28)]),
        ("strided-32", [(16, 14, 14), (32, 7, 7), (32,), (32, 7, 7), (16, 14, 14), (1, 28, 28)]),
        ("vanilla", [(784,), (64,), (784,), (1, 28, 28)]),
        ("multilayer", [(784,), (256,), (128,), (64,), (128,), (256,), (784,), (1, 28, 28)]),
        ("conv-pool", [(64, 14, 14), (128, 7, 7), (64, 3, 3), (64, 7, 7), (128, 14, 14), (256, 28, 28), (1, 28, 28)]),
        (
            "wide-kernel",
            [(8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 1, 1), (32, 4, 4), (16, 8, 8), (8, 16, 16), (1, 28, 28)],
        ),
    ],
)
def test_the_printed_shapes_come_in_this_order(name: str, printed: list[tuple[int, ...]]) -> None:
    seen = iter(maps(name))
    for shape in printed:
        assert shape in seen, f"{shape} is missing or out of order in {maps(name)}"


@pytest.mark.parametrize("name", AUTOENCODERS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options", [RunConfig(), RunConfig(batch_norm=True, dropout=0.2), RunConfig(batch_norm=False)]
)
def test_images_come_back_in_range_and_parts_fit(name: str, channels: int, options: RunConfig) -> None:
    shape = (channels, *image_size(name, None, (28, 28)))
    network = build_autoencoder(name, shape, options).eval()
    images = torch.rand(3, *shape)
    outputs = network(images)
    assert outputs.reconstruction.shape == images.shape
    assert bool(((outputs.reconstruction >= 0) & (outputs.reconstruction <= 1)).all())
    assert outputs.latent.shape == (3, network.latent_size)
    undecoded = network.undecoded(images)
    assert torch.equal(undecoded.latent, outputs.latent)
    assert all(map(torch.equal, undecoded.features, outputs.features))
    assert undecoded.reconstruction.shape == images.shape
    assert all(torch.equal(head, outputs.heads[name]) for name, head in undecoded.heads.items())
    decoded = network.decode(network.encode(images)[0])
    assert torch.equal(decoded, outputs.reconstruction) == (name != "skip-conv")  # whose skips carry the rest
    own = [module for part, module in network.named_modules() if "backbone" not in part]
    has_norm = any("BatchNorm" in type(module).__name__ for module in own)
    assert has_norm == (options.batch_norm if options.batch_norm is not None else name not in ANCESTORS)
    shares = {module.p for module in own if isinstance(module, torch.nn.Dropout)}
    assert shares == ({options.dropout} if options.dropout else set())


@pytest.mark.parametrize("name", [name for name in ANCESTORS if name != "wide-kernel"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 19, 30)], ids=str)
def test_other_sizes_are_taken_too(name: str, shape: tuple[int, int, int]) -> None:
    assert build_autoencoder(name, shape)(torch.rand(2, *shape)).reconstruction.shape == (2, *shape)


def test_the_latent_can_be_128_and_beyond() -> None:
    for name in ("conv", "skip-conv", "vae", "dense-bottleneck-64", "strided-32", "vanilla", "multilayer"):
        assert summarise(name, GRAY, RunConfig(latent=500)).latent_shape == (500,)


@pytest.mark.parametrize("name", ["shallow-cnn", "deep-cnn", "conv-pool", "wide-kernel"])
def test_a_latent_map_has_its_own_size(name: str) -> None:
    with pytest.raises(UsageError, match="is a map"):
        build_autoencoder(name, GRAY, RunConfig(latent=12))


@pytest.mark.parametrize(("name", "least"), [("conv-pool", 8), ("deep-cnn", 4), ("shallow-cnn", 2), ("conv", 8)])
def test_images_too_small_are_refused_with_the_least_size(name: str, least: int) -> None:
    assert build_autoencoder(name, (1, least, least))(torch.rand(1, 1, least, least))
    with pytest.raises(UsageError, match=f"from {least}×{least} pixels, and these are {least - 1}×30"):
        build_autoencoder(name, (1, least - 1, 30))


def test_a_summary_takes_no_memory_and_counts_all_of_a_variational_network() -> None:
    assert summarise("multilayer", (3, 4096, 4096)).encoder_parameters > 10**10
    summary, network = summarise("vae", GRAY), build_autoencoder("vae", GRAY)
    assert summary.encoder_parameters + summary.decoder_parameters == parameter_count(network)
    assert sum(layer.parameters for layer in list_layers("vae", GRAY)) == parameter_count(network)


def test_the_wide_kernel_takes_no_other_size() -> None:
    with pytest.raises(UsageError, match="28×28"):
        build_autoencoder("wide-kernel", (1, 8, 8))
    with pytest.raises(UnknownName, match="did you mean 'deep-cnn'"):
        summarise("deepcnn", GRAY)


@pytest.mark.parametrize("name", [name for name in AUTOENCODERS if name != "feature-conv"])
def test_each_finds_anomalies_after_a_moment_on_the_bundled_digits(name: str, home: RunStore) -> None:
    """At its native size, objective and learning rate: better than chance after a few steps."""
    native = AUTOENCODERS[name].build.native
    result = anomaly_ae.train(
        RunConfig(normal="0", autoencoder=name, scorer="mse", epochs=2 if native else 6, batch_size=8),
        home=home,
        tracking=False,
    )
    assert result.validation_mse < 0.11  # black would give 0.13
    detector = Detector.load(find_model(home, result.run_id)[0])
    assert detector.preprocessing.shape == (1, *(native or (8, 8)))
    test = detector.split.test.take(load_dataset("digits"))
    some = test.take(torch.arange(128))
    assert roc_auc_score(some.labels != 0, detector.score(some.images)) > 0.6


def test_a_network_that_lacks_a_part_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shapeless(Autoencoder):
        def __init__(self, shape: tuple[int, int, int], config: RunConfig) -> None:
            super().__init__(shape, config)
            self.encoder, self.decoder = nn.Sequential(), nn.Sequential()

    monkeypatch.setitem(AUTOENCODERS, "shapeless", AutoencoderEntry(Shapeless, "", "", ""))
    with pytest.raises(NotImplementedError, match="Shapeless sets no latent_shape"):
        build_autoencoder("shapeless", (1, 8, 8))
