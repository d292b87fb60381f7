"""The images that a threshold is set by: normal ones, and known anomalies."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.datasets.builtin import DATASETS
from anomaly_ae.datasets.catalogue import normal_there, open_data, whole_name
from anomaly_ae.datasets.copies import called_one_way, one_of_each
from anomaly_ae.datasets.decoded import decode_pictures
from anomaly_ae.datasets.image_folder import PictureData
from anomaly_ae.datasets.layout_texts import TO_CALIBRATE, say_left_out_of
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DataError, UsageError
from anomaly_ae.escaping import counted, counted_as
from anomaly_ae.images.folder_words import sense
from anomaly_ae.images.image_set import hash_rows
from anomaly_ae.images.listing import Listing, Source
from anomaly_ae.images.preprocessing import Preprocessed
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scoring.encode import score_images
from anomaly_ae.scoring.marks import BAD, GOOD
from anomaly_ae.storage.atomic import expand
from anomaly_ae.storage.memmap import take_rows
from anomaly_ae.workflows.marked import MarkedImages
from anomaly_ae.workflows.new_pictures import ALL_KNOWN, new_normals


@dataclass(frozen=True)
class Normals:
    """Scores of normal images, (N,), where they come from, and what is to be said of them.

    images: themselves, (N, C, H, W), where they are new; names: of their files, if they come from any
    """

    scores: Tensor
    source: str
    names: tuple[bytes, ...] | None = None
    images: Tensor | None = None
    unreadable: int = 0
    left_out: int = 0
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Anomalies:
    """Scores of known anomalies, (M,), where they come from, and themselves, (M, C, H, W)."""

    scores: Tensor
    source: str
    images: Tensor
    unreadable: int


def find_anomalies(detector: Detector, folder: str | Path | None, marked: MarkedImages | None) -> Anomalies | None:
    """The known anomalies, if there are any. Raises `DataMissing` where the folder has none."""
    if folder is not None:
        scored = score_images(detector, *_anomalous_pictures(str(folder)))
        source = str(expand(folder).resolve())
        try:
            new = detector.unseen(scored.images)
        except DataError as error:
            raise DataError(f"{error}: those in {source}, of anomalies") from error
        return Anomalies(scored.scores[new], source, take_rows(scored.images, new), len(scored.errors))
    if marked and marked.used.bad:
        bad = marked.of(detector, BAD)
        return Anomalies(bad.scores, marked.place, bad.images, bad.unreadable)
    return None


def apart(normals: Normals, anomalies: Anomalies) -> tuple[Normals, Anomalies]:
    """Both without the pictures that are in both. Raises `DataError` where those are all of either."""
    if normals.images is None:
        return normals, anomalies
    hashes, count = torch.cat([hash_rows(normals.images), hash_rows(anomalies.images)]), len(normals.images)
    clear = called_one_way(hashes, torch.arange(len(hashes)) < count)
    if clear.all():
        return normals, anomalies
    new, others = (part.nonzero().flatten() for part in clear.tensor_split([count]))
    names, left_out = normals.names, normals.left_out + count - len(new)
    return (
        replace(
            normals,
            scores=normals.scores[new],
            images=take_rows(normals.images, new),
            names=names and tuple(names[i] for i in new.tolist()),
            left_out=left_out,
        ),
        replace(anomalies, scores=anomalies.scores[others], images=take_rows(anomalies.images, others)),
    )


def _marked_normals(detector: Detector, marked: MarkedImages) -> Normals:
    """The scores of images marked as good."""
    good, used = marked.of(detector, GOOD), marked.used
    differences = list(detector.differences(Preprocessed(good.images)))
    if used.unmarked > 0:
        differences.append(
            f"{counted_as(used.unmarked, 'pictures')} beside them without a mark; the rate holds for images like "
            "those marked good, and not for all if these were picked by their scores: mark all, or some at random"
        )
    return Normals(
        good.scores, marked.place, good.names, good.images, good.unreadable, good.left_out, tuple(differences)
    )


def find_normals(
    detector: Detector,
    dataset: str | None,
    data_dir: str | None,
    folder: str | Path | None,
    marked: MarkedImages | None,
) -> Normals:
    """The scores to calibrate on: of new normal images, or the detector's own."""
    if marked and marked.used.good:
        return _marked_normals(detector, marked)
    if dataset and folder:
        raise UsageError(
            f"normal images come from {setting('dataset')} or from {setting('normal_folder')}, and both were given"
        )
    if folder:
        files, normal, others = _normal_pictures(detector, str(folder))
        scored = score_images(detector, files, normal)
        source = str(expand(folder).resolve())
        anomalous = decode_pictures(files, others, np.arange(len(others.paths)), detector.preprocessing).pixels
        new = _new_ones(detector, scored.images, hash_rows(anomalous))
        left_out = len(scored.images) - len(new)
        names = tuple(scored.names[i] for i in new.tolist())
        images, errors = take_rows(scored.images, new), len(scored.errors)
        return Normals(scored.scores[new], source, names, images, errors, left_out, tuple(scored.differences))
    if not dataset:
        own = detector.calibration
        return Normals(own.scores, "the same images as before", own.names)
    images, of_others = _images_of(detector, dataset, data_dir)
    is_named = dataset in DATASETS
    new = one_of_each(images, detector.unseen(images), False) if is_named else _new_ones(detector, images, of_others)
    left_out, images = len(images) - len(new), images[new]
    seen = Preprocessed(images)
    differences = tuple(detector.differences(seen))
    return Normals(detector.score(seen), dataset, images=images, left_out=left_out, differences=differences)


def _new_ones(detector: Detector, images: Tensor, others: Tensor) -> Tensor:
    """Positions of the images that it was not made with, nor with what they are copies of, and that are not called
    anomalous, too. Raises `DataError` when none is left.

    others: the hashes of those that are called so, int64 (N,)
    """
    both, unseen = torch.isin(hash_rows(images), others), detector.unseen(images)
    if count := int(both.sum()):
        logger.info(f"left out: {counted(count, 'picture that is', 'pictures that are')} both normal and not")
    if both.all():
        raise DataError("all of these pictures are called anomalous, too; name others")
    new = new_normals(detector, images, unseen[~both[unseen]])
    if not len(new):
        raise DataError(ALL_KNOWN)
    return new


def _normal_pictures(detector: Detector, folder: str) -> tuple[Source, Listing, Listing]:
    """The normal ones of the pictures below a folder, and the others. Raises `UsageError` where none is normal."""
    data = PictureData.open(folder).as_one()
    alone = len(data.classes) == 1 and sense(data.classes[0]) >= 0  # the user says that it is normal
    normal = data.classes if alone else normal_there(detector.normal, detector.classes, data)
    if data.layout.doubt and normal:
        logger.warning(data.layout.doubt)
    if not normal:
        raise UsageError(
            f"there is no normal picture in {data.name}; its classes are {', '.join(data.classes)}; name a folder of "
            "normal ones"
        )
    positions = [data.classes.index(name) for name in normal]
    logger.info(data.describe(positions, TO_CALIBRATE))
    others = {*range(len(data.classes))} - {*positions}
    return data.source, data.of_classes(positions), data.of_classes(others)


def _anomalous_pictures(folder: str) -> tuple[Source, Listing]:
    """The pictures below a folder but for those in folders that are called good, normal …"""
    data = PictureData.open(folder).as_one()
    say_left_out_of(data.listing, data.layout)
    classes = [i for i, name in enumerate(data.classes) if len(data.classes) == 1 or sense(name) <= 0]
    return data.source, data.of_classes(classes)


def _images_of(detector: Detector, name: str, data_dir: str | None) -> tuple[Tensor, Tensor]:
    """The images of another data set whose classes are normal, at the detector's size, and the others' hashes."""
    if whole_name(name, data_dir) == detector.config.dataset:
        raise UsageError(
            f"the detector was trained on {name}; name images that it has not seen, or leave {setting('dataset')} "
            "out to keep those that were held back for its calibration"
        )
    data = open_data(name, data_dir)
    normal = normal_there(detector.normal, detector.classes, data)
    if not normal:
        raise UsageError(
            f"{name} has no class that is normal to the detector; its classes are {', '.join(data.classes)}, and "
            f"normal are {', '.join(detector.normal)}"
        )
    wanted = torch.tensor([data.classes.index(each) for each in normal])
    if isinstance(data, PictureData):
        logger.info(data.describe(wanted.tolist(), TO_CALIBRATE))
    dataset = data.load(detector.preprocessing)
    files = [detector.preprocessing.prepare_set(file, dataset) for file in dataset.files.values()]
    normals = [torch.isin(file.labels, wanted) for file in files]
    images = torch.cat([file.images[those] for file, those in zip(files, normals, strict=True)])
    return images, torch.cat([file.hashes()[~those] for file, those in zip(files, normals, strict=True)])
