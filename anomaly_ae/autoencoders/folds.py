"""Several autoencoders as one, each trained without one fold of the images: for thresholds from few images."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Outputs, Prepared, Shape
from anomaly_ae.autoencoders.tiling import inner_network
from anomaly_ae.config.run_config import RunConfig

FEWEST_FOLDS, MOST_FOLDS = 5, 10
IN_NO_FOLD = -1
# What several networks as one have as each of them has it
SAME_IN_ALL = (
    *("span", "objective", "learning_rate", "defects", "batch_size", "steps", "cheap_folds", "copies"),
    "perceived_shape",
)


def fold_count(images: int) -> int:
    """Into how many folds images are divided: each its own up to ten, else five to ten, as leaves out fewest."""
    if images <= MOST_FOLDS:
        return max(2, images)
    return min(range(FEWEST_FOLDS, MOST_FOLDS + 1), key=lambda folds: (images % folds, -folds))


def draw_folds(images: int, folds: int, seed: int) -> Tensor:
    """The fold of each image, int64 (N,), drawn by the seed. All folds are of one size, which the guarantee asks for;
    the few images that are over have -1: all learn from them.
    """
    size = images // folds
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    drawn = torch.full((images,), IN_NO_FOLD)
    drawn[order[: size * folds]] = torch.arange(folds).repeat_interleave(size)
    return drawn


class FoldAutoencoders(Autoencoder):
    """K autoencoders of one kind, the k-th of which is trained on all images but those of the k-th fold.

    Its reconstruction is the mean of theirs, its latent has theirs side by side, and its outputs have theirs as
    `members`.
    """

    goes_on = False  # each has to have seen no image of its own fold

    def __init__(self, members: Sequence[Autoencoder], shape: Shape, seed: int) -> None:
        super().__init__(shape, RunConfig())
        first, *others = members
        for member in others:
            member.borrow(first)
        self.members, self.seed = nn.ModuleList(members), seed
        self.latent_shape = (len(members), *first.latent_shape)
        for name in SAME_IN_ALL:
            setattr(self, name, getattr(first, name))
        # Past `nn.Module`, which would give every weight a second name in the state, and safetensors refuses that.
        vars(self)["encoder"] = nn.Sequential(SideBySide([member.encoder for member in members]))
        vars(self)["decoder"] = nn.Sequential(MeanPicture([member.decoder for member in members]))

    def __iter__(self) -> Iterator[Autoencoder]:
        for member in self.members:
            assert isinstance(member, Autoencoder)
            yield member

    @property
    def first(self) -> Autoencoder:
        """The one that has what all share."""
        return next(iter(self))

    def begin(self, config: RunConfig) -> None:
        for member in self:
            member.begin(config)

    def prepare(self, fit: Tensor, validation: Tensor) -> Prepared:
        prepared = self.first.prepare(fit, validation)
        for member, rows in self.learners(len(prepared.fit)):
            member.settle(prepared.fit, rows)
        return prepared

    def perceive(self, images: Tensor) -> Tensor:
        return self.first.perceive(images)

    def folds_of(self, images: int) -> Tensor:
        """The fold of each of so many images, int64 (N,), as `draw_folds` has it."""
        return draw_folds(images, len(self.members), self.seed)

    def learners(self, count: int) -> list[tuple[Autoencoder, Tensor]]:
        drawn = self.folds_of(count // self.copies).repeat(self.copies)
        return [(member, torch.nonzero(drawn != fold).flatten()) for fold, member in enumerate(self)]

    def forward(self, images: Tensor) -> Outputs:
        """images: or what was perceived of them"""
        seen = self._perceived(images)
        return _as_one([member(seen) for member in self])

    def undecoded(self, images: Tensor) -> Outputs:
        seen = self._perceived(images)
        return _as_one([member.undecoded(seen) for member in self])

    def _perceived(self, images: Tensor) -> Tensor:
        return images if images.shape[1:] == self.perceived_shape else self.perceive(images)

    def outline(self, shape: Shape) -> Outputs:
        return _as_one([self.first.outline(shape)] * len(self.members))


def latent_size(network: Autoencoder) -> int:
    """The latent dimensions of the network that sees the images, or their tiles; of folds, of each."""
    return inner_network(network.first if isinstance(network, FoldAutoencoders) else network).latent_size


def _as_one(outputs: Sequence[Outputs]) -> Outputs:
    reconstruction = outputs[0].reconstruction
    if not reconstruction.is_meta:  # which has no values, and a mean of such ones takes seconds of imports
        reconstruction = torch.stack([each.reconstruction for each in outputs]).mean(dim=0)
    return Outputs(reconstruction, torch.cat([each.latent for each in outputs], dim=1), members=tuple(outputs))


class SideBySide(nn.Module):
    """Images (N, C, H, W) to the latents of K encoders side by side, (N, K·D)."""

    def __init__(self, encoders: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([encoder(images) for encoder in self.encoders], dim=1)


class MeanPicture(nn.Module):
    """Latents side by side, (N, K·D), to the mean of the images that K decoders make of theirs, (N, C, H, W)."""

    def __init__(self, decoders: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(decoders)

    def forward(self, latents: Tensor) -> Tensor:
        parts = latents.chunk(len(self.decoders), dim=1)
        return torch.stack([decoder(part) for decoder, part in zip(self.decoders, parts, strict=True)]).mean(dim=0)
