"""Scores that need the images alone, to tell what learning is worth. See also `pixel-knn`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers.neighbors import MOST_SIDE, distances, shrink
from anomaly_ae.scorers.scorer import ImageBatches, MapScorer, Scorer
from anomaly_ae.storage.pixel_values import as_bytes, as_float
from anomaly_ae.storage.schema import Mismatch, TensorSpec

COMPONENTS = 32
TREES, DEPTH = 100, 8  # of an isolation forest, and how deep they are, each of 256 images
BASELINE_IMAGES = 5_000  # of the fit set, evenly sampled: time and memory of the two below grow with them
SUPPORT_SHARE = 0.1  # ν of the one-class SVM: the share of fit images it may leave outside


class PrincipalComponents(MapScorer):
    """`pca`: squared error of the reconstruction from 32 principal components; a smaller side up to 64 pixels."""

    reads_reconstruction = False

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        from sklearn.decomposition import PCA

        images = _sample(fit_set)
        fitted = PCA(min(COMPONENTS, *images.shape), random_state=0).fit(images.cpu().numpy())
        self.learned = {"mean": _like(images, fitted.mean_), "components": _like(images, fitted.components_)}

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        pixels = _pixels(images).shape[1]
        return {"mean": TensorSpec((pixels,)), "components": TensorSpec(("components", pixels))}

    def anomaly_map(self, images: Tensor, outputs: Outputs) -> Tensor:
        small = shrink(images, MOST_SIDE)
        centred = small.flatten(1) - self.learned["mean"]  # (N, C·h·w)
        components = self.learned["components"]  # (components, C·h·w)
        errors = (centred - centred @ components.T @ components).square().reshape(small.shape).mean(dim=1)
        if small.shape == images.shape:
            return errors
        return functional.interpolate(errors.unsqueeze(1), images.shape[-2:], mode="bilinear").squeeze(1)


class IsolationForest(Scorer):
    """`isolation-forest`: of scikit-learn, on pixels; Liu, Ting and Zhou 2008, https://doi.org/10.1109/ICDM.2008.17.

    What it learned are the nodes of all its trees one after the other, so that it scores the same whatever
    scikit-learn is installed: the `pixel` that a node looks at, the `value` up to which it goes `left`, else `right`;
    a leaf goes to itself, and has the `path` length of what ends there.
    """

    reads_reconstruction = False

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        from sklearn.ensemble import IsolationForest as Forest

        images = _sample(fit_set)
        forest = Forest(n_estimators=TREES, random_state=0, max_samples=min(2**DEPTH, len(images)))
        forest.fit(images.cpu().numpy())
        trees = [_nodes(each.tree_) for each in forest.estimators_]
        starts = np.cumsum([0, *(len(tree["path"]) for tree in trees)])
        for tree, start in zip(trees, starts, strict=False):
            tree["left"] += start
            tree["right"] += start
        nodes = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
        nodes |= {"roots": starts[:-1], "mean_path": _mean_path(np.array(max(2, forest.max_samples_)))}
        self.learned = {
            name: torch.from_numpy(values).to(images.device) if values.dtype.kind == "i" else _like(images, values)
            for name, values in nodes.items()
        }

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        pixel = TensorSpec(("nodes",), "I64", below=_pixels(images).shape[1])
        whole, real = TensorSpec(("nodes",), "I64"), TensorSpec(("nodes",))
        nodes = {"pixel": pixel, "value": real, "left": whole, "right": whole, "path": real}
        return nodes | {"roots": TensorSpec((TREES,), "I64"), "mean_path": TensorSpec((), positive=True)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Raises `Mismatch` when a node leads to none."""
        for name in ("left", "right", "roots"):
            if not bool(((state[name] >= 0) & (state[name] < len(state["path"]))).all()):
                raise Mismatch(f"{name} of the isolation forest leads to nodes that it does not have")
        super().load_state(state)

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        pixels, learned = _pixels(images), self.learned
        nodes = learned["roots"].expand(pixels.shape[0], -1)  # (N, trees)
        for _ in range(DEPTH):
            goes_left = pixels.gather(1, learned["pixel"][nodes]) <= learned["value"][nodes]
            nodes = torch.where(goes_left, learned["left"][nodes], learned["right"][nodes])
        return torch.exp2(-learned["path"][nodes].mean(dim=1) / learned["mean_path"])


def _nodes(tree: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The nodes of one of scikit-learn's trees, (nodes,) each, see `IsolationForest`."""
    leaf, itself = tree.children_left < 0, np.arange(tree.node_count)
    left, right = (np.where(leaf, itself, children) for children in (tree.children_left, tree.children_right))
    depth = np.zeros(tree.node_count)
    for node in np.flatnonzero(~leaf):  # a parent stands before its children
        depth[[left[node], right[node]]] = depth[node] + 1
    value = np.where(leaf, 0, tree.threshold)
    down = value.astype(np.float32)  # float32 pixels are at most the one where they are at most the other
    down = np.where(down > value, np.nextafter(down, np.float32(-np.inf)), down)
    path = depth + _mean_path(tree.n_node_samples)
    return {"pixel": np.where(leaf, 0, tree.feature), "value": down, "left": left, "right": right, "path": path}


def _mean_path(count: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean length of the paths in a tree of `count` images, of the same shape: 2 H(n - 1) - 2 (n - 1) / n."""
    n = np.maximum(count, 3)
    long: np.ndarray[Any, Any] = 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    return np.where(count > 2, long, (count == 2).astype(float))


class OneClassSVM(Scorer):
    """`one-class-svm`: of scikit-learn, on pixels, ν = 0.1, a Gaussian kernel with γ = 1 / (pixels · variance).

    Schölkopf et al. 2001, https://doi.org/10.1162/089976601750264965
    """

    reads_reconstruction = False

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
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


def _sample(fit_set: ImageBatches) -> Tensor:
    """Fit images as such rows, float32 (M, C·H·W)."""
    (images,) = fit_set.remember(lambda images, _: as_bytes(_pixels(images)), most=BASELINE_IMAGES)
    return as_float(images)


def _like(images: Tensor, values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Tensor:
    """Values as float32, on the device of the images."""
    return torch.from_numpy(np.array(values, dtype=np.float32, order="C")).to(images.device)
