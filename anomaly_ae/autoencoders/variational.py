"""The variational autoencoder."""

import copy

import torch
from torch import Tensor

from anomaly_ae.autoencoders.autoencoder import Outputs, Shape
from anomaly_ae.autoencoders.conv import ConvAutoencoder
from anomaly_ae.config.run_config import RunConfig

MEAN, LOG_VARIANCE = "mean", "log_variance"  # its heads, float32 (N, D) each


class VariationalAutoencoder(ConvAutoencoder):
    """The default network as a variational one: an image is given a Gaussian of latents, by mean and log variance.

    The encoder gives the mean, which is the latent; in training the decoder sees a draw from the Gaussian. The heads
    `mean` and `log_variance` are for the objective and the score `elbo`.
    Kingma and Welling 2013, https://arxiv.org/abs/1312.6114
    """

    objective = "elbo"

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        self.to_log_variance = copy.deepcopy(self.encoder[-1])  # of the same shape

    def forward(self, images: Tensor) -> Outputs:
        values, features = self.through(self.encoder[:-1], images)  # the maps, flattened
        mean, log_variance = self.encoder[-1](values), self.to_log_variance(values)  # (N, D) each
        drawn = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean) if self.training else mean
        return Outputs(self.decode(drawn), mean, features, {MEAN: mean, LOG_VARIANCE: log_variance})
