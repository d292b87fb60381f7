"""Which normal pictures a detector has not been made with."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.datasets.copies import MOST_KNOWN, Pictures, alike_known_ones, one_of_each
from anomaly_ae.datasets.decoded import decode_pictures
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import AnomalyAEError
from anomaly_ae.escaping import counted
from anomaly_ae.images.image_set import hash_rows
from anomaly_ae.images.listing import Listing
from anomaly_ae.images.sources import Folder, open_source
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import stage

ALL_KNOWN = "the detector was made with what these pictures are copies of; name others"


def new_normals(detector: Detector, images: Tensor, unseen: Tensor) -> Tensor:
    """Those of `unseen`, int64 (N,), positions of normal pictures (M, C, H, W) at the detector's size, that are no
    copies, equal or saved anew, of each other and of those in the folder that it was trained on. What is left out is
    said, and of how many copies could not be looked for.
    """
    new = one_of_each(images, unseen)
    names = sorted(name for part in detector.split.made_with for name in part.names or ())
    if not (len(new) and names):  # equal ones of no files are known by their hashes
        return new
    some = [names[i] for i in np.linspace(0, len(names) - 1, min(MOST_KNOWN, len(names))).astype(int)]
    with stage("looking for copies of the pictures that the detector was made with"):
        known = _still_there(detector, some)
        is_copy = alike_known_ones(known, (images, new))
    if (there := len(known[1])) < len(names):
        lost = len(some) - there
        gone = f"{counted(lost, 'is', 'are')} not in a folder at hand any more as it was" if lost else ""
        why = " and ".join(filter(None, ["an even sample is taken" if len(some) < len(names) else "", gone]))
        logger.info(
            f"copies, saved anew, are looked for of {there:,} of the {counted(len(names), 'picture')} that the "
            f"detector was made with: {why}"
        )
    if copies := int(is_copy.sum()):
        which = counted(copies, "picture is", "pictures are")
        logger.info(f"left out: {which} as alike to some that the detector was made with as if saved anew")
    return new[~is_copy]


def _still_there(detector: Detector, names: Sequence[bytes]) -> Pictures:
    """Those of the files with these names, relative to the folder that a detector was trained on, that hold what they
    held then. No address is opened, for nobody has named it now.
    """
    nothing = torch.zeros(0, *detector.preprocessing.shape, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    try:
        source = open_source(detector.config.dataset)
        if not isinstance(source, Folder):
            return nothing
        about = {name: found for name in names if (found := source.about(name))}
        sizes, times = np.array([*about.values()], np.int64).reshape(-1, 2).T
        listing = Listing([*about], sizes, times)
        decoded = decode_pictures(source, listing, np.arange(len(about)), detector.preprocessing)
    except (AnomalyAEError, OSError):
        return nothing
    hashes = torch.cat([part.hashes for part in detector.split.made_with]).cpu()
    return decoded.pixels, torch.isin(hash_rows(decoded.pixels), hashes).nonzero().flatten()
