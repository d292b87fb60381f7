"""The optimiser of all autoencoders."""

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from anomaly_ae.autoencoders.autoencoder import Autoencoder


class AdamW:
    """Adam with decoupled weight decay, as torch computes it: Loshchilov and Hutter 2019,
    https://arxiv.org/abs/1711.05101. The constructor of torch's own class loads torch's compiler, for seconds.
    """

    def __init__(self, network: Autoencoder, decay: float) -> None:
        self.decay = decay
        self.parameters: dict[str, Tensor] = {
            name: each for name, each in network.named_parameters() if each.requires_grad
        }
        self.step_of = {name: torch.zeros((), device=each.device) for name, each in self.parameters.items()}
        self.mean = {name: torch.zeros_like(each) for name, each in self.parameters.items()}
        self.mean_square = {name: torch.zeros_like(each) for name, each in self.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """What it remembers, by name."""
        kinds = {"step": self.step_of, "exp_avg": self.mean, "exp_avg_sq": self.mean_square}
        return {f"{kind}.{name}": value for kind, values in kinds.items() for name, value in values.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the parameters that have a gradient, at that learning rate."""
        gradients = {name: each.grad for name, each in self.parameters.items() if each.grad is not None}
        kinds = (self.parameters, self.mean, self.mean_square, self.step_of)
        parameters, mean, mean_square, step_of = ([values[name] for name in gradients] for values in kinds)
        adamw(
            parameters,
            list(gradients.values()),
            mean,
            mean_square,
            max_exp_avg_sqs=[],
            state_steps=step_of,
            lr=rate,
            weight_decay=self.decay,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
            fused=True,
        )
