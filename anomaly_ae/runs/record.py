"""The record of a run, run.json."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from anomaly_ae.storage.schema import Count, Matching, Name, OneOf, Positive

TRAINING, PIPELINE, CALIBRATION = "training", "pipeline", "calibration"  # kinds of runs
RUNNING, FINISHED, KILLED, FAILED = "RUNNING", "FINISHED", "KILLED", "FAILED"


def _is_time(text: str) -> bool:
    """Whether it is a time of some time zone in ISO 8601."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


Time = Annotated[str, Matching("a time in ISO 8601", _is_time)]


@dataclass(frozen=True)
class RunRecord:
    """The content of run.json. `mlflow_run_id` is None while MLflow knows nothing of the run."""

    id: Name
    mlflow_run_id: str | None
    name: str
    started: Time  # UTC
    status: Annotated[str, OneOf((RUNNING, FINISHED, KILLED, FAILED))] = RUNNING
    finished: Time | None = None
    on_server: bool = False  # MLflow's run is in another store than this home's own
    tracked: bool = True  # False: MLflow was to be left out
    unlogged: bool = False  # MLflow may lack something that the folder has
    device: str = "cpu"  # it was trained on
    parameters: Count = 0  # of its network
    threads: Positive | None = None  # of the processor, which its weights depend on in the last digits
    parent: str | None = None  # the run of the pipeline file it is a cell of
    kind: Annotated[str, OneOf((TRAINING, PIPELINE, CALIBRATION))] = TRAINING
    resume: str | None = None  # the command that goes on with it, where it is not `train --resume`

    @classmethod
    def new(cls, name: str, tracked: bool, parent: str | None = None) -> "RunRecord":
        """That of a run that begins now, below the run with the id `parent` if there is one."""
        return cls(secrets.token_hex(16), None, name, now(), tracked=tracked, unlogged=tracked, parent=parent)

    @property
    def is_training(self) -> bool:
        """Whether it is a training by itself, no cell of a pipeline."""
        return self.kind == TRAINING and self.parent is None


def now() -> str:
    """The time as run.json has it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
