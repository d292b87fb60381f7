"""Scores by distance to what was seen in training. What is remembered of it is bounded."""

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.scorers.scorer import ImageBatches, Scorer
from anomaly_ae.storage.schema import TensorSpec

FEATURES_AT_ONCE = 1_024  # features that are centred and projected
MOST_SIDE = 64  # pixels of the smaller side of images that are compared pixel by pixel
ROWS_AT_ONCE = 32  # on a CPU, so that their distances to all others stay in its cache
SAME = 1e-4  # of a key's length: what lies nearer to another key is the same
MOST_DIMENSIONS = 256  # of what is kept of each; more, as maps have, are projected at random to so many


class Neighbors(Scorer):
    """Euclidean distance from what an image becomes, `of`, to the nearest that a fit image became.

    A random projection keeps distances to within a few per cent: Johnson and Lindenstrauss 1984,
    https://doi.org/10.1090/conm/026/737400
    """

    reads_reconstruction = False
    most_dimensions = MOST_DIMENSIONS

    @abstractmethod
    def of(self, images: Tensor, outputs: Outputs) -> Tensor:
        """What images are compared by, float (N, D)."""

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        (self.learned["memory"],) = fit_set.remember(self.keys)

    def width(self, images: Tensor, outputs: Outputs) -> int:
        """D of what `of` gives."""
        return self.of(images, outputs).shape[1]

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        width = self.width(images, outputs)
        kept = min(width, self.most_dimensions)
        projection = {"projection": TensorSpec((width, kept))} if kept < width else {}
        return {"memory": TensorSpec(("memories", kept))} | projection

    def score(self, images: Tensor, outputs: Outputs) -> Tensor:
        return to_nearest(self.keys(images, outputs), self.learned["memory"])

    def keys(self, images: Tensor, outputs: Outputs) -> Tensor:
        """`of`, as it is kept."""
        return self.project(self.of(images, outputs))

    def project(self, values: Tensor) -> Tensor:
        """Values (N, D) as they are, or projected to (N, `most_dimensions`) where D is more."""
        size = values.shape[1]
        if size <= self.most_dimensions:
            return values
        if "projection" not in self.learned:
            self.learned["projection"] = random_projection(size, self.most_dimensions).to(values.device)
        return values @ self.learned["projection"]


class LatentNeighbors(Neighbors):
    """`latent-knn`: distance to the nearest latent."""

    def of(self, images: Tensor, outputs: Outputs) -> Tensor:
        return outputs.latent


class FeatureNeighbors(Neighbors):
    """`feature-knn`: distance to the nearest last feature map of the encoder, centred and brought to unit length.

    Of a network without feature maps, the latent takes their place.
    """

    def fit(self, fit_set: ImageBatches, validation_set: ImageBatches) -> None:
        self.learn(*fit_set.remember(last_features))

    def learn(self, features: Tensor) -> None:
        """Centre and memory of the features (M, D) of fit images."""
        parts = torch.split(features, FEATURES_AT_ONCE)
        total = torch.stack([part.double().sum(dim=0) for part in parts]).sum(dim=0)
        self.learned["centre"] = (total / len(features)).float()
        self.learn_projection(features)
        self.learned["memory"] = torch.cat([self.project(self._unit(part)) for part in parts])

    def learn_projection(self, features: Tensor) -> None:
        """What `project` needs of features (M, D), which is nothing where it draws it at random."""

    def width(self, images: Tensor, outputs: Outputs) -> int:
        return last_features(images, outputs).shape[1]

    def specs(self, images: Tensor, outputs: Outputs) -> dict[str, TensorSpec]:
        return super().specs(images, outputs) | {"centre": TensorSpec((self.width(images, outputs),))}

    def of(self, images: Tensor, outputs: Outputs) -> Tensor:
        return self._unit(last_features(images, outputs))

    def _unit(self, features: Tensor) -> Tensor:
        return functional.normalize(features - self.learned["centre"], dim=1)


class PrincipalNeighbors(FeatureNeighbors):
    """The same by a few principal axes, which find the nearest alike in an eighth of the time. More than
    `MOST_DIMENSIONS` values are projected at random to so many before.
    """

    most_dimensions = 32

    def learn_projection(self, features: Tensor) -> None:
        width = features.shape[1]
        if width <= self.most_dimensions:
            return
        sketch = random_projection(width, MOST_DIMENSIONS) if width > MOST_DIMENSIONS else torch.eye(width)
        sketch = sketch.to(features.device)
        seen = torch.cat([self._unit(part) @ sketch for part in torch.split(features, FEATURES_AT_ONCE)])
        covariance = torch.cov(seen.T.double(), correction=min(1, len(seen) - 1))  # a single one has none
        axes = torch.linalg.eigh(covariance).eigenvectors[:, -self.most_dimensions :]
        self.learned["projection"] = sketch @ axes.float()


class PixelNeighbors(Neighbors):
    """`pixel-knn`: distance to the nearest image, pixel by pixel, of a smaller side up to 64; learns nothing."""

    most_dimensions = 4_096

    def of(self, images: Tensor, outputs: Outputs) -> Tensor:
        return shrink(images, MOST_SIDE).flatten(1)


def random_projection(size: int, dimensions: int) -> Tensor:
    """Normal draws, float32 (size, dimensions), that leave lengths as they are on average."""
    draws = torch.randn(size, dimensions, generator=torch.Generator().manual_seed(0))
    return draws / math.sqrt(dimensions)


def to_nearest(keys: Tensor, memory: Tensor) -> Tensor:
    """Euclidean distance of each key (N, D) to the nearest of the memory (M, D), (N,); never less than `SAME`."""
    squares = torch.addmm(memory.square().sum(dim=1), keys, memory.T, alpha=-2)  # (N, M), without the keys' own
    nearest = squares.argmin(dim=1)
    # Once more without a matrix product, whose rounding makes small distances depend on the batch.
    exact = (keys - memory[nearest]).square().sum(dim=1).sqrt()
    # What is remembered itself lies at 0 in a batch like that of the training, and near 0 in another one: the same
    # here, for the logarithms of such distances are far apart.
    return torch.maximum(exact, SAME * keys.square().sum(dim=1).sqrt())


def nearest_rows(rows: Tensor, others: Tensor, count: int) -> Tensor:
    """Indices (N, count) of the nearest of others (M, D) to each of the rows (N, D), the nearest first."""
    if torch.compiler.is_exporting():
        return distances(rows, others).topk(count, dim=1, largest=False).indices
    # In groups: the nearest `count` are in those `count` groups whose nearest members are nearest, and only these are
    # looked through.
    members = max(1, math.isqrt(len(others) // count))
    groups = -(-len(others) // members)
    lengths = others.square().sum(dim=1)
    found = []
    for part in torch.split(rows, ROWS_AT_ONCE if rows.device.type == "cpu" else len(rows)):
        apart = part.new_full((len(part), members * groups), torch.inf)
        torch.addmm(lengths, part, others.T, alpha=-2, out=apart[:, : len(others)])  # squares, less the rows' own
        apart = apart.view(-1, members, groups)
        near = apart.amin(dim=1).topk(count, dim=1, largest=False, sorted=False).indices  # groups, (N, count)
        few = apart.gather(2, near.unsqueeze(1).expand(-1, members, -1)).flatten(1)  # (N, members · count)
        best = few.topk(count, dim=1, largest=False).indices
        found.append(best // count * groups + near.gather(1, best % count))
    return torch.cat(found)


def distances(rows: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances (N, M) between rows (N, D) and others (M, D)."""
    if torch.compiler.is_exporting():  # N is open then, and `cdist` would go by it
        squares = rows.square().sum(dim=1, keepdim=True) + others.square().sum(dim=1) - 2 * rows @ others.T
        return squares.clamp_min(0).sqrt()
    return torch.cdist(rows, others)


def shrink(images: Tensor, largest: int) -> Tensor:
    """Images (N, C, H, W) with a smaller side of so many pixels at the most."""
    scale = largest / min(images.shape[-2:])
    if scale >= 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return functional.interpolate(images, size, mode="bilinear", antialias=True)


def last_features(images: Tensor, outputs: Outputs) -> Tensor:
    """The last feature map, (N, C'·H'·W'), or the latent."""
    return outputs.features[-1].flatten(1) if outputs.features else outputs.latent
