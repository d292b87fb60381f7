"""`Detector`: preprocessing, network, scorer and calibration as one thing that is saved, loaded and used."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from anomaly_ae.autoencoders import Autoencoder, Outputs
from anomaly_ae.autoencoders.inference import Read, map_images, map_jointly, map_latents, pick_device
from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.discoveries import Discoveries
from anomaly_ae.calibration.drift import Drift, measure_drift
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.catalogue import Data
from anomaly_ae.datasets.splits import Part, Split
from anomaly_ae.detector.regions import Region, RegionFinder
from anomaly_ae.detector.serialization import (
    DETECTOR_FORMAT,
    JSON_FILE,
    NETWORK,
    PEAKS,
    SCORER,
    SPLIT,
    WEIGHTS_FILE,
    CalibrationRecord,
    DetectorRecord,
    calibration_tensors,
    check_target,
    damaged,
    digest_of,
    read_detector,
)
from anomaly_ae.errors import DataError, UsageError
from anomaly_ae.escaping import counted, printable, short_name, times
from anomaly_ae.images.image_set import ImageSet, hash_rows
from anomaly_ae.images.preprocessing import Images, Preprocessed, Preprocessing, size_of, sizes_of
from anomaly_ae.images.statistics import Profile, gray_words, is_gray, size_difference
from anomaly_ae.metrics.ranking import require_numbers
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.renamed import say_renamed
from anomaly_ae.scorers import MapScorer, Scorer
from anomaly_ae.scorers.fold_scorer import map_part, score_and_map
from anomaly_ae.storage.atomic import expand, sha256, write_bytes, write_folder, write_json
from anomaly_ae.storage.schema import Mismatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from anomaly_ae import FolderScores

Made = TypeVar("Made")


@dataclass(frozen=True)
class Detector:
    """Scores images and says which are anomalous.

    Images are a tensor or NumPy array, uint8, or float in [0, 1], (N, C, H, W), or an image of Pillow, or a list of
    them, and are resized to the size in `preprocessing`, H×W below, where they have another; what is no such thing
    raises `DataError`. Results are tensors on the CPU.

    Examples:
        >>> import anomaly_ae
        >>> from sklearn.datasets import load_digits
        >>> images = load_digits().images[:10, None] / 16  # the digits 0 to 9, float in [0, 1], (N, C, H, W)
        >>> detector = anomaly_ae.load("latest")
        >>> detector
        Detector('digits 0,1,2 · conv · aligned-knn', images=1×8×8, threshold=..., target_fpr=0.05, marginal)
        >>> scores = detector.score(images)
        >>> scores > detector.threshold
        tensor([False, False, False,  True, ...])
        >>> detector.p_values(scores) <= 0.05  # which says the same
        tensor([False, False, False,  True, ...])
        >>> detector.anomaly_map(images).shape, detector.encode(images).shape
        (torch.Size([10, 8, 8]), torch.Size([10, 12]))
    """

    config: RunConfig
    classes: tuple[str, ...]
    normal: tuple[str, ...]
    preprocessing: Preprocessing
    network: Autoencoder
    scorer: Scorer
    calibration: Calibration
    split: Split
    profile: Profile
    # of the heat map: as few normal images exceed it anywhere as the rate allows that it was trained for; and what it
    # comes from, the highest values of the maps of calibration images, float32 (M,), ascending
    heat_level: float | None = None
    heat_peaks: Tensor | None = None

    def __repr__(self) -> str:
        images = f"images={times(self.preprocessing.shape)}"
        calibration = f"threshold={self.threshold:.4f}, target_fpr={self.calibration.target_fpr:g}"
        return f"Detector({self.name!r}, {images}, {calibration}, {self.calibration.guarantee})"

    @property
    def name(self) -> str:
        """What it is, in a few words."""
        about = f"{short_name(self.config.dataset)} {','.join(self.normal)}"
        return printable(f"{about} · {self.config.autoencoder} · {self.config.scorer}")

    @property
    def normal_indices(self) -> list[int]:
        """Indices of the normal classes in `classes`."""
        return [self.classes.index(name) for name in self.normal]

    @property
    def threshold(self) -> float:
        """The score above which an image is called anomalous."""
        return self.calibration.threshold

    def score(self, images: Images) -> Tensor:
        """Scores, float32 (N,); higher is more anomalous."""
        return self._all(images, self.scorer.score_all)

    def p_values(self, scores: Tensor) -> Tensor:
        """p-values, float64 (N,), of scores (N,): how often a normal image scores at least so high.

        Raises `DataError` for a score that is no number.
        """
        return self.calibration.p_values(torch.as_tensor(scores))

    def discoveries(self, scores: Tensor, fdr: float) -> Discoveries:
        """Which images of a batch with scores (N,) are anomalous at a false discovery rate, in (0, 1).

        Raises `CalibrationError` unless the calibration is `marginal`.
        """
        return self.calibration.discoveries(torch.as_tensor(scores), fdr)

    def drift(self, scores: Tensor) -> Drift | None:
        """Whether scores (N,) of a batch as a whole have moved from those of the calibration, of all its groups if it
        has several; None if too few. Raises `DataError` for a score that is no number.
        """
        return measure_drift(torch.as_tensor(scores), self.calibration.scores_by_group)

    def differences(self, images: Images) -> list[str]:
        """How images look unlike those of the training altogether: inverted, brighter, clipped, without
        colour, of another size.
        """
        prepared, brightness = self.preprocessing.prepare_and_compare(images)
        size = size_of(images) if isinstance(images, Preprocessed) else self.preprocessing.part_size(size_of(images))
        stretched = size_difference(size, self.preprocessing.shape[1:], self.preprocessing.resize_mode)
        unlike = [*self.profile.differences(prepared), *self.without_colour(is_gray(prepared))]
        return [*([stretched] if stretched else []), *brightness, *unlike]

    def without_colour(self, gray: Tensor) -> list[str]:
        """The same of images that are gray or not, bool (N,); nothing where it was asked to see so many channels."""
        return [] if self.config.channels else gray_words(gray)

    def predict(self, images: Images) -> Tensor:
        """Whether each image is anomalous, bool (N,): its score is above the threshold.

        Raises `DataError` for a score that is no number.
        """
        scores = self.score(images)
        require_numbers(scores)
        return scores > self.threshold

    def score_folder(self, place: str | Path, *, workers: int | None = None) -> "FolderScores":
        """`anomaly_ae.score_folder` with this detector."""
        from anomaly_ae import score_folder  # the public name, for a detector is a part of what works on folders

        return score_folder(self, place, workers=workers)

    def plot(self, images: Images) -> "Figure":
        """`anomaly_ae.plot` with this detector: the images, what it makes of them, and their scores."""
        from anomaly_ae import plot

        return plot(self, images)

    def reconstruct(self, images: Images) -> Tensor:
        """Reconstructions, float32 (N, C, H, W), in [0, 1]."""
        return self._each(images, lambda _, outputs: outputs.reconstruction)

    def encode(self, images: Images) -> Tensor:
        """Latents, float32 (N, D)."""
        return self._each(images, lambda _, outputs: outputs.latent, decoded=False)

    def decode(self, latents: Tensor) -> Tensor:
        """Images, float32 (N, C, H, W) in [0, 1], of latents, float32 (N, D)."""
        return map_latents(self.network, latents, self.preprocessing.shape)

    def anomaly_map(self, images: Images) -> Tensor | None:
        """The part of each pixel in the score, float32 (N, H, W); for a combination, in its first part with a map.

        None when the scorer has no heat map.
        """
        scorer = self.map_scorer
        return None if scorer is None else self._all(images, scorer.map_all)

    def score_and_map(self, images: Images) -> tuple[Tensor, Tensor | None]:
        """`score`, bit for bit, and `anomaly_map` in one pass of the network."""
        if self.map_scorer is None:
            return self.score(images), None
        read, decoded = partial(score_and_map, self.scorer), self.scorer.reads_reconstruction
        scores, maps = self._all(images, partial(map_jointly, read=read, decoded=decoded))
        return scores, maps

    def reconstruct_and_map(self, images: Images) -> tuple[Tensor, Tensor | None]:
        """`reconstruct`, and `anomaly_map`, in one pass of the network."""
        if (scorer := self.map_scorer) is None:
            return self.reconstruct(images), None

        def read(pixels: Tensor, outputs: Outputs) -> list[Tensor]:
            return [outputs.reconstruction, scorer.anomaly_map(pixels, outputs)]

        rebuilt, maps = self._all(images, partial(map_jointly, read=read))
        return rebuilt, maps

    def regions(self, images: Images) -> list[list[Region]]:
        """For each image its anomalous regions: the connected parts of its anomaly map above the level that normal
        images rarely reach, the highest peak first. Shares are of the images as they were given.

        Raises `UsageError` when the scorer has no heat map.
        """
        finder, maps = self.region_finder, self.anomaly_map(images)
        if finder is None or maps is None:
            raise UsageError(f"the scorer {self.config.scorer} has no heat map, and so no regions")
        return finder.find(maps.numpy(), sizes_of(images, len(maps)))

    @property
    def region_finder(self) -> RegionFinder | None:
        """What finds regions in its heat maps, if there are any."""
        if self.heat_level is None or self.heat_peaks is None:
            return None
        return RegionFinder(self.heat_level, self.heat_peaks.numpy(), self.preprocessing.target)

    def heat_map(self, images: Images) -> Tensor | None:
        """`anomaly_map` by the name that it had before."""
        say_renamed("heat_map", "anomaly_map")
        return self.anomaly_map(images)

    @property
    def map_scorer(self) -> MapScorer | None:
        """The scorer, or its first part, that has a heat map, if there is one."""
        return map_part(self.scorer)

    def _all(self, images: Images, read: Callable[[Autoencoder, Tensor], Made]) -> Made:
        """What `read` makes of all images; as many calls from the caller, whom warnings name, as by `_each`."""
        return read(self.network, self.preprocessing.prepare(images))

    def _each(self, images: Images, read: Read, decoded: bool = True) -> Tensor:
        """What `read` makes of every image, (N, …)."""
        return map_images(self.network, self.preprocessing.prepare(images), read, decoded=decoded)

    def take(self, part: str, data: Data) -> ImageSet:
        """The images of a part of the split it was made with, as it sees them: no whole pictures any more, so that
        they are given to it as `Preprocessed`. Raises `DataChanged`.
        """
        chosen: Part = getattr(self.split, part)
        dataset = data.load(self.preprocessing, None if chosen.names is None else frozenset(chosen.names))
        taken = chosen.take(dataset).relabelled(dataset.classes, self.classes)
        return self.preprocessing.prepare_set(taken, dataset)

    def unseen(self, images: Tensor) -> Tensor:
        """Positions, int64 (N,), of images at its size, uint8 (M, C, H, W), that it was not made with, whatever they
        are called, and that are no copies of such ones; how many of both is said.

        Raises `DataError` when none is left.
        """
        made_with, copies = self.split.known(hash_rows(images))
        count, more = int(made_with.sum()), int(copies.sum())
        if count + more == len(images):
            or_so = ", or with what they are copies of" if more else ""
            raise DataError(f"the detector was made with all {len(images):,} of these pictures{or_so}; name others")
        copied = counted(more, "copy", "copies")
        if count:
            of_these = f", and {copied} of {'it' if count == 1 else 'these'}" if more else ""
            logger.info(f"left out: {counted(count, 'picture')} that the detector was made with{of_these}")
        elif more:
            logger.info(f"left out: {copied} of pictures that the detector was made with")
        return torch.nonzero(~(made_with | copies)).flatten()

    def save(self, folder: str | Path) -> None:
        """Write `detector.json` and `weights.safetensors`; a detector that was there is replaced.

        Raises `StorageError` when the folder holds something else or cannot be written.
        """
        target = expand(folder).resolve()
        check_target(target)
        write_folder(target, self._write)

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "Detector":
        """Read a detector that `save` wrote; nothing in it is executed.

        Raises `ModelNotFound` when there is none, `DetectorDamaged` when it is incomplete, truncated or was
        changed, `UsageError` when the device is not there.
        """
        folder, place = expand(folder), pick_device(device)
        saved = read_detector(folder)
        with damaged(folder):
            record, network, scorer = saved.record, saved.network, saved.scorer
            network.load_state_dict(saved.under(NETWORK))
            scorer.load_state({name: value.to(place) for name, value in saved.under(SCORER).items()})
            calibration = record.calibration.build(saved.tensors)
            peaks = saved.tensors.get(PEAKS)
            if peaks is not None and not (bool((peaks.diff() >= 0).all()) and record.heat_level in peaks.tolist()):
                raise Mismatch("the level of its heat map is none of the peaks that it comes from")
            split = Split.from_record(record.split, saved.under(SPLIT))
            network = network.to(place).eval()
            return cls(
                *(record.config, record.classes, record.normal, record.preprocessing, network, scorer, calibration),
                *(split, record.profile, record.heat_level, peaks),
            )

    @cached_property
    def digest(self) -> str:
        """What tells it from every other detector, in hexadecimal: the SHA-256 of what `save` would write."""
        return digest_of(self._files()[0])

    def _write(self, folder: Path) -> None:
        about, weights = self._files()
        write_bytes(folder / WEIGHTS_FILE, weights)
        write_json(folder / JSON_FILE, about | {"sha256": digest_of(about)})

    def _files(self) -> tuple[dict[str, Any], bytes]:
        """What is said of it in JSON, and its tensors as safetensors."""
        parts = {NETWORK: self.network.state_dict(), SCORER: self.scorer.state(), SPLIT: self.split.tensors()}
        tensors = {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}
        tensors |= calibration_tensors(self.calibration)
        if self.heat_peaks is not None:
            tensors[PEAKS] = self.heat_peaks
        weights = save_tensors({name: value.cpu().contiguous() for name, value in tensors.items()})
        record = DetectorRecord(
            format=DETECTOR_FORMAT,
            config=self.config,
            classes=self.classes,
            normal=self.normal,
            preprocessing=self.preprocessing,
            calibration=CalibrationRecord.of(self.calibration),
            profile=self.profile,
            heat_level=self.heat_level,
            split=self.split.record(),
            weights_sha256=sha256(weights),
        )
        return dataclasses.asdict(record), weights
