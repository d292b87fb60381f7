"""The variational autoencoder."""

import torch
from torch import Tensor

from anomaly_ae.autoencoders.base import Outputs
from anomaly_ae.autoencoders.conv import ConvAutoencoder

MEAN, LOG_VARIANCE = "mean", "log_variance"  # its heads, float32 (N, D) each


class VariationalAutoencoder(ConvAutoencoder):
    """The default network as a variational one: the encoder gives mean and log variance of a Gaussian latent.

    In training the decoder sees a draw from that Gaussian, otherwise its mean, which is the latent. The heads
    `mean` and `log_variance` are for the objective and the score `elbo`. The encoder alone gives (N, 2·D).
    Kingma and Welling 2013, https://arxiv.org/abs/1312.6114
    """

    objective = "elbo"

    def _encoded(self, latent: int) -> int:
        return 2 * latent

    def encode(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        both, features = super().encode(images)
        return both.chunk(2, dim=1)[0], features

    def forward(self, images: Tensor) -> Outputs:
        both, features = super().encode(images)  # (N, 2·D)
        mean, log_variance = both.chunk(2, dim=1)
        drawn = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean) if self.training else mean
        return Outputs(self.decode(drawn), mean, features, {MEAN: mean, LOG_VARIANCE: log_variance})
