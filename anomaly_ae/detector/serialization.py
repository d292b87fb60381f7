"""A detector's two files: what must stand in them, and how they are read. Nothing in them is executed.

`detector.json` is a `DetectorRecord`; a new field is a line there, or in the dataclass that it is a part of. The
tensors of `weights.safetensors` are those of the network, the scorer (`Scorer.specs`), the split and the calibration.
Everything is checked before a tensor is read; whatever is otherwise raises `DetectorDamaged`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from anomaly_ae.autoencoders import Autoencoder, build_autoencoder, require_room
from anomaly_ae.calibration.conformal import CHOSEN, Calibration
from anomaly_ae.calibration.tail import Tail
from anomaly_ae.config.run_config import CROSS, GUARANTEES, TAIL, RunConfig
from anomaly_ae.datasets.splits import SplitRecord, pack_names, unpack_names
from anomaly_ae.errors import AnomalyAEError, DetectorDamaged, ModelNotFound, StorageError, one_line
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.images.statistics import Profile
from anomaly_ae.scorers import MapScorer, Scorer, build_scorer
from anomaly_ae.storage.atomic import restore, sha256, storage_errors
from anomaly_ae.storage.schema import (
    Count,
    Digest,
    Mismatch,
    OneOf,
    Positive,
    Share,
    Specs,
    TensorSpec,
    check_tensors,
    parse,
    prefixed,
    read_header,
    read_json,
)

DETECTOR_FORMAT = 14
JSON_FILE, WEIGHTS_FILE = "detector.json", "weights.safetensors"
ESTIMATOR_FILE = "estimator.json"  # what the scikit-learn estimator has to say beside them
OWN_FILES = {JSON_FILE, WEIGHTS_FILE, ESTIMATOR_FILE}
NETWORK, SCORER, SPLIT = "network.", "scorer.", "split."
SCORES, SCORED_NAMES, PEAKS = "calibration.scores", "calibration.names", "calibration.peaks"
SCORE_GROUPS = "calibration.groups"  # of which the scores are, where there are several
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8", torch.bool: "BOOL"}


@dataclass(frozen=True)
class CalibrationRecord:
    """What is said of the calibration; its scores, and of which of several groups they are, are among the tensors."""

    guarantee: Annotated[str, OneOf((*GUARANTEES, *CHOSEN))]
    confidence: Share
    target_fpr: Share
    threshold: float
    images: Positive
    groups: Positive
    folds: Count
    tails: tuple[Tail, ...]

    def __post_init__(self) -> None:
        in_folds = self.guarantee == CROSS or (self.guarantee in CHOSEN and self.folds > 0)
        if in_folds != (self.folds > 0) or (in_folds and self.images % self.folds):
            raise Mismatch(
                f"the guarantee {self.guarantee} does not go with {self.folds} folds of {self.images} images"
            )
        if self.groups > (1 if self.folds else self.images):
            raise Mismatch(f"{self.images} images with {self.folds} folds cannot be of {self.groups} groups")
        if len(self.tails) != (self.groups if self.guarantee == TAIL else 0):
            raise Mismatch(f"the guarantee {self.guarantee} does not go with {len(self.tails)} tails")

    @classmethod
    def of(cls, calibration: Calibration) -> "CalibrationRecord":
        return cls(
            guarantee=calibration.guarantee,
            confidence=calibration.confidence,
            target_fpr=calibration.target_fpr,
            threshold=calibration.threshold,
            images=len(calibration.scores),
            groups=len(calibration.by_group),
            folds=calibration.folds,
            tails=calibration.tails,
        )

    def build(self, tensors: Mapping[str, Tensor]) -> Calibration:
        """The calibration that this and the tensors are of. Raises `Mismatch` where they do not go together."""
        names = unpack_names(tensors.get(SCORED_NAMES))
        if names is not None and len(names) != self.images:
            raise Mismatch(f"there are {self.images:,} calibration scores and {len(names):,} names")
        chosen = self.threshold if self.guarantee in CHOSEN else None
        settings = self.target_fpr, self.guarantee, self.confidence, self.tails
        groups = tensors.get(SCORE_GROUPS)
        calibration = Calibration(tensors[SCORES], *settings, names, chosen, self.folds, groups)
        if len(calibration.by_group) != self.groups:
            raise Mismatch(f"of {self.groups:,} groups of calibration scores some have none")
        if self.target_fpr != calibration.target_fpr or not _follows(self.threshold, calibration):
            raise Mismatch("its threshold does not follow from its calibration scores")
        return calibration


def calibration_tensors(calibration: Calibration) -> dict[str, Tensor]:
    """The tensors beside its record."""
    tensors = {SCORES: calibration.scores}
    if calibration.groups is not None:
        tensors[SCORE_GROUPS] = calibration.groups
    if calibration.names:
        tensors[SCORED_NAMES] = pack_names(calibration.names)
    return tensors


def _follows(threshold: float, calibration: Calibration) -> bool:
    """Whether a threshold is that of a calibration, by its definition: computing it of a tail that is not that of the
    scores could take for ever.
    """
    edge = torch.tensor([threshold])
    at, above = calibration.p_values(torch.cat([edge, edge.nextafter(torch.tensor(torch.inf))])).tolist()
    tails_fit = all(
        not group.tail or bool((group.scores == group.tail.start).any()) for group in calibration.by_group
    )
    return tails_fit and above <= calibration.target_fpr < at and threshold == calibration.threshold


@dataclass(frozen=True)
class DetectorRecord:
    """What stands in `detector.json`, beside `sha256`, the digest of all this."""

    format: int
    config: RunConfig
    classes: tuple[str, ...]
    normal: tuple[str, ...]
    preprocessing: Preprocessing
    calibration: CalibrationRecord
    profile: Profile
    heat_level: float | None
    split: SplitRecord
    weights_sha256: Digest

    def __post_init__(self) -> None:
        if not (
            self.normal and set(self.normal) <= set(self.classes) and len(set(self.classes)) == len(self.classes)
        ):
            raise Mismatch("the normal classes are not among the classes, or one is named twice")

    def build_network(self) -> Autoencoder:
        """A network that its weights fit. Raises `UsageError`."""
        require_room(self.preprocessing.shape, self.config)
        return build_autoencoder(str(self.config.autoencoder), self.preprocessing.shape, self.config)


@dataclass(frozen=True)
class Saved:
    """A detector that was read: what it says, its network and scorer as built, and tensors by name."""

    record: DetectorRecord
    network: Autoencoder
    scorer: Scorer
    tensors: dict[str, Tensor]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, called by what follows."""
        return {n.removeprefix(prefix): value for n, value in self.tensors.items() if n.startswith(prefix)}


def read_detector(folder: Path) -> Saved:
    """Both files of a saved detector, if they are whole, as they were written, and all that a detector has.

    Raises `ModelNotFound`, `DetectorDamaged`, and `StorageError` for files that cannot be read.
    """
    restore(folder)
    if not (folder / JSON_FILE).is_file():
        raise ModelNotFound(f"there is no detector in {folder}: it has no {JSON_FILE}; name a folder that has one")
    path = folder / WEIGHTS_FILE
    try:
        record = _read_record(folder)
        header = read_header(path)
        with damaged(folder):
            network, scorer, specs = _build(record, header)
        tensors = _read_tensors(path, record.weights_sha256, specs)
    except Mismatch as error:
        raise DetectorDamaged(f"{path} is truncated or was changed ({error}); copy it again or train anew") from error
    except FileNotFoundError as error:
        raise DetectorDamaged(f"the detector in {folder} lacks {WEIGHTS_FILE}; copy both of its files") from error
    except OSError as error:
        raise StorageError(f"cannot read the detector in {folder}: {error.strerror}") from error
    return Saved(record, network, scorer, tensors)


@contextmanager
def damaged(folder: Path) -> Iterator[None]:
    """Turn whatever a detector that does not agree with itself leads to into `DetectorDamaged`; that there is too
    little memory is no fault of its.
    """
    try:
        yield
    except (AnomalyAEError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" in str(error):  # torch's word for it
            raise
        raise DetectorDamaged(
            f"the detector in {folder} cannot be put together: {one_line(error)}; copy it again or train anew"
        ) from error


def digest_of(about: dict[str, Any]) -> str:
    """The SHA-256 of plain JSON values, in hexadecimal."""
    return sha256(json.dumps(about, sort_keys=True).encode())


def _read_record(folder: Path) -> DetectorRecord:
    """What `detector.json` says."""
    path = folder / JSON_FILE
    try:
        about = read_json(path)
    except Mismatch as error:
        raise DetectorDamaged(f"{path} is damaged ({error}); copy it again") from error
    made_by = about.get("format") if isinstance(about, dict) else None
    if isinstance(made_by, int) and made_by > DETECTOR_FORMAT:
        raise DetectorDamaged(f"the detector in {folder} is of a later format; install a later anomaly-ae")
    if isinstance(made_by, int) and made_by in range(1, DETECTOR_FORMAT):
        raise DetectorDamaged(f"the detector in {folder} was made by an earlier anomaly-ae; train it anew")
    with damaged(folder):
        if not isinstance(about, dict) or about.pop("sha256", None) != digest_of(about):
            raise Mismatch(f"{JSON_FILE} was changed after it was saved")
        return parse(DetectorRecord, about, JSON_FILE)


def _build(record: DetectorRecord, header: Specs) -> tuple[Autoencoder, Scorer, Specs]:
    """The network and scorer of a record, and its tensors. Raises `Mismatch` if the header has others."""
    with torch.device("meta"):  # however large it claims to be, this takes no memory
        weights = record.build_network().state_dict()
    expected = {
        NETWORK + name: TensorSpec(tuple(value.shape), DTYPES[value.dtype]) for name, value in weights.items()
    }
    check_tensors({name: spec for name, spec in header.items() if name.startswith(NETWORK)}, expected)
    network = record.build_network().eval()
    scorer = build_scorer(str(record.config.scorer), record.config.top_fraction, record.config.folds)
    with torch.inference_mode():
        outputs = network.outline(record.preprocessing.shape)
        for part in scorer.iter_parts():
            part.check(outputs)
        expected |= prefixed(SCORER, scorer.specs(outputs.reconstruction, outputs))
    has_names = any(name.startswith(SPLIT) and name.endswith(".names") for name in header)
    expected |= prefixed(SPLIT, record.split.specs(has_names))
    expected[SCORES] = TensorSpec((record.calibration.images,))
    if (groups := record.calibration.groups) > 1:
        expected[SCORE_GROUPS] = TensorSpec((record.calibration.images,), "I64", below=groups)
    if SCORED_NAMES in header:
        expected[SCORED_NAMES] = TensorSpec(("bytes",), "U8")
    has_maps = any(isinstance(part, MapScorer) for part in scorer.iter_parts())
    if has_maps:
        expected[PEAKS] = TensorSpec(("peaks",))
    check_tensors(header, expected)
    if (record.heat_level is None) == has_maps:
        raise Mismatch("there is a level for a heat map that the scorer does not have, or none for one that it has")
    return network, scorer, expected


def _read_tensors(path: Path, digest: str, specs: Specs) -> dict[str, Tensor]:
    content = path.read_bytes()
    if sha256(content) != digest:
        raise DetectorDamaged(f"{path} is truncated or was changed; copy it again or train anew")
    tensors = load_tensors(content)
    for name, value in tensors.items():
        spec, sound = specs[name], torch.isfinite(value)
        if spec.positive:
            sound &= value > 0
        if spec.below is not None:
            sound &= (value >= 0) & (value < spec.below)
        if not bool(sound.all()):
            raise DetectorDamaged(f"{path} has values of {name} that cannot be; copy it again or train anew")
    return tensors


def check_target(folder: Path) -> None:
    """Raise `StorageError` when a detector cannot be saved to `folder`, or would replace anything but a detector."""
    with storage_errors(f"save a detector to {folder}"):
        if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= OWN_FILES):
            raise StorageError(
                f"{folder} holds other things than a detector; name a new or empty folder, or a detector to replace"
            )
        parent = next(each for each in folder.absolute().parents if each.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise StorageError(f"a detector cannot be saved to {folder}: {parent} is no folder that can be written")
