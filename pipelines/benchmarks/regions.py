"""How many defects have a region, and how many regions normal pictures have that are none.

    anomaly-ae train --dataset FOLDER --preset surface
    python pipelines/benchmarks/regions.py FOLDER DETECTOR

FOLDER has MVTec's layout, with masks of the defects in `ground_truth`; DETECTOR is a run or a saved detector that was
trained on it. A defect is a connected part of a mask at the picture's own size; it is hit when a pixel of it lies in
a region of its picture, by the mask that `score --masks` would write. Regions of the good test pictures are false;
those of defective ones that touch no defect are told as well.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import label

from anomaly_ae import Detector, load
from anomaly_ae.images.decode import put_mask_back
from anomaly_ae.images.masks import find_defects
from anomaly_ae.metrics.ranking import proportion_interval

Mask = npt.NDArray[np.bool_]
TOUCHING = np.ones((3, 3))  # 8 neighbours


@dataclass(frozen=True)
class Found:
    """What came of a picture: whether each defect is hit, how many regions touch none, whether it is anomalous."""

    hits: list[bool]
    false: int
    is_anomalous: bool


def regions_of(detector: Detector, path: Path) -> Mask:
    """The pixels of a picture that lie in regions."""
    with Image.open(path) as picture:
        maps, size = detector.anomaly_map(picture), picture.size
    assert maps is not None
    assert detector.heat_level is not None
    return put_mask_back(maps[0].numpy() > detector.heat_level, size, detector.preprocessing.target)


def compare(above: Mask, defective: Mask, is_anomalous: bool) -> Found:
    """Regions against defects, both as pixels of one picture."""
    defects, count = label(defective, TOUCHING)
    hits = [bool(above[defects == i].any()) for i in range(1, count + 1)]
    regions, found = label(above, TOUCHING)
    return Found(hits, found - len(np.unique(regions[defective & above])), is_anomalous)


def measure(detector: Detector, folder: Path) -> tuple[list[Found], list[Found]]:
    """The good test pictures, and the defective ones that have a mask."""
    good, bad = list[Found](), list[Found]()
    for path in sorted((folder / "test").glob("*/*")):
        above = regions_of(detector, path)
        with Image.open(path) as picture:
            alarm = bool(detector.predict(picture).item())
        mask = folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        if path.parent.name == "good":
            good.append(compare(above, np.zeros_like(above), alarm))
        elif mask.exists():
            with Image.open(mask) as image:
                bad.append(compare(above, find_defects(image), alarm))
    return good, bad


def share(count: int, of: int) -> str:
    """A share with its exact 95 % interval."""
    low, high = proportion_interval(count, of)
    return f"{count} of {of}, {100 * count / of:.1f} % (95 %: {100 * low:.1f} to {100 * high:.1f})"


def main(folder: str, model: str) -> None:
    """Print what came out."""
    good, bad = measure(load(model), Path(folder))
    hits = [hit for each in bad for hit in each.hits]
    alarms = [each for each in bad if each.is_anomalous]
    print(f"defects hit: {share(sum(hits), len(hits))}")
    print(f"defective pictures with a defect hit: {share(sum(any(each.hits) for each in bad), len(bad))}")
    print(f"the same of those above the threshold: {share(sum(any(each.hits) for each in alarms), len(alarms))}")
    print(f"false regions per good picture: {sum(each.false for each in good) / len(good):.3f}")
    print(f"good pictures with a region: {share(sum(each.false > 0 for each in good), len(good))}")
    print(f"regions beside the defects, per defective picture: {sum(each.false for each in bad) / len(bad):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
