"""The evidence lower bound of a variational autoencoder."""

from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.conv import LOG_VARIANCE, MEAN
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting


def is_variational(outputs: Outputs) -> bool:
    """Whether the network that gave these outputs is variational."""
    return {MEAN, LOG_VARIANCE} <= outputs.heads.keys()


def elbo(images: Tensor, outputs: Outputs) -> Tensor:
    """ELBO of each image in nats, (N,): log p(x | z), pixels as Bernoulli variables, less KL(q(z | x) || N(0, 1)).

    Kingma and Welling 2013, appendix B, https://arxiv.org/abs/1312.6114
    Raises `UsageError` when the network is not variational.
    """
    if not is_variational(outputs):
        raise UsageError(
            f"objective elbo needs a variational autoencoder; take {setting('autoencoder', 'vae')} with it"
        )
    mean, log_variance = outputs.heads[MEAN], outputs.heads[LOG_VARIANCE]  # (N, D) each
    entropy = functional.binary_cross_entropy(outputs.reconstruction, images, reduction="none")
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)
    return -entropy.sum(dim=(1, 2, 3)) - divergence
