"""Masks of pictures: where these are defective, as a detector sees them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.datasets.decoded import decode_files
from anomaly_ae.datasets.picture_layout import PictureLayout
from anomaly_ae.datasets.placements import by_value
from anomaly_ae.escaping import shown
from anomaly_ae.images.decode import Target
from anomaly_ae.images.listing import Listing, Source
from anomaly_ae.images.masks import check_size
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.runtime.messages import logger


@dataclass(frozen=True, eq=False)
class PictureMasks:
    """Those that a layout has of the files of a listing."""

    source: Source
    listing: Listing
    layout: PictureLayout

    def of(self, names: Sequence[bytes], preprocessing: Preprocessing) -> tuple[Tensor, Tensor] | None:
        """Of the pictures with these names: which pixels are defective, bool (N, H, W), nothing where there is no
        mask, and whether there is one, bool (N,). None when there is none at all.

        Pictures with a mask that cannot be used count as having none, and masks that mark nothing as they are; both
        are said.
        """
        masked = {self.listing.paths[picture] for picture in self.layout.masks}
        if masked.isdisjoint(names):
            return None
        masks, usable, bad = self.read(names, preprocessing)
        if preprocessing.roi:
            usable &= ~self._is_outside(names, usable & ~masks.flatten(1).any(dim=1), preprocessing)
        empty = 0 if self.layout.by_masks else int((usable & ~masks.flatten(1).any(dim=1)).sum())
        if bad:
            pictures = "its picture is" if len(bad) == 1 else "their pictures are"
            logger.info(
                f"masks: {len(bad):,} cannot be used, and {pictures} left out of the figures of pixels; the first "
                f"{bad[0]}"
            )
        if empty:
            logger.info(f"masks: {empty:,} {'marks' if empty == 1 else 'mark'} nothing as defective")
        return masks, usable

    def _is_outside(self, names: Sequence[bytes], is_empty: Tensor, preprocessing: Preprocessing) -> Tensor:
        """Which of the pictures whose masks mark nothing within the region of interest, bool (N,), have masks that
        mark something elsewhere; it is said how many.
        """
        empty = torch.nonzero(is_empty).flatten().tolist()
        outside = torch.zeros(len(names)).bool()
        if empty:
            whole, _, _ = self.read([names[i] for i in empty], replace(preprocessing, roi=None))
            outside[empty] = whole.flatten(1).any(dim=1)
        if count := int(outside.sum()):
            logger.info(
                f"masks: {count:,} mark what lies outside the region of interest, where nothing is looked for; "
                f"{'its picture is' if count == 1 else 'their pictures are'} left out of the figures of pixels, and "
                "anomalous in all others"
            )
        return outside

    def read(self, names: Sequence[bytes], preprocessing: Preprocessing) -> tuple[Tensor, Tensor, list[str]]:
        """The same, and the masks that cannot be used, each with the reason."""
        at = {self.listing.paths[picture]: picture for picture in self.layout.masks}
        pairs = [(i, mask) for i, name in enumerate(names) for mask in self.layout.masks.get(at.get(name, -1), ())]
        shape = 1, preprocessing.height, preprocessing.width
        masks, usable = torch.zeros(len(names), *shape[1:], dtype=torch.bool), torch.zeros(len(names)).bool()
        usable[[owner for owner, _ in pairs]] = True
        bad = list[str]()
        for colours, alike in by_value({pair: self.layout.colours.get(pair[1]) for pair in pairs}).items():
            target = Target(shape, preprocessing.resize_mode, mask=True, roi=preprocessing.roi, colours=colours)
            pictures = self._decode([at[names[owner]] for owner, _ in alike], Target((1, 1, 1)))
            sizes = [(int(of["width"]), int(of["height"])) for of in pictures]
            records = self._decode([mask for _, mask in alike], target)
            for (owner, mask), size, record in zip(alike, sizes, records, strict=True):
                error = record["error"].decode() or check_size((record["width"], record["height"]), size)
                if error:
                    usable[owner] = False
                    bad.append(f"{shown(self.listing.paths[mask])}: {error}")
                else:
                    masks[owner] |= torch.from_numpy(record["pixels"][0] > 0)
        masks[~usable] = False
        return masks, usable, bad

    def _decode(self, indices: Sequence[int], target: Target) -> Iterator[Any]:
        """A record for each of the files at some indices."""
        parts = decode_files(self.source, self.listing, np.array(indices), target)
        return itertools.chain.from_iterable(parts)
