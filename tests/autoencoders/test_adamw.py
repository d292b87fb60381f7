import torch

from anomaly_ae.autoencoders import Autoencoder, build_autoencoder
from anomaly_ae.autoencoders.adamw import AdamW


def network() -> Autoencoder:
    torch.manual_seed(0)
    return build_autoencoder("conv", (1, 8, 8))


def test_it_steps_as_torchs_own_does_and_leaves_what_has_no_gradient() -> None:
    ours, theirs = network(), network()
    optimizer = AdamW(ours, 0.01)
    reference = torch.optim.AdamW(theirs.parameters(), weight_decay=0.01, fused=True)
    frozen = next(iter(optimizer.parameters))
    for step in range(1, 6):
        for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            one.grad = None if name == frozen else torch.randn(one.shape)
            other.grad = None if one.grad is None else one.grad.clone()
        optimizer.step(0.01 / step)
        reference.param_groups[0]["lr"] = 0.01 / step
        reference.step()
    for name, weights in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weights), name
    before = network().state_dict()[frozen]
    assert torch.equal(ours.state_dict()[frozen], before)
    state = optimizer.state()
    assert float(state[f"step.{frozen}"]) == 0
    assert {float(state[f"step.{name}"]) for name in optimizer.parameters if name != frozen} == {5}
