import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anomaly_ae import training as training_module
from anomaly_ae.augmentation.transforms import build_augmentation
from anomaly_ae.autoencoders import Autoencoder, Outputs, build_autoencoder
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import ModelError, TrainingError
from anomaly_ae.objectives import build_objective
from anomaly_ae.runtime.torch_state import left_as_found
from anomaly_ae.training import Epoch, Training, best_fitting, epoch_count, train_epochs

CONFIG = RunConfig(normal="0", epochs=6, batch_size=32, latent=4)


def images(count: int, seed: int) -> torch.Tensor:
    """Smooth blobs at random places, uint8."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, 1, 1, generator=g) * 12
    y, x = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
    return (255 * torch.exp(-distance / 8)).to(torch.uint8).unsqueeze(1)


FIT, VALIDATION = images(150, 0), images(40, 1)


def begin(config: RunConfig = CONFIG) -> Training:
    torch.manual_seed(config.seed)
    return train_on(build_autoencoder("conv", (1, 12, 12), config), config)


def train_on(network: Autoencoder, config: RunConfig) -> Training:
    return Training(network, config, build_objective(config.objective or "mse"), build_augmentation(config.augment))


def epochs(training: Training, checkpoint: Path) -> Iterator[Epoch]:
    for epoch in train_epochs(training, FIT, VALIDATION):
        training.snapshot().save(checkpoint)
        yield epoch


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_falls(tmp_path: Path) -> None:
    history = list(epochs(begin(RunConfig(normal="0", epochs=30, batch_size=32)), tmp_path / "c"))
    assert [epoch.epoch for epoch in history] == list(range(1, 31))
    assert history[-1].train_loss < 0.2 * history[0].train_loss
    assert history[-1].validation_loss < 0.2 * history[0].validation_loss


def test_floats_train_as_bytes_do_and_without_a_checkpoint(tmp_path: Path) -> None:
    plain, floats = begin(), begin()
    kept = list(epochs(plain, tmp_path / "c"))
    history = list(train_epochs(floats, FIT / 255, VALIDATION / 255))
    assert [epoch.validation_loss for epoch in history] == [epoch.validation_loss for epoch in kept]
    assert_same_weights(plain.best, floats.best)


@pytest.mark.parametrize("objective", ["mse", "bce", "ssim", "mse+0.2*ssim"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_objective_trains_in_every_precision(tmp_path: Path, objective: str, precision: str) -> None:
    training = begin(RunConfig(normal="0", epochs=8, batch_size=32, objective=objective, precision=precision))
    history = list(epochs(training, tmp_path / "c"))
    assert history[-1].train_loss < history[0].train_loss


@pytest.mark.parametrize("setting", [{"noise": 0.3}, {"masked": 0.3}, {"dropout": 0.2}, {"batch_norm": False}])
def test_what_is_spoiled_is_learned_too_and_again_the_same(tmp_path: Path, setting: dict[str, float]) -> None:
    config = RunConfig.build({"normal": "0", "epochs": 8, "batch_size": 32}, setting)
    one, other = (list(epochs(begin(config), tmp_path / "c")) for _ in range(2))
    assert one[-1].validation_loss < one[0].validation_loss
    assert [epoch.train_loss for epoch in one] == [epoch.train_loss for epoch in other]
    plain = list(epochs(begin(RunConfig(normal="0", epochs=8, batch_size=32)), tmp_path / "c"))
    assert plain[0].train_loss != one[0].train_loss


def test_a_variational_network_learns_its_elbo(tmp_path: Path) -> None:
    config = RunConfig(normal="0", epochs=8, batch_size=32, objective="elbo")
    torch.manual_seed(0)
    history = list(epochs(train_on(build_autoencoder("vae", (1, 12, 12)), config), tmp_path / "c"))
    assert history[-1].validation_loss < 0.8 * history[0].validation_loss


def test_a_constant_schedule_is_constant() -> None:
    training = begin(RunConfig(normal="0", schedule="constant", learning_rate=0.01))
    assert {training.rate_at(step, 100) for step in (0, 5, 50, 99)} == {0.01}


def test_the_same_seed_gives_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    one, again, other = begin(), begin(), begin(RunConfig(**CONFIG.to_dict() | {"seed": 1}))
    for training in (one, again, other):
        list(epochs(training, tmp_path / "c"))
    assert_same_weights(one.best, again.best)
    assert not torch.equal(one.best["encoder.2.weight"], other.best["encoder.2.weight"])


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_going_on_from_a_checkpoint_ends_as_if_never_stopped(tmp_path: Path, stop: int) -> None:
    whole = begin()
    list(epochs(whole, tmp_path / "whole"))
    first, running = begin(), tmp_path / "parts"
    for epoch in epochs(first, running):
        if epoch.epoch == stop:
            break
    torch.rand(99)  # whatever happened to the random numbers in between
    second = begin()
    second.load(running)
    assert [epoch.epoch for epoch in second.history] == list(range(1, stop + 1))
    list(epochs(second, running))
    assert_same_weights(second.network.state_dict(), whole.network.state_dict())
    assert_same_weights(second.best, whole.best)
    assert [e.validation_loss for e in second.history] == [e.validation_loss for e in whole.history]


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    training = begin(RunConfig(normal="0", epochs=12, batch_size=32, learning_rate=0.5))  # too high: ups and downs
    seen = {epoch.epoch: training.network.encoder[2].weight.clone() for epoch in epochs(training, tmp_path / "c")}
    losses = [epoch.validation_loss for epoch in training.history]
    best = losses.index(min(losses)) + 1
    assert training.best_epoch.epoch == best
    assert torch.equal(training.best["encoder.2.weight"], seen[best])


def test_it_stops_early_when_nothing_gets_better(tmp_path: Path) -> None:
    config = RunConfig(normal="0", epochs=200, batch_size=32, learning_rate=0.5, patience=3)
    training = begin(config)
    history = list(epochs(training, tmp_path / "c"))
    assert len(history) < 200
    assert len(history) >= 20 + 3  # not before the learning rate has risen to its peak
    assert len(history) - max(training.best_epoch.epoch, 20) == 3
    assert list(epochs(training, tmp_path / "c")) == []  # stopped is stopped, also after resuming


def test_a_loss_that_is_no_number_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    training = begin()
    with torch.no_grad():
        training.network.encoder[2].weight.fill_(math.inf)
    with pytest.raises(TrainingError, match=r"epoch 1; try a learning_rate below 0\.004"):
        list(epochs(training, tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    list(epochs(begin(), tmp_path / "c"))
    with pytest.raises(ModelError, match="is of another run"):
        begin(RunConfig(normal="0", latent=5)).load(tmp_path / "c")
    assert not begin().load(tmp_path / "none")


def test_a_damaged_checkpoint_is_said_and_never_gone_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list(epochs(begin(), tmp_path / "c"))
    content = (tmp_path / "c").read_bytes()
    flipped = [bytearray(content) for _ in range(16)]
    for i, each in enumerate(flipped):
        each[i if i < 8 else (i * len(content)) // len(flipped)] ^= 1 << i % 8
    without_digest = content.replace(b'"sha256"', b'"sha255"')
    for damaged in (b"", content[:100], content[:-10], b"x" * 500, without_digest, *flipped):
        (tmp_path / "d").write_bytes(damaged)
        training = begin()
        assert not training.load(tmp_path / "d")
        assert training.history == []
        assert "d is damaged" in capsys.readouterr().err
    (tmp_path / "e").mkdir()
    assert not begin().load(tmp_path / "e")


def test_where_a_checkpoint_is_damaged_the_one_before_leads_to_the_same_end(tmp_path: Path) -> None:
    whole = begin()
    list(epochs(whole, tmp_path / "whole.safetensors"))
    running = tmp_path / "c.safetensors"
    for epoch in epochs(begin(), running):
        if epoch.epoch == 4:
            break
    running.write_bytes(b"")
    resumed = begin()
    assert resumed.load(running)
    assert len(resumed.history) == 3
    list(epochs(resumed, running))
    assert_same_weights(resumed.best, whole.best)


def test_the_rate_rises_then_falls_to_almost_nothing() -> None:
    rates = [begin().rate_at(step, 100) for step in range(100)]
    assert rates.index(max(rates)) in (9, 10)
    assert max(rates) == 4e-3
    assert rates[0] == pytest.approx(4e-4)
    assert rates[-1] < 0.001 * 4e-3


def test_small_data_get_more_epochs_than_large() -> None:
    config = RunConfig(normal="0").filled()
    assert epoch_count(config, 14_898) == 13  # MNIST 0, 1, 2: about 1,500 steps of 128
    assert epoch_count(config, 268) == 200
    assert epoch_count(config, 2_000_000) == 1
    assert epoch_count(RunConfig(normal="0", epochs=7).filled(), 268) == 7
    assert epoch_count(RunConfig(normal="0", steps=3_000).filled(), 268) == 1_500  # what was asked has no limit


def test_trimming_leaves_the_images_that_fit_worst_out_of_the_loss() -> None:
    images = torch.full((10, 1, 4, 4), 0.5)
    off = torch.tensor([0.0, 0.1, 0.4, 0.0, 0.1, 0.0, 0.3, 0.1, 0.0, 0.0]).reshape(-1, 1, 1, 1)
    outputs = Outputs(images + off, torch.arange(10.0).unsqueeze(1))
    kept, their_outputs = best_fitting(images, outputs, 0.2)
    assert sorted(their_outputs.latent.flatten().tolist()) == [0, 1, 3, 4, 5, 7, 8, 9]
    assert len(kept) == 8
    dim = torch.cat([images[:8], images[8:] / 10])  # the same error of a fainter image is a larger one
    outputs = Outputs(dim + 0.05, torch.arange(10.0).unsqueeze(1))
    assert sorted(best_fitting(dim, outputs, 0.2)[1].latent.flatten().tolist()) == list(range(8))
    assert best_fitting(images, outputs, 0.0)[0] is images


def test_trimming_begins_after_the_warm_up_and_changes_the_weights(tmp_path: Path) -> None:
    plain, trimmed = (begin(RunConfig(normal="0", epochs=20, batch_size=32, trim_training=s)) for s in (0.0, 0.2))
    losses = [[epoch.train_loss for epoch in epochs(each, tmp_path / "c")] for each in (plain, trimmed)]
    assert losses[0][:2] == losses[1][:2]
    assert all(other < one for one, other in zip(losses[0][2:], losses[1][2:], strict=True))


def test_a_batch_that_is_not_divided_is_learned_from_on_all_threads() -> None:
    config = replace(CONFIG, epochs=1, batch_size=400, dropout=0.1)
    training, seen = train_on(build_autoencoder("conv", (1, 12, 12), config), config), set()

    def threads_of(images: torch.Tensor, outputs: Outputs) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return outputs.reconstruction.mean()

    training.objective = threads_of
    with left_as_found():
        torch.set_num_threads(2)
        list(train_epochs(training, images(400, 0), VALIDATION))
    assert seen == {2}


LARGE = FIT.repeat_interleave(3, 2).repeat_interleave(3, 3)  # enough pixels for batches in halves


def begin_large(precision: str) -> Training:
    config = RunConfig(normal="0", epochs=2, batch_size=75, latent=4, precision=precision)
    torch.manual_seed(0)
    return train_on(build_autoencoder("conv", (1, 36, 36), config), config)


@pytest.mark.parametrize(("times", "expected"), [(1.51, "bfloat16"), (1.49, "float32"), (0.0, "float32")])
def test_a_precision_that_is_found_trains_as_if_it_were_asked_for(
    times: float, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is tried leaves no trace, and whoever goes on does so in the same precision, wherever that is."""

    def tried(exact: Callable[[], float], short: Callable[[], float]) -> float:
        assert exact() == pytest.approx(short(), rel=0.01)
        assert exact() != short()
        return times

    monkeypatch.setattr(training_module, "has_bfloat16", lambda: True)
    monkeypatch.setattr(training_module, "speedup", tried)
    found, asked = begin_large("auto"), begin_large(expected)
    epochs_of = [train_epochs(each, LARGE, LARGE[:40]) for each in (found, asked)]
    for steps in epochs_of:
        next(steps)
    assert found.precision == expected
    assert_same_weights(found.network.state_dict(), asked.network.state_dict())

    monkeypatch.setattr(training_module, "speedup", None)
    resumed = begin_large("auto")
    found.snapshot().save(tmp_path / "c")
    assert resumed.load(tmp_path / "c")
    assert resumed.precision == expected
    list(train_epochs(resumed, LARGE, LARGE[:40]))
    list(epochs_of[1])
    assert_same_weights(resumed.network.state_dict(), asked.network.state_dict())


def test_nothing_is_tried_where_batches_are_small_or_the_processor_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "speedup", None)
    for training, images, can in ((begin(), FIT, True), (begin_large("auto"), LARGE, False)):
        monkeypatch.setattr(training_module, "has_bfloat16", lambda can=can: can)
        next(train_epochs(training, images, images[:40]))
        assert training.precision == "float32"
