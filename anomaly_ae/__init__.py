"""anomaly-ae: train an autoencoder on images of what is normal, and know which new ones are not.

The public names are loaded when they are first used.

Examples:
    >>> import anomaly_ae
    >>> from sklearn.datasets import load_digits
    >>> result = anomaly_ae.train(anomaly_ae.RunConfig(normal="0,1,2", epochs=2))
    >>> detector = anomaly_ae.load(result.run_id)
    >>> images = load_digits().images[:10, None] / 16  # the digits 0 to 9, float in [0, 1], (N, C, H, W)
    >>> detector.score(images) > detector.threshold
    tensor([False, False, False,  True, ...])
"""

from typing import TYPE_CHECKING

from anomaly_ae.runtime.lazy import on_first_use
from anomaly_ae.runtime.renamed import FUNCTIONS, current
from anomaly_ae.runtime.torch_state import tame_threads

if TYPE_CHECKING:
    from anomaly_ae.autoencoders.network_files import load_part as load_part
    from anomaly_ae.config.run_config import RunConfig as RunConfig
    from anomaly_ae.datasets.builtin import load_dataset as load_dataset
    from anomaly_ae.detector.detector import Detector as Detector
    from anomaly_ae.detector.regions import Region as Region
    from anomaly_ae.errors import AnomalyAEError as AnomalyAEError
    from anomaly_ae.integrations.sklearn import AutoencoderDetector as AutoencoderDetector
    from anomaly_ae.reporting.run_figures import plot as plot
    from anomaly_ae.scoring.rows import FolderScores as FolderScores
    from anomaly_ae.scoring.rows import score_folder as score_folder
    from anomaly_ae.workflows.calibrate import calibrate as calibrate
    from anomaly_ae.workflows.compare import compare as compare
    from anomaly_ae.workflows.evaluate import evaluate as evaluate
    from anomaly_ae.workflows.find_model import load as load
    from anomaly_ae.workflows.pipeline import run_pipeline as run_pipeline
    from anomaly_ae.workflows.promote import promote as promote
    from anomaly_ae.workflows.score import score as score
    from anomaly_ae.workflows.train import train as train
    from anomaly_ae.workflows.train import train_from as train_from

__version__ = "0.1.0"

_HOMES = {
    "AnomalyAEError": "errors",
    "AutoencoderDetector": "integrations.sklearn",
    "Detector": "detector.detector",
    "FolderScores": "scoring.rows",
    "Region": "detector.regions",
    "RunConfig": "config.run_config",
    "calibrate": "workflows.calibrate",
    "compare": "workflows.compare",
    "evaluate": "workflows.evaluate",
    "load": "workflows.find_model",
    "load_dataset": "datasets.builtin",
    "load_part": "autoencoders.network_files",
    "plot": "reporting.run_figures",
    "promote": "workflows.promote",
    "run_pipeline": "workflows.pipeline",
    "score": "workflows.score",
    "score_folder": "scoring.rows",
    "train": "workflows.train",
    "train_from": "workflows.train",
}
__all__ = [*sorted(_HOMES), "__version__"]


tame_threads()
_find = on_first_use(__name__, _HOMES)


def __getattr__(name: str) -> object:
    """The names above, and those that they had before."""
    return _find(current(name, FUNCTIONS))


def __dir__() -> list[str]:
    return __all__
