"""Which normal pictures a detector has not been made with."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.datasets.copies import MOST_KNOWN, Pictures, alike_known_ones, one_of_each
from anomaly_ae.datasets.decoded import decode_pictures
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import AnomalyAEError
from anomaly_ae.escaping import counted
from anomaly_ae.images.image_set import hash_rows
from anomaly_ae.images.listing import NOT_KNOWN, Listing
from anomaly_ae.images.sources import open_source
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import stage


def new_normals(detector: Detector, images: Tensor, unseen: Tensor) -> Tensor:
    """Those of `unseen`, int64 (N,), positions of normal pictures (M, C, H, W) at the detector's size, that are no
    copies, equal or saved anew, of each other and of those in the folder that it was trained on. What is left out is
    said, and of how many copies could not be looked for.
    """
    new = one_of_each(images, unseen)
    names = [name for part in detector.split.made_with for name in part.names or ()]
    if not (len(new) and names):  # equal ones of no files are known by their hashes
        return new
    with stage("looking for copies of the pictures that the detector was made with"):
        known = _still_there(detector, names)
        is_copy = alike_known_ones(known, (images, new))
    if (there := len(known[1])) < len(names):
        logger.info(
            f"copies, saved anew, are looked for of {there:,} of the {counted(len(names), 'picture')} that the "
            "detector was made with: the others are too many, or no longer in a folder at hand"
        )
    if copies := int(is_copy.sum()):
        which = counted(copies, "picture is", "pictures are")
        logger.info(f"left out: {which} as alike to some that the detector was made with as if saved anew")
    return new[~is_copy]


def _still_there(detector: Detector, names: list[bytes]) -> Pictures:
    """Those of the files with these names, relative to the folder that a detector was trained on, that hold what they
    held then; of many, an even sample. No address is opened, for nobody has named it now.
    """
    nothing = torch.zeros(0, *detector.preprocessing.shape, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    place, some = Path(detector.config.dataset), sorted(names)[:: -(-len(names) // MOST_KNOWN)]
    if not place.is_dir():
        return nothing
    unknown = np.full(len(some), NOT_KNOWN)
    try:
        decoded = decode_pictures(
            open_source(place), Listing(some, unknown, unknown), np.arange(len(some)), detector.preprocessing
        )
    except AnomalyAEError:
        return nothing
    hashes = torch.cat([part.hashes for part in detector.split.made_with]).cpu()
    return decoded.pixels, torch.isin(hash_rows(decoded.pixels), hashes).nonzero().flatten()
