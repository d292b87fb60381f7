"""The detector of a run as a model of MLflow, `runs:/<run id>/model`: for Spark, MLflow's server and its registry.

The model is a copy of the detector and a file of code, `doors/pyfunc.py`, which MLflow runs where it is loaded.
"""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anomaly_ae

MODEL = "model"
CODE = Path(anomaly_ae.__file__).parent / "doors" / "pyfunc.py"  # handed over as a file, and not imported here
READY = "READY"


def log_model(client: Any, run_id: str, detector: Path) -> None:
    """Log the detector in a folder as the model of a run, unless it is there already."""
    from mlflow.entities import LoggedModelOutput

    experiment = client.get_run(run_id).info.experiment_id
    if _is_logged(client, experiment, run_id):
        return
    model = client.create_logged_model(experiment, MODEL, source_run_id=run_id)
    with TemporaryDirectory() as folder:
        save_model(Path(folder) / MODEL, detector, run_id, model.model_id)
        client.log_model_artifacts(model.model_id, str(Path(folder) / MODEL))
    client.finalize_logged_model(model.model_id, READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])


def save_model(folder: Path, detector: Path, run_id: str | None = None, model_id: str | None = None) -> None:
    """Write the detector that lies in the folder `detector` as an MLflow model to `folder`, which must be new."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    with warnings.catch_warnings(action="ignore"):  # it would like an example of its input, besides the signature
        save_model(
            str(folder),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            python_model=str(CODE),
            artifacts={"detector": str(detector)},
            signature=_signature(),
            pip_requirements=[f"anomaly-ae=={anomaly_ae.__version__}"],  # finding them itself takes MLflow seconds
        )


def _signature() -> Any:
    """One column of image files' bytes in, a row for each out, and a rate that one may ask for."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    results = {
        "score": "float",
        "p_value": "double",
        "threshold": "float",
        "is_anomaly": "boolean",
        "error": "string",
    }
    return ModelSignature(
        Schema([ColSpec(DataType.binary, "content")]),
        Schema([ColSpec(kind, name, required=False) for name, kind in results.items()]),
        ParamSchema([ParamSpec("target_fpr", DataType.double, default=None)]),
    )


def _is_logged(client: Any, experiment: str, run_id: str) -> bool:
    """Whether a run has its model whole; one that was left unfinished is removed."""
    found = client.search_logged_models([experiment], f"name = '{MODEL}' AND source_run_id = '{run_id}'")
    for model in found:
        if model.status != READY:
            client.delete_logged_model(model.model_id)
    return any(model.status == READY for model in found)
