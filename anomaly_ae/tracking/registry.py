"""MLflow's registry of models: a detector under a name, and an alias that says which of them is in use."""

import re
from typing import Any

from anomaly_ae.errors import ModelError, ModelNotFound, StorageError, UsageError
from anomaly_ae.runs.run_folder import RunFolder
from anomaly_ae.runs.run_results import KeptEvaluation, Promoted
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.tracking.client import mlflow_errors, open_client, store_held, tracking_at
from anomaly_ae.tracking.descriptions import describe
from anomaly_ae.tracking.models import model_of
from anomaly_ae.tracking.run_logger import upload

SCHEME = "models:/"
MEANT = "models:"  # how an address begins that means one, right or wrong
CHAMPION = "champion"
KEPT = ("auroc", "fpr_at_95_tpr", "false_positive_rate", "true_positive_rate")  # as tags of a version
NAME = re.compile(r"\w[\w.-]*")
ALIAS = re.compile(r"(?!v?\d+$|latest$)[\w-]+", re.ASCII | re.IGNORECASE)  # what MLflow does not keep for itself


def promote(home: RunStore, run: RunFolder, name: str, alias: str = CHAMPION) -> Promoted:
    """Register the detector of a run as a version of the model `name`, once only, and give it the alias.

    Whoever calls holds the run. Raises `UsageError` when name or alias cannot be used, `ModelError` when the run has
    no detector, `StorageError` when MLflow is away.
    """
    _check_names(name, alias)
    run.detector_folder()
    _log(home, run)
    record, evaluation = run.record, run.evaluation() or KeptEvaluation()
    uri = f"{SCHEME}{name}@{alias}"
    missing = f"MLflow at {home.tracking_uri} lacks run {record.id}, and it cannot be logged there; try again later"
    with mlflow_errors(home, missing), store_held(home):
        client = open_client(home)
        model_id = model_of(client, str(record.mlflow_run_id))
        if model_id is None:
            raise StorageError(missing)
        before = _version_called(client, name, alias)
        if before is not None and before.run_id != record.mlflow_run_id:
            _say_if_worse(alias, before, evaluation.auroc)
        with tracking_at(home):  # for a local store looks for the model there, whoever asks
            version = _version(client, name, record.mlflow_run_id, model_id)
        client.update_model_version(name, version, describe(run, uri))
        for key in KEPT:
            if (value := getattr(evaluation, key)) is not None:
                client.set_model_version_tag(name, version, key, f"{value:.6g}")
        client.set_registered_model_alias(name, alias, version)
    others = None if before is None or int(before.version) == int(version) else int(before.version)
    return Promoted(record.id, name, int(version), alias, uri, others, evaluation.auroc)


def run_of(home: RunStore, uri: str) -> str:
    """The id of the run whose detector is registered as `models:/name@alias` or `models:/name/version`.

    Raises `UsageError` when it is no such address, `ModelNotFound` when there is no such version, `StorageError` when
    MLflow is away.
    """
    name, *which = re.split("[/@]", uri.removeprefix(SCHEME), maxsplit=1)
    if not (uri.startswith(SCHEME) and name and which and which[0]):
        raise UsageError(f"a registered model is models:/NAME@ALIAS or models:/NAME/VERSION, and {uri!r} was given")
    missing = f"there is no {uri} at {home.tracking_uri}; register it with: anomaly-ae promote"
    if home.has_no_store():  # which would be made if it were asked
        raise ModelNotFound(missing)
    with mlflow_errors(home, missing):
        client = open_client(home)
        find = client.get_model_version_by_alias if "@" in uri else client.get_model_version
        run_id = find(name, which[0]).run_id
    if not run_id:
        raise ModelError(f"{uri} was registered without its run; register a run with: anomaly-ae promote")
    return str(run_id)


def _log(home: RunStore, run: RunFolder) -> None:
    """Log a run where MLflow lacks something of it, and as a new one where it lacks it altogether."""
    try:
        with mlflow_errors(home, "no such run"):
            open_client(home).get_run(str(run.record.mlflow_run_id))
    except ModelNotFound:
        run.update(mlflow_run_id=None)
    if run.record.mlflow_run_id is None or run.record.unlogged:
        upload(home, run)


def _check_names(name: str, alias: str) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(
            f"a model's name has letters, digits, '.', '-' and '_', and {name!r} was given; see {setting('name')}"
        )
    if not ALIAS.fullmatch(alias):
        raise UsageError(
            f"an alias has letters, digits, '-' and '_', and is no version number and not latest; {alias!r} was given"
        )


def _version_called(client: Any, name: str, alias: str) -> Any:
    """The version that has the alias now, if the model is there and one has it."""
    models = client.search_registered_models(f"name = '{name}'")
    version = models[0].aliases.get(alias) if models else None
    return version and client.get_model_version(name, version)


def _say_if_worse(alias: str, before: Any, auroc: float | None) -> None:
    """Say it where the version that is about to be replaced was measured, and found better."""
    known = before.tags.get("auroc")
    if known is not None and (auroc is None or auroc < float(known)):
        new = "it is not known of the new one" if auroc is None else f"that of the new one is {auroc:.4f}"
        logger.warning(f"{alias} was version {before.version} with AUROC {float(known):.4f} until now, and {new}")


def _version(client: Any, name: str, run_id: str | None, model_id: str) -> str:
    """The version that a model is registered as, a new one unless it is there already."""
    from mlflow.exceptions import MlflowException

    source = f"{SCHEME}{model_id}"
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    there = [each for each in client.search_model_versions(f"name = '{name}'") if each.source == source]
    found = there[0] if there else client.create_model_version(name, source, run_id, model_id=model_id)
    return str(found.version)
