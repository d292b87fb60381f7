"""Large images in overlapping tiles: an autoencoder of tiles made one of whole images, and crops to train it on.

Below, T tiles of h×w pixels cover an image of H×W, and D is the size of a tile's latent.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from anomaly_ae.autoencoders.autoencoder import Autoencoder, Outputs, Shape
from anomaly_ae.autoencoders.blocks import Size
from anomaly_ae.autoencoders.inference import batch_size, split_batches
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting

MOST_TILES = 2**16  # of an image
OVERLAP = 0.25  # the least share of a tile, of two pixels or more a side, that the next one covers too


def tile_starts(side: int, tile: int) -> list[int]:
    """Where tiles of `tile` pixels begin along `side` pixels: the first at 0, the last ending with the side, as few
    as overlap by `OVERLAP`, and evenly spread to the pixel, e.g. 0, 72, 144 for 240 and 96.

    Raises `UsageError` when not one tile fits.
    """
    _require_room((side, side), (tile, tile))
    step = max(1, tile - math.ceil(OVERLAP * tile))  # a tile of one pixel has nothing to share
    room = side - tile
    gaps = -(-room // step)  # rounded up
    return [0, *(room * i // gaps for i in range(1, gaps + 1))]  # no two further apart than room/gaps rounded up


def shares(starts: Sequence[int], tile: int, side: int) -> Tensor:
    """How much each tile counts for each of its pixels, float32 (T, tile), in (0, 1]; of the tiles over a pixel, 1.

    Before they are made to sum to 1 they fall linearly from the tile's middle to its border, 1, 2, 3, 2, 1, where
    a network knows least of what surrounds a pixel.
    """
    ramp = torch.arange(1.0, tile + 1)
    weights, total = torch.minimum(ramp, ramp.flip(0)), torch.zeros(side)
    for start in starts:
        total[start : start + tile] += weights
    return torch.stack([weights / total[start : start + tile] for start in starts])


@dataclass(frozen=True)
class Grid:
    """Tiles that cover images, row by row.

    image: H and W
    tile:  h and w
    """

    image: Size
    tile: Size

    def __post_init__(self) -> None:
        _require_room(self.image, self.tile)
        if len(self) > MOST_TILES:
            raise UsageError(
                f"{len(self):,} tiles of {self.tile[0]}×{self.tile[1]} are more than {MOST_TILES:,}; "
                f"name larger tiles, or a smaller {setting('image_size')}"
            )

    @cached_property
    def rows(self) -> list[int]:
        """Where tiles begin from above."""
        return tile_starts(self.image[0], self.tile[0])

    @cached_property
    def columns(self) -> list[int]:
        """Where tiles begin from the left."""
        return tile_starts(self.image[1], self.tile[1])

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def is_tile(self, images: Tensor) -> bool:
        """Whether images or maps (N, C, ?, ?) have the size of a tile."""
        return images.shape[-2:] == self.tile

    def cut(self, images: Tensor) -> Tensor:
        """The tiles (N·T, C, h, w), an image's one after another, of images (N, C, H, W).

        Raises `UsageError` when they are of another size.
        """
        if images.shape[-2:] != self.image:
            whole, tile, actual = ("×".join(map(str, size)) for size in (self.image, self.tile, images.shape[-2:]))
            raise UsageError(f"this network takes images of {whole} pixels, or of {tile}, and these are {actual}")
        (height, width), places = self.tile, itertools.product(self.rows, self.columns)
        tiles = [images[..., y : y + height, x : x + width] for y, x in places]
        return torch.stack(tiles, dim=1).flatten(0, 1)  # (N, T, C, h, w) -> (N·T, C, h, w)

    def blend(self, tiles: Tensor) -> Tensor:
        """Maps (N, C, H, W) of those of the tiles, (N·T, C, h, w), as float32; where tiles overlap, by `shares`."""
        down, across = len(self.rows), len(self.columns)
        # (N·T, C, h, w) -> (N, down, across, C, h, w)
        grid = tiles.float().reshape(-1, down, across, *tiles.shape[1:])
        strips = _blend(grid.unbind(2), self.columns, self.image[1], dim=-1)  # (N, down, C, h, W)
        return _blend(strips.unbind(1), self.rows, self.image[0], dim=-2)  # (N, C, H, W)

    def by_image(self, values: Tensor) -> Tensor:
        """What belongs to the tiles, (N·T, …), by image, (N, T, …)."""
        return values.reshape(-1, len(self), *values.shape[1:])

    def split_batches(self, tiles: Tensor, training: bool) -> Sequence[Tensor]:
        """The tiles, or their latents, so many at a time as a network may get; in training all, for batch norm is to
        see the whole batch, and what it sees is not to depend on a limit.
        """
        return [tiles] if training else split_batches(tiles, batch_size(*self.tile))


class Tiled(Autoencoder):
    """An autoencoder of tiles as one of larger images, which it sees in overlapping tiles.

    Reconstructions and heads that are maps of a tile's size are blended; heads of the latent's shape lie side by side
    as the latents do, others are the means over the tiles.
    The latent is the tiles' latents side by side, (N, T·D), so that it says all that `decode` needs; there are no
    features, for the maps of two tiles need not fit together. Images of a tile's size, as it is trained on, go
    straight through the inner network, and so do latents of one tile. Images of any other size raise `UsageError`.

    inner: built for (C, h, w); its parameters are all that there are
    shape: C, H, W of the images, no side shorter than the tile's
    tile:  h, w
    """

    def __init__(self, inner: Autoencoder, shape: Shape, tile: Size) -> None:
        super().__init__(shape, RunConfig())
        self.inner, self.grid = inner, Grid(shape[1:], tile)
        self.latent_shape = (len(self.grid), *inner.latent_shape)
        self.span, self.objective, self.learning_rate = inner.span, inner.objective, inner.learning_rate
        self.defects = inner.defects
        # Past `nn.Module`, which would give every weight a second name in the state, and safetensors refuses that.
        vars(self)["encoder"] = nn.Sequential(TileEncoder(inner.encoder, self.grid))
        vars(self)["decoder"] = nn.Sequential(TileDecoder(inner.decoder, self.grid, inner.latent_size))

    def encode(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.inner.encode(images) if self.grid.is_tile(images) else super().encode(images)

    def forward(self, images: Tensor) -> Outputs:
        if self.grid.is_tile(images):
            passed: Outputs = self.inner(images)
            return passed
        batches = self.grid.split_batches(self.grid.cut(images), self.inner.training)
        parts: list[Outputs] = [self.inner(tiles)._replace(features=()) for tiles in batches]
        latents = torch.cat([part.latent for part in parts])
        heads = {name: torch.cat([part.heads[name] for part in parts]) for name in parts[0].heads}
        return Outputs(
            _picture(self.grid, torch.cat([part.reconstruction for part in parts])),
            self.grid.by_image(latents).flatten(1),  # (N, T, D) -> (N, T·D)
            heads={name: self._whole(head) for name, head in heads.items()},
        )

    def outline(self, shape: Shape) -> Outputs:
        heads = self.inner.outline((shape[0], *self.grid.tile)).heads
        return Outputs(torch.zeros(1).expand(1, *shape), torch.zeros(1, self.latent_size), heads=heads)

    def _whole(self, head: Tensor) -> Tensor:
        """A head of the tiles, (N·T, …), as one of the images, (N, …)."""
        if head.ndim == 4 and self.grid.is_tile(head):
            return self.grid.blend(head)
        by_image = self.grid.by_image(head)
        is_latent = head[0].shape == (self.inner.latent_size,)  # such as a mean, which the ELBO sums over
        return by_image.flatten(1) if is_latent else by_image.mean(dim=1)


def inner_network(network: Autoencoder) -> Autoencoder:
    """The network that sees the tiles, or the images themselves."""
    return network.inner if isinstance(network, Tiled) else network


class TileEncoder(nn.Module):
    """Images (N, C, H, W) to the latents of their tiles side by side, (N, T·D); images of one tile to (N, D)."""

    def __init__(self, inner: nn.Sequential, grid: Grid) -> None:
        super().__init__()
        self.inner, self.grid = inner, grid

    def forward(self, images: Tensor) -> Tensor:
        if self.grid.is_tile(images):
            latents: Tensor = self.inner(images)
            return latents
        batches = self.grid.split_batches(self.grid.cut(images), self.inner.training)
        of_tiles = torch.cat([self.inner(tiles) for tiles in batches])  # (N·T, D)
        return self.grid.by_image(of_tiles).flatten(1)  # (N, T, D) -> (N, T·D)


class TileDecoder(nn.Module):
    """Latents of tiles side by side, (N, T·D), to images (N, C, H, W); latents of one tile, (N, D), to its image."""

    def __init__(self, inner: nn.Sequential, grid: Grid, latent: int) -> None:
        super().__init__()
        self.inner, self.grid, self.latent = inner, grid, latent

    def forward(self, latents: Tensor) -> Tensor:
        if latents.shape[1] == self.latent:
            tiles: Tensor = self.inner(latents)
            return tiles
        apart = latents.reshape(len(latents) * len(self.grid), self.latent)  # (N, T·D) -> (N·T, D)
        batches = self.grid.split_batches(apart, self.inner.training)
        return _picture(self.grid, torch.cat([self.inner(batch) for batch in batches]))


def random_crops(images: Tensor, size: Size) -> Tensor:
    """One part of `size` of each image, (N, C, h, w), at a random place, of images (N, C, H, W) of any type; the
    images themselves where they have that size.

    Raises `UsageError` when they are smaller.
    """
    count, _, height, width = images.shape
    if (height, width) == size:
        return images
    _require_room((height, width), size)
    rows, columns = (  # int64 (N, h) and (N, w), drawn on the CPU, so that the seed gives the same on every device
        (torch.randint(whole - part + 1, (count, 1)) + torch.arange(part)).to(images.device)
        for whole, part in zip((height, width), size, strict=True)
    )
    each = torch.arange(count, device=images.device)[:, None, None]
    crops = images[each, :, rows[:, :, None], columns[:, None, :]]  # (N, h, w, C)
    return crops.permute(0, 3, 1, 2)


def _require_room(image: Size, tile: Size) -> None:
    """Raise `UsageError` when a tile has no pixels, or more than the image along a side."""
    if not all(1 <= part <= whole for part, whole in zip(tile, image, strict=True)):
        raise UsageError(
            f"images of {image[0]}×{image[1]} pixels have no tiles of {tile[0]}×{tile[1]}; name smaller tiles, of "
            f"1 pixel or more, or a larger {setting('image_size')}"
        )


def _picture(grid: Grid, tiles: Tensor) -> Tensor:
    """Images (N, C, H, W) of tiles (N·T, C, h, w), both in [0, 1]."""
    return grid.blend(tiles).clamp(0, 1)  # which rounding may leave, and the binary cross-entropy refuses that


def _blend(parts: Sequence[Tensor], starts: Sequence[int], side: int, dim: int) -> Tensor:
    """Parts that start there along a dimension, counted from the last, as one whole of length `side`."""
    size, tile = list(parts[0].shape), parts[0].shape[dim]
    size[dim] = side
    whole = parts[0].new_zeros(size)
    counts = shares(starts, tile, side).to(whole.device)
    for part, start, share in zip(parts, starts, counts, strict=True):
        whole.narrow(dim, start, tile).add_(part * share.view(-1, *[1] * (-1 - dim)))  # (tile,), (tile, 1) …
    return whole
