"""The stages in order: train, resume, evaluate, calibrate, score; and running a pipeline file.

The names below are loaded when they are first used, for scoring needs little of what training needs.
"""

from typing import TYPE_CHECKING

from anomaly_ae.runtime.lazy import on_first_use

if TYPE_CHECKING:
    from anomaly_ae.workflows.calibrate import CalibrateResult as CalibrateResult
    from anomaly_ae.workflows.calibrate import calibrate as calibrate
    from anomaly_ae.workflows.compare import Comparison as Comparison
    from anomaly_ae.workflows.compare import compare as compare
    from anomaly_ae.workflows.draw import draw_again as draw_again
    from anomaly_ae.workflows.evaluate import evaluate as evaluate
    from anomaly_ae.workflows.find_model import find_model as find_model
    from anomaly_ae.workflows.find_model import load as load
    from anomaly_ae.workflows.pipeline import PlanResult as PlanResult
    from anomaly_ae.workflows.pipeline import run_plan as run_plan
    from anomaly_ae.workflows.promote import promote as promote
    from anomaly_ae.workflows.score import ScoreResult as ScoreResult
    from anomaly_ae.workflows.score import score as score
    from anomaly_ae.workflows.train import TrainResult as TrainResult
    from anomaly_ae.workflows.train import resume as resume
    from anomaly_ae.workflows.train import train as train

_HOMES = {
    "CalibrateResult": "calibrating",
    "Comparison": "comparing",
    "PlanResult": "plans",
    "ScoreResult": "scoring",
    "TrainResult": "training",
    "calibrate": "calibrating",
    "compare": "comparing",
    "draw_again": "drawing",
    "evaluate": "evaluating",
    "find_model": "models",
    "load": "models",
    "promote": "promoting",
    "resume": "training",
    "run_plan": "plans",
    "score": "scoring",
    "train": "training",
}
__all__ = [*_HOMES]
__getattr__ = on_first_use(__name__, _HOMES)
