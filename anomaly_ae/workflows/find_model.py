"""Finding a trained model by whatever name its user gives."""

from pathlib import Path

from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import DetectorDamaged, ModelNotFound, one_line
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.store import LATEST, RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.storage.atomic import expand
from anomaly_ae.tracking.download import fetch_evaluation, fetch_run
from anomaly_ae.tracking.registry import MEANT, run_of


def load(model: str | Path = LATEST, *, mlruns: str | None = None, device: str = "auto") -> Detector:
    """Load a detector.

    Args:
        model: `latest`, the training that finished last, as by default; or a run id or its unique beginning,
            `models:/name@alias`, or a saved detector's folder
        mlruns: where runs are kept; None: ANOMALY_AE_MLRUNS, else MLFLOW_TRACKING_URI, else ./mlruns
        device: auto, cpu, cuda or mps

    Raises:
        ModelNotFound: there is no such model
        ModelError: its training is not finished
        DetectorDamaged: its files are incomplete, truncated or were changed
        UsageError: the device is not there

    Examples:
        >>> import anomaly_ae
        >>> detector = anomaly_ae.load("latest")
        >>> detector.save("detectors/digits")
        >>> anomaly_ae.load("detectors/digits").threshold == detector.threshold
        True
    """
    return load_model(RunStore.find(mlruns), str(model), device)[0]


def load_model(home: RunStore, model: str, device: str = "auto") -> tuple[Detector, RunFolder | None]:
    """A detector, and the run folder it lies in if it is one of `home`, which is said.

    Raises what `find_model` raises, and `DetectorDamaged`; of a run with the command that makes it anew.
    """
    folder, run = find_model(home, model)
    if run is None:
        return Detector.load(folder, device), None
    logger.info(f"run {run.record.id}: {run.record.name}")
    try:
        return Detector.load(folder, device), run
    except (ModelNotFound, DetectorDamaged) as error:
        raise DetectorDamaged(f"{one_line(error)}; or make it anew with: {run.resume}") from error


def has_detector(run: RunFolder) -> bool:
    """Whether a run has a detector that can be used."""
    try:
        Detector.load(run.path / "detector", "cpu")
    except (ModelNotFound, DetectorDamaged):
        return False
    return True


def find_model(home: RunStore, model: str) -> tuple[Path, RunFolder | None]:
    """The detector's folder, and the run folder it lies in if it is one of `home`.

    Raises `ModelNotFound`, or `ModelError` when the training is not finished.
    """
    path = expand(model)
    if model == LATEST or model.startswith(MEANT):
        run = find_run(home, model)
    elif path.is_file():
        raise ModelNotFound(f"{model} is a file; a saved detector is a folder that holds detector.json")
    elif path.is_dir() and path.resolve().parent != home.root.resolve() / "runs":
        return path, None
    else:
        run = find_run(home, path.name)
    return run.detector_folder(), run


def find_run(home: RunStore, name: str) -> RunFolder:
    """The run called so: `latest`, `models:/name@alias`, an id or its unique beginning; with what MLflow's server has
    of it and nobody else.

    Raises `ModelNotFound`.
    """
    if name == LATEST:
        return home.latest()
    run_id = run_of(home, name) if name.startswith(MEANT) else name
    try:
        run = home.find_run(run_id)
    except ModelNotFound:
        if home.is_local:
            raise
        return fetch_run(home, run_id)
    fetch_evaluation(home, run)
    return run
