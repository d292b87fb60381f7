import dataclasses
import subprocess
import sys

import pytest
import torch

from anomaly_ae.autoencoders import build_autoencoder
from anomaly_ae.autoencoders.folds import IN_NO_FOLD, FoldAutoencoders, draw_folds, fold_count
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.objectives import build_objective
from anomaly_ae.training import Training, train_epochs

CONFIG = RunConfig(normal="0", folds=3, guarantee="cross", latent=4, epochs=2, batch_size=8).filled()


def network() -> FoldAutoencoders:
    torch.manual_seed(0)
    built = build_autoencoder("conv", (1, 8, 8), CONFIG)
    assert isinstance(built, FoldAutoencoders)
    return built


@pytest.mark.parametrize(
    ("images", "folds"), [(2, 2), (9, 9), (10, 10), (20, 10), (25, 5), (28, 7), (30, 10), (31, 10), (56, 8)]
)
def test_folds_are_as_many_as_leave_out_fewest_images(images: int, folds: int) -> None:
    assert fold_count(images) == folds


@pytest.mark.parametrize(("images", "folds"), [(9, 9), (28, 7), (31, 10), (47, 10)])
def test_all_folds_are_of_one_size_and_the_rest_is_in_none(images: int, folds: int) -> None:
    drawn = draw_folds(images, folds, seed=3)
    counts = drawn[drawn != IN_NO_FOLD].bincount(minlength=folds)
    assert counts.tolist() == [images // folds] * folds
    assert int((drawn == IN_NO_FOLD).sum()) == images % folds
    assert torch.equal(drawn, draw_folds(images, folds, seed=3))
    assert not torch.equal(drawn, draw_folds(images, folds, seed=4))


def test_what_a_network_has_learned_does_not_depend_on_its_own_fold() -> None:
    images = torch.rand(19, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    drawn = draw_folds(19, 3, CONFIG.seed)
    other = torch.where((drawn == 1)[:, None, None, None], 1 - images, images)
    trained = []
    for each in (images, other):
        training = Training(network(), CONFIG, build_objective("mse"), lambda batch: batch)
        list(train_epochs(training, each, images[:4]))
        trained.append([member.state_dict() for member in training.network.members])
    same = [
        all(torch.equal(value, theirs[name]) for name, value in ours.items())
        for ours, theirs in zip(*trained, strict=True)
    ]
    assert same == [False, True, False]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_folds_learn_with_threads_what_they_learn_one_after_another(dropout: float) -> None:
    config = dataclasses.replace(CONFIG, batch_size=32, epochs=1, dropout=dropout)
    images = torch.rand(96, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    trained, before = [], torch.get_num_threads()
    for threads in (1, 3):
        torch.manual_seed(0)
        folds = build_autoencoder("conv", (1, 32, 32), config)
        folds.cheap_folds = True
        training = Training(folds, config, build_objective("mse"), lambda batch: batch)
        torch.set_num_threads(threads)
        try:
            list(train_epochs(training, images, images[:4]))
        finally:
            torch.set_num_threads(before)
        trained.append((training.history[0].train_loss, training.best))
    (one_loss, one), (other_loss, other) = trained
    # With dropout, folds are trained in turn, each with all threads, so that sums round differently; the masks of
    # another would change the loss far more.
    assert one_loss == pytest.approx(other_loss, rel=1e-4 if dropout else 1e-6)
    assert dropout or all(torch.equal(value, other[name]) for name, value in one.items())


def test_without_decoding_all_but_the_reconstruction_is_the_same() -> None:
    folds, images = network().eval(), torch.rand(3, 1, 8, 8)
    with torch.inference_mode():
        whole, undecoded = folds(images), folds.undecoded(images)
    assert torch.equal(undecoded.latent, whole.latent)
    assert undecoded.reconstruction.is_meta
    assert undecoded.reconstruction.shape == whole.reconstruction.shape
    for member, own in zip(undecoded.members, whole.members, strict=True):
        assert all(map(torch.equal, member.features, own.features))
        assert member.reconstruction.is_meta


def test_without_decoding_nothing_is_loaded_that_takes_seconds() -> None:
    code = """if True:
        import sys, torch
        from anomaly_ae.autoencoders import build_autoencoder
        from anomaly_ae.config.run_config import RunConfig
        network = build_autoencoder("conv", (1, 8, 8), RunConfig(normal="0", folds=3, guarantee="cross").filled())
        before = {*sys.modules}
        with torch.inference_mode():
            network.eval().undecoded(torch.zeros(2, 1, 8, 8)).first(1)
        assert len({*sys.modules} - before) < 10, {*sys.modules} - before
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_its_outputs_are_those_of_its_members() -> None:
    folds = network().eval()
    images = torch.rand(5, 1, 8, 8)
    outputs = folds(images)
    alone = [member(images) for member in folds]
    for member, own in zip(outputs.members, alone, strict=True):
        assert torch.equal(member.reconstruction, own.reconstruction)
    assert torch.allclose(outputs.reconstruction, sum(own.reconstruction for own in alone) / 3)
    assert torch.equal(outputs.latent, torch.cat([own.latent for own in alone], dim=1))
    assert torch.equal(folds.encode(images)[0], outputs.latent)
    assert torch.allclose(folds.decode(outputs.latent), outputs.reconstruction, atol=1e-6)
    assert outputs.first(2).members[0].latent.shape == (2, 4)
    single = build_autoencoder("conv", (1, 8, 8), dataclasses.replace(CONFIG, folds=None))
    names = {f"members.{fold}.{name}" for fold in range(3) for name in single.state_dict()}
    assert folds.state_dict().keys() == names  # each weight once
