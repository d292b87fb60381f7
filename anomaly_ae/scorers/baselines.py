"""Scores that need the images alone, to tell what learning is worth. See also `pixel-knn`."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.inference import as_bytes, as_float
from anomaly_ae.schema import TensorSpec
from anomaly_ae.scorers.base import MapScorer, Passes, Scorer
from anomaly_ae.scorers.neighbours import MOST_SIDE, distances, sample, shrink

COMPONENTS = 32
MOST_IMAGES = 5_000  # of the fit set, evenly sampled: time and memory of the two below grow with them
SUPPORT_SHARE = 0.1  # ν of the one-class SVM: the share of fit images it may leave outside


class PrincipalComponents(MapScorer):
    """`pca`: mean squared error of the reconstruction from the first 32 principal components of the fit images, the
    smaller side at most 64 pixels.
    """

    def fit(self, fit_set: Passes, validation_set: Passes) -> None:
        from sklearn.decomposition import PCA

        images = _sample(fit_set)
        fitted = PCA(min(COMPONENTS, *images.shape), random_state=0).fit(images.cpu().numpy())
        self.learned = {"mean": _like(images, fitted.mean_), "components": _like(images, fitted.components_)}

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        pixels = _pixels(images).shape[1]
        return {"mean": TensorSpec((pixels,)), "components": TensorSpec(("components", pixels))}

    def heat_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        small = shrink(images, MOST_SIDE)
        centred = small.flatten(1) - self.learned["mean"]  # (N, C·h·w)
        components = self.learned["components"]  # (components, C·h·w)
        errors = (centred - centred @ components.T @ components).square().reshape(small.shape).mean(dim=1)
        if small.shape == images.shape:
            return errors
        return functional.interpolate(errors.unsqueeze(1), images.shape[-2:], mode="bilinear").squeeze(1)


class IsolationForest(Scorer):
    """`isolation-forest`: of scikit-learn, on pixels; Liu, Ting and Zhou 2008, https://doi.org/10.1109/ICDM.2008.17.

    It is grown anew, the same each time, from the images it keeps, for a forest is no tensor.
    """

    def fit(self, fit_set: Passes, validation_set: Passes) -> None:
        self.load_state({"images": _sample(fit_set)})

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        return {"images": TensorSpec(("images", _pixels(images).shape[1]))}

    def load_state(self, state: dict[str, Tensor]) -> None:
        from sklearn.ensemble import IsolationForest as Forest

        self.learned = dict(state)
        self.forest = Forest(random_state=0).fit(state["images"].cpu().numpy())

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        return _like(images, -self.forest.score_samples(_pixels(images).cpu().numpy()))


class OneClassSVM(Scorer):
    """`one-class-svm`: of scikit-learn, on pixels, ν = 0.1, a Gaussian kernel with γ = 1 / (pixels · variance).

    Schölkopf et al. 2001, https://doi.org/10.1162/089976601750264965
    """

    def fit(self, fit_set: Passes, validation_set: Passes) -> None:
        from sklearn.svm import OneClassSVM as Machine

        images = _sample(fit_set)
        fitted = Machine(nu=SUPPORT_SHARE).fit(images.cpu().numpy())
        self.learned = {
            "vectors": _like(images, fitted.support_vectors_),
            "weights": _like(images, fitted.dual_coef_[0]),
            "gamma": _like(images, np.array(fitted._gamma)),
        }

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        vectors = {"vectors": TensorSpec(("vectors", _pixels(images).shape[1])), "weights": TensorSpec(("vectors",))}
        return vectors | {"gamma": TensorSpec((), positive=True)}

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        apart = distances(_pixels(images), self.learned["vectors"])  # (N, vectors)
        kernel = torch.exp(-self.learned["gamma"] * apart.square())
        return -(kernel @ self.learned["weights"]) + self.learned["weights"].sum()  # 0 is the least there can be


def _pixels(images: Tensor) -> Tensor:
    """Images as rows of pixels, float (N, C·H·W), the smaller side at most 64 pixels."""
    return shrink(images, MOST_SIDE).flatten(1)


def _sample(fit_set: Passes) -> Tensor:
    """Fit images as such rows, float32 (M, C·H·W)."""
    images = torch.cat([as_bytes(_pixels(batch)) for batch, _ in fit_set()])
    return as_float(images[sample(len(images), MOST_IMAGES).to(images.device)])


def _like(images: Tensor, values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Tensor:
    """Values as float32, on the device of the images."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(images.device)
