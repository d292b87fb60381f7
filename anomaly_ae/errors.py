"""What a user can get wrong, each with its remedy.

    AnomalyAEError        exit code 1: it could not be done
    ├─ UsageError         exit code 2: asked for wrongly
    │  ├─ UnknownName       kind, given, known, near
    │  ├─ CalibrationError
    │  └─ EstimatorError    a ValueError, too
    ├─ DataError
    │  ├─ DataMissing
    │  ├─ DataDamaged
    │  └─ DataChanged
    ├─ ModelError
    │  ├─ ModelNotFound
    │  ├─ DetectorDamaged
    │  └─ ExportError
    ├─ TrainingError
    ├─ EngineError
    ├─ StorageError
    ├─ RunBusy
    └─ Interrupted        exit code 130

Every message is one line: the field that is wrong, what was given, what is allowed, and the remedy. Settings in it
are spelt as the front end has it, see `runtime.spelling`: no flag is named here or below the command line.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from anomaly_ae.escaping import printable

MOST_LISTED = 100  # names of a catalogue, of which timm's has a thousand


class AnomalyAEError(Exception):
    """The root of all errors raised on purpose; `exit_code` is what the command line ends with.

    Examples:
        >>> import anomaly_ae
        >>> try:
        ...     anomaly_ae.RunConfig(target_fpr=2)
        ... except anomaly_ae.AnomalyAEError as error:
        ...     print(f"{type(error).__name__}: {error}")
        UsageError: target_fpr must be above 0 and below 1, and is 2.0
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(AnomalyAEError):
    """The call itself is wrong: an unknown name, a value out of range, flags that contradict each other."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that no catalogue has."""

    def __init__(self, kind: str, given: str, known: Iterable[str]) -> None:
        known = tuple(known)
        super().__init__(kind, given, known)  # what it is made of again where it is copied or unpickled
        self.kind, self.given, self.known = kind, given, known
        close = get_close_matches(given.lower(), [name.lower() for name in known], n=1, cutoff=0.5)
        self.near = next((name for name in known if close and name.lower() == close[0]), None)
        hint = f"did you mean {self.near!r}? " if self.near else ""
        more = f" and {len(known) - MOST_LISTED:,} more" if len(known) > MOST_LISTED else ""
        self.text = printable(f"unknown {kind} {given!r}; {hint}known: {', '.join(known[:MOST_LISTED])}{more}")

    def __str__(self) -> str:
        return self.text


class DataError(AnomalyAEError):
    """The data are missing, damaged, or not what the detector was made for."""


class DataMissing(DataError):
    """A data set is not where it was looked for and could not be downloaded."""


class DataDamaged(DataError):
    """A data file is cut short or is not what its header says."""


class DataChanged(DataError):
    """The data no longer match the record of what a detector was trained on, or what a person was shown."""


class TrainingError(AnomalyAEError):
    """Training cannot go on, e.g. since the loss is no longer a finite number."""


class Interrupted(AnomalyAEError):
    """Stopped by Ctrl-C or a signal, with everything in order."""

    exit_code = 130  # as shells and Typer have it


class CalibrationError(UsageError):
    """There are too few calibration images for the false-alarm rate asked, or their scores are unusable."""


class EstimatorError(UsageError, ValueError):
    """What the scikit-learn estimator was told or given is wrong; a `ValueError` too, as that library has it."""


class TooFewRows(UserWarning):
    """There are too few rows for the false-alarm rate asked for, and a threshold was set for a higher one."""


class OtherBrightness(UserWarning):
    """Pictures hold values of another kind than those that black and white are set for, or values beyond these."""


class ModelError(AnomalyAEError):
    """A model that is missing, unfinished or damaged."""


class ModelNotFound(ModelError):
    """No run, detector folder or name fits what was given."""


class DetectorDamaged(ModelError):
    """A detector's files are incomplete, truncated or were changed after it was saved."""


class ExportError(ModelError):
    """A detector in another format would not say what it says itself; nothing is written then."""


class RunBusy(AnomalyAEError):
    """Another process is working on the same run."""


class EngineError(AnomalyAEError):
    """What spreads work over processes or machines has given up; what was done is kept."""


class StorageError(AnomalyAEError):
    """A file could not be written or read: a full disk, missing permission, a folder in the way."""


def install_extra(extra: str) -> str:
    """The remedy where something is asked for that needs packages which an extra of this one brings."""
    return f"install it with: pip install 'anomaly-ae[{extra}]'"


@contextmanager
def errors_at(where: str) -> Iterator[None]:
    """Put `where`, a file and line, before the message of a `UsageError` raised inside."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def one_line(error: BaseException) -> str:
    """The first line of an error's text, fit for a terminal, or its type's name where it has none."""
    text = str(error).strip()
    return printable(text.splitlines()[0].rstrip(":")) if text else type(error).__name__
