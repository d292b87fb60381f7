"""Giving a detector a name under which it is found, served and replaced."""

import re

from anomaly_ae.errors import UsageError
from anomaly_ae.escaping import short_name
from anomaly_ae.runs.lifecycle import LOCK_WAIT
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.run_results import Promoted
from anomaly_ae.runs.store import LATEST, RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import stage
from anomaly_ae.tracking import registry
from anomaly_ae.tracking.registry import CHAMPION
from anomaly_ae.workflows.find_model import find_model

POOR = 0.8  # AUROC below which of five pairs of a normal and an anomalous image more than one is ranked wrongly


def promote(
    model: str = LATEST, alias: str = CHAMPION, *, name: str | None = None, home: RunStore | None = None
) -> Promoted:
    """Register the detector of a run with MLflow, as a version of the model `name`, and give it the alias.

    Args:
        model: a run, as `load` takes it
        alias: what the version is called from now on
        name: of the registered model; None: that of the data set
        home: where runs are kept; None: ANOMALY_AE_MLRUNS, else MLFLOW_TRACKING_URI, else ./mlruns

    Raises:
        UsageError: `model` is no run, or name or alias cannot be used
        RunBusy: another command works on the run
        ModelNotFound: there is no such run
        ModelError: its training is not finished

    Examples:
        >>> import anomaly_ae
        >>> promoted = anomaly_ae.promote("latest")
        >>> promoted.uri
        'models:/digits@champion'
        >>> anomaly_ae.load(promoted.uri).normal
        ('0', '1', '2')
    """
    home = home or RunStore.find()
    folder, run = find_model(home, model)
    if run is None:
        raise UsageError(f"{folder} is no run, and a registered model is that of one; name a run: anomaly-ae runs")
    _say_doubts(run)
    name = _slug(short_name(run.config.dataset)) if name is None else name
    with run.lock(wait=LOCK_WAIT), stage("registering with MLflow"):
        return registry.promote(home, run, name, alias)


def _say_doubts(run: RunFolder) -> None:
    """Say it where nobody knows how good a run is, or where it was found to be poor."""
    measured = run.evaluation()
    again = run.command("evaluate", run.record.id)
    if not measured:
        logger.warning(f"not evaluated yet, so nobody knows how good it is: {again}, and promote it again")
    elif measured.auroc is None:
        logger.warning(f"evaluated without both normal and anomalous images, so nobody knows how good it is: {again}")
    elif measured.auroc < POOR:
        logger.warning(f"its AUROC is {measured.auroc:.4f}, which is poor; chance gives 0.5, and the best 1")


def _slug(name: str) -> str:
    """A data set's name with nothing in it that an address would have to escape."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-._") or "model"
