"""Finding a trained model by whatever name its user gives."""

from pathlib import Path

from anomaly_ae.detector import Detector
from anomaly_ae.errors import ModelNotFound
from anomaly_ae.files import expand
from anomaly_ae.runs import LATEST, Home, RunFolder
from anomaly_ae.tracking.fetching import fetch_evaluation, fetch_run
from anomaly_ae.tracking.registry import MEANT, run_of


def load(model: str | Path = LATEST, *, mlruns: str | None = None, device: str = "auto") -> Detector:
    """Load a detector: `latest`, a run id, `models:/name@alias`, or a saved detector's folder.

    Raises what `find_model` raises.
    """
    return Detector.load(find_model(Home.find(mlruns), str(model))[0], device)


def find_model(home: Home, model: str) -> tuple[Path, RunFolder | None]:
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


def find_run(home: Home, name: str) -> RunFolder:
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
