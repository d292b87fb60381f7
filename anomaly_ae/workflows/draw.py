"""Drawing the figures of a run again, from what it keeps and its data."""

from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.measuring import sample_latents
from anomaly_ae.errors import DataChanged
from anomaly_ae.reporting.figures.painter import finish_figures
from anomaly_ae.reporting.run_figures import (
    DRAWN_FROM,
    reconstruct,
    save_samples,
    save_training_figures,
    shown_images,
)
from anomaly_ae.runs.lifecycle import LOCK_WAIT
from anomaly_ae.runs.run_folder import FIGURES
from anomaly_ae.runs.store import LATEST, RunStore
from anomaly_ae.runtime.progress import stage
from anomaly_ae.tracking import calls
from anomaly_ae.tracking.run_logger import RunLogger, mark_dead_runs, sync_pending
from anomaly_ae.workflows.evaluate import OWN, evaluate
from anomaly_ae.workflows.find_model import find_run
from anomaly_ae.workflows.more_normals import with_own_marks
from anomaly_ae.workflows.resolve import resolve


def draw_again(name: str = LATEST, *, home: RunStore | None = None) -> list[str]:
    """Draw the figures of a finished run's training, and of its evaluation if there is one; the files' paths.

    Raises `DataChanged` when the data are no longer those of the training, and what `find_run` raises.
    """
    home = home or RunStore.find()
    mark_dead_runs(home)
    run = find_run(home, name)
    detector = Detector.load(run.detector_folder())
    with stage("reading the images"):
        experiment, data = resolve(with_own_marks(run.config, run), home, run.split)
    if data.record["digest"] != run.split["digest"]:
        raise DataChanged(f"the data are not those that run {run.record.id} was trained on; use that data")
    with run.lock(wait=LOCK_WAIT):
        with stage("drawing the figures"):
            untrained = reconstruct(experiment.network, shown_images(data.images["validation"]))
            save_training_figures(run, detector, data.images, untrained)
            save_samples(run, detector, sample_latents(detector, data.images["fit"].images, DRAWN_FROM))
            finish_figures()
        run_logger = RunLogger(home, run.record.mlflow_run_id)
        run_logger.tell(calls.log_folder, run, FIGURES)
        sync_pending(run, run_logger, run.record.unlogged)
    if run.read(f"{OWN}/metrics.json"):
        evaluate(run.record.id, home=home)
    return sorted(str(path) for path in (run.path / FIGURES).glob("*.png"))
