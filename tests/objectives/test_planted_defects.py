import pytest
import torch

from anomaly_ae.autoencoders import Outputs, build_autoencoder
from anomaly_ae.errors import UsageError
from anomaly_ae.objectives import build_objective
from anomaly_ae.objectives.planted_defects import RARE, REPAIRED, repair


def outputs(logit: float, planted: float, rebuilt: float = 0.5) -> Outputs:
    maps = torch.ones(2, 1, 4, 4)
    heads = {"defect": logit * maps, "planted": planted * maps}
    return Outputs(rebuilt * maps, torch.zeros(2, 3), (), heads)


def test_the_loss_by_hand() -> None:
    images = torch.full((2, 1, 4, 4), 0.7)
    found = torch.nn.functional.softplus(torch.tensor(-2.0))  # -log of the probability that is right
    assert repair(images, outputs(2.0, 1.0)).item() == pytest.approx(RARE * float(found) + REPAIRED * 0.04, rel=1e-5)
    assert repair(images, outputs(-2.0, 0.0)).item() == pytest.approx(float(found) + REPAIRED * 0.04, rel=1e-5)


def test_without_planted_defects_all_is_sound() -> None:
    images = torch.full((2, 1, 4, 4), 0.5)
    silent = outputs(-2.0, 0.0)
    bare = silent._replace(heads={"defect": silent.heads["defect"]})
    assert repair(images, bare).item() == repair(images, silent).item()


def test_a_network_without_the_head_is_refused() -> None:
    images = torch.rand(2, 1, 16, 16)
    with pytest.raises(UsageError, match='autoencoder="repair"'):
        build_objective("repair")(images, build_autoencoder("conv", (1, 16, 16))(images))


def test_its_gradient_reaches_every_weight() -> None:
    images = torch.rand(4, 3, 32, 40)
    network = build_autoencoder("repair", (3, 32, 40))
    torch.autograd.backward(repair(images, network(images)))
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())
