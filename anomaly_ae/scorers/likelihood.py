"""Scores by how unlikely the network holds an image to be."""

from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.errors import UsageError
from anomaly_ae.objectives.elbo import elbo, is_variational
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scorers.scorer import Scorer


class NegativeELBO(Scorer):
    """`elbo`: -ELBO in nats, the latent at its mean, so that the same image always scores the same."""

    def check(self, outputs: Outputs) -> None:
        if not is_variational(outputs):
            raise UsageError(
                f"scorer elbo needs a variational autoencoder; take {setting('autoencoder', 'vae')} with it"
            )

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        return -elbo(images.clamp(0, 1), outputs)  # pixels beyond have no likelihood
