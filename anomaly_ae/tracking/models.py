"""The detector of a run as a model of MLflow, `runs:/<run id>/model`: for Spark, MLflow's server and its registry.

The model is a copy of the detector and a file of code, `integrations/pyfunc.py`, which MLflow runs where it is
loaded.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anomaly_ae
from anomaly_ae.runs.run_folder import EXAMPLE

MODEL = "model"
CONTENT_COLUMN = "content"  # the one column, as `integrations/pyfunc.py` has it
CODE = Path(anomaly_ae.__file__).parent / "integrations" / "pyfunc.py"  # handed over as a file, and not imported here
READY = "READY"


def load_model_logging(_client: Any) -> None:
    """Have what `log_model` needs loaded, which takes seconds."""
    import mlflow.models
    import mlflow.pyfunc  # noqa: F401 (to be there)


def log_model(client: Any, run_id: str, run: Path) -> None:
    """Log the detector in a run folder as the model of the run, unless it is there already."""
    from mlflow.entities import LoggedModelOutput

    if model_of(client, run_id):
        return
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, MODEL, source_run_id=run_id)
    with TemporaryDirectory() as folder:
        ids = {"run_id": run_id, "model_id": model.model_id}
        save_model(Path(folder) / MODEL, run / "detector", run / EXAMPLE, **ids)
        client.log_model_artifacts(model.model_id, str(Path(folder) / MODEL))
    client.finalize_logged_model(model.model_id, READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])


def save_model(folder: Path, detector: Path, example: Path, **ids: str) -> None:
    """Write the detector that lies in the folder `detector` as an MLflow model to `folder`, which must be new.

    example: a picture that shows what it takes, if there is such a file
    ids:     `run_id` and `model_id`, of the run that it is a model of
    """
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    with _packages_known(), warnings.catch_warnings(action="ignore"):  # without an example, it would like one
        save_model(
            str(folder),
            mlflow_model=Model(**ids),
            python_model=str(CODE),
            artifacts={"detector": str(detector)},
            signature=_signature(),
            input_example=_example(example),
            pip_requirements=[f"anomaly-ae=={anomaly_ae.__version__}"],  # finding them itself takes MLflow seconds
        )


@contextmanager
def _packages_known() -> Iterator[None]:
    """Within it, MLflow looks for these two alone, and not through all that is installed, for seconds."""
    from mlflow.utils import requirements_utils

    before = getattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    requirements_utils._MODULES_TO_PACKAGES = before or {"mlflow": ["mlflow"], "anomaly_ae": ["anomaly-ae"]}
    try:
        yield
    finally:
        requirements_utils._MODULES_TO_PACKAGES = before


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
        "regions": "string",
    }
    return ModelSignature(
        Schema([ColSpec(DataType.binary, CONTENT_COLUMN)]),
        Schema([ColSpec(kind, name, required=False) for name, kind in results.items()]),
        ParamSchema([ParamSpec("target_fpr", DataType.double, default=None)]),
    )


def _example(picture: Path) -> Any:
    """A frame with one picture, if it is there."""
    import pandas as pd

    return pd.DataFrame({CONTENT_COLUMN: [picture.read_bytes()]}) if picture.exists() else None


def model_of(client: Any, run_id: str) -> str | None:
    """The id of a run's model, None if it has none that is whole; one that was left unfinished is removed."""
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"name = '{MODEL}' AND source_run_id = '{run_id}'")
    for model in found:
        if model.status != READY:
            client.delete_logged_model(model.model_id)
    return next((str(model.model_id) for model in found if model.status == READY), None)
