"""How MLflow's pages open on our runs: in the view for training, with the columns that tell them apart.

MLflow keeps a view that is shared as a tag of the experiment, and its address has the key of that tag.
"""

import contextlib
import json
from urllib.parse import urlencode

from anomaly_ae.errors import ModelError
from anomaly_ae.escaping import printable
from anomaly_ae.runs.store import RunStore
from anomaly_ae.tracking.client import mlflow_errors, open_client

KEY = "anomaly-ae"
TAG = f"mlflow.sharedViewState.{KEY}"
TRAINING_RUNS = {"workflowType": "machine_learning"}  # not the view for language models
SHOWN_COLUMNS = {  # and how many pixels wide
    "params.`normal`": 110,
    "params.`autoencoder`": 110,
    "params.`scorer`": 130,
    "metrics.`test/auroc`": 100,
    "metrics.`test/false_positive_rate`": 160,
    "metrics.`train/seconds`": 120,
}
WIDTHS = {"attributes.`Run Name`": 260} | SHOWN_COLUMNS
VIEW = {
    "selectedColumns": [*SHOWN_COLUMNS],
    "columnOrder": [*WIDTHS],
    "columnWidths": WIDTHS,
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "modelVersionFilter": "All Runs",
    "datasetsFilter": [],
    "searchFilter": "",
}


def runs_page(home: RunStore) -> str:
    """The end of the address at which the newest run's experiment is shown, or all where there is none yet."""
    experiment = _experiment(home)
    if experiment is None:
        return f"#/experiments?{urlencode(TRAINING_RUNS)}"
    return f"#/experiments/{experiment}/runs?{urlencode({'viewStateShareKey': KEY} | TRAINING_RUNS)}"


def _experiment(home: RunStore) -> str | None:
    """The id of the newest run's experiment, which has our view from now on; None where there is none."""
    names = _experiments(home)
    if not names:
        return None
    with mlflow_errors(home, "no experiment"):
        client = open_client(home)
        found = client.get_experiment_by_name(names[0])
        if found is None or found.lifecycle_stage != "active":  # it may have been deleted
            return None
        if found.tags.get(TAG) != json.dumps(VIEW):
            client.set_experiment_tag(found.experiment_id, TAG, json.dumps(VIEW))
        return str(found.experiment_id)


def _experiments(home: RunStore) -> list[str]:
    """The experiments of the runs, the newest first, but for those whose files are damaged."""
    names = []
    for run in home.runs():
        with contextlib.suppress(ModelError):
            names.append(printable(run.experiment))
    return names
