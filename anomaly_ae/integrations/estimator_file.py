"""What the scikit-learn estimator has to say beside its detector, in `estimator.json`; nothing in it is executed."""

import dataclasses
import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_ae.datasets.feature_rows import RowLayout
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.serialization import ESTIMATOR_FILE, digest_of
from anomaly_ae.errors import DetectorDamaged, ModelNotFound, one_line
from anomaly_ae.storage.atomic import write_json
from anomaly_ae.storage.schema import Digest, Mismatch, parse, read_json


@dataclass(frozen=True)
class ScaleRecord:
    """What is said of the scale: numbers for each value of a row, or one for all."""

    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class EstimatorRecord:
    """What stands in `estimator.json`, beside `sha256`, the digest of all this."""

    detector: Digest
    settings: dict[str, Any]
    layout: RowLayout
    scale: ScaleRecord
    feature_names: tuple[str, ...] | None

    def __post_init__(self) -> None:
        count, low, high = math.prod(self.layout.shape), self.scale.low, self.scale.high
        if len(low) != len(high) or len(low) not in (1, count) or any(map(operator.gt, low, high)):
            raise Mismatch("its scale is not that of its rows")
        if self.feature_names is not None and len(self.feature_names) != count:
            raise Mismatch("it has not as many names as values")

    @classmethod
    def read(cls, folder: Path, detector: Detector) -> "EstimatorRecord":
        """The one beside a detector. Raises `ModelNotFound`, and `Mismatch` where it is another's, or was changed."""
        path = folder / ESTIMATOR_FILE
        if not path.is_file():
            raise ModelNotFound(f"there is a detector in {folder}, but no {ESTIMATOR_FILE}; take anomaly_ae.load")
        about = read_json(path)
        if not isinstance(about, dict) or about.pop("sha256", None) != digest_of(about):
            raise Mismatch("it was changed")
        record = parse(cls, about)
        if record.detector != detector.digest or record.layout.shape[0] != detector.preprocessing.channels:
            raise Mismatch("it is of another detector")
        return record

    def write(self, folder: Path) -> None:
        """Put it beside its detector."""
        about = dataclasses.asdict(self)
        write_json(folder / ESTIMATOR_FILE, about | {"sha256": digest_of(about)})


@contextmanager
def estimator_errors(folder: Path) -> Iterator[None]:
    """Turn what a record that cannot be raises inside into `DetectorDamaged`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise DetectorDamaged(f"{folder / ESTIMATOR_FILE} is damaged ({one_line(error)}); copy it again") from error


def plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """An estimator's settings as plain JSON values; None for a generator of random numbers."""
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.random.RandomState):
        return None
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value
