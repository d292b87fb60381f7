"""An autoencoder that gives images back from copies without their colours and their orientation."""

import torch
from torch import Tensor, nn

from anomaly_ae.augmentation.corruption import Gray, turned_copies
from anomaly_ae.autoencoders.autoencoder import Autoencoder, Outputs, Shape
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.config.weighted_sum import names_in

RESTORE = "restore"  # the objective that asks for it
# The head: what is made of each copy, one after another, float32 (N, T·C, H, W) of T copies; in training of one
RESTORATIONS = "restorations"


def is_restored(config: RunConfig) -> bool:
    """Whether a network is to restore images, by its objective."""
    return RESTORE in names_in(config.objective or "")


class Restoring(Autoencoder):
    """An autoencoder that sees images gray and turned, and is to give them back as they were.

    In training it sees each image turned by chance; else all turns, and its reconstruction is what is made of the
    upright gray image. Ye et al. 2019, https://arxiv.org/abs/1911.10676

    inner: built for (C, H, W); its parameters are all that there are
    """

    draws = True

    def __init__(self, inner: Autoencoder, shape: Shape) -> None:
        super().__init__(shape, RunConfig())
        self.inner, self.latent_shape = inner, inner.latent_shape
        self.span, self.objective, self.learning_rate = inner.span, inner.objective, inner.learning_rate
        self.defects = inner.defects
        # Past `nn.Module`, which would give every weight a second name in the state, and safetensors refuses that.
        vars(self)["encoder"] = nn.Sequential(Gray(), *inner.encoder)
        vars(self)["decoder"] = inner.decoder

    def forward(self, images: Tensor) -> Outputs:
        copies = turned_copies(self.encoder[0](images))  # (T, N, C, H, W)
        if self.training:
            drawn = torch.randint(len(copies), (len(images),))  # on the CPU, so that a seed gives the same everywhere
            each = torch.arange(len(images))
            outputs: Outputs = self.inner(copies[drawn.to(images.device), each.to(images.device)])
            return outputs._replace(heads={**outputs.heads, RESTORATIONS: outputs.reconstruction})
        made: list[Outputs] = [self.inner(copy) for copy in copies]
        restorations = torch.cat([each.reconstruction for each in made], dim=1)
        return made[0]._replace(heads={**made[0].heads, RESTORATIONS: restorations})
