"""The stages in order: train, resume, evaluate, calibrate, score; and running a pipeline file."""

from anomaly_ae.pipeline.calibrating import CalibrateResult, calibrate
from anomaly_ae.pipeline.comparing import Comparison, compare
from anomaly_ae.pipeline.evaluating import evaluate
from anomaly_ae.pipeline.models import find_model, load
from anomaly_ae.pipeline.plans import PlanResult, run_plan
from anomaly_ae.pipeline.promoting import promote
from anomaly_ae.pipeline.scoring import ScoreResult, score
from anomaly_ae.pipeline.training import TrainResult, resume, train

__all__ = [
    "CalibrateResult",
    "Comparison",
    "PlanResult",
    "ScoreResult",
    "TrainResult",
    "calibrate",
    "compare",
    "evaluate",
    "find_model",
    "load",
    "promote",
    "resume",
    "run_plan",
    "score",
    "train",
]
