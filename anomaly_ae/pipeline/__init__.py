"""The stages in order: train, resume, evaluate, calibrate, score; and running a pipeline file.

The names below are loaded when they are first used, for scoring needs little of what training needs.
"""

from typing import TYPE_CHECKING

from anomaly_ae.runtime.lazy import on_first_use

if TYPE_CHECKING:
    from anomaly_ae.pipeline.calibrating import CalibrateResult as CalibrateResult
    from anomaly_ae.pipeline.calibrating import calibrate as calibrate
    from anomaly_ae.pipeline.comparing import Comparison as Comparison
    from anomaly_ae.pipeline.comparing import compare as compare
    from anomaly_ae.pipeline.drawing import draw_again as draw_again
    from anomaly_ae.pipeline.evaluating import evaluate as evaluate
    from anomaly_ae.pipeline.models import find_model as find_model
    from anomaly_ae.pipeline.models import load as load
    from anomaly_ae.pipeline.plans import PlanResult as PlanResult
    from anomaly_ae.pipeline.plans import run_plan as run_plan
    from anomaly_ae.pipeline.promoting import promote as promote
    from anomaly_ae.pipeline.scoring import ScoreResult as ScoreResult
    from anomaly_ae.pipeline.scoring import score as score
    from anomaly_ae.pipeline.training import TrainResult as TrainResult
    from anomaly_ae.pipeline.training import resume as resume
    from anomaly_ae.pipeline.training import train as train

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
