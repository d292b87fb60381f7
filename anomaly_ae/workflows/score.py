"""Scoring a folder of images: rows, and what people look at."""

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from anomaly_ae.calibration.rates import images_needed
from anomaly_ae.datasets.layout_texts import first_unread
from anomaly_ae.errors import AnomalyAEError, DataMissing, StorageError, UnknownName, UsageError
from anomaly_ae.escaping import shown
from anomaly_ae.images.listing import Source
from anomaly_ae.images.sources import open_source
from anomaly_ae.reporting.folder_report import check_overlays, write_masks, write_overlays, write_report
from anomaly_ae.reporting.text import scored_folders
from anomaly_ae.runs.store import LATEST, RunStore
from anomaly_ae.runtime.progress import stage
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scoring.job import Engine, Job, Scores, score_job, score_locally
from anomaly_ae.scoring.ledger import Changes
from anomaly_ae.scoring.scoring_results import ScoreResult
from anomaly_ae.storage.atomic import expand, require_writable
from anomaly_ae.workflows.find_model import load_model

ENGINES = LOCAL, RAY = "local", "ray"
REASONS, ERRORS_NAMED = 10, 3  # why files cannot be read, and their names, as many as are told


def score(
    folder: str | Path,
    model: str | Path = LATEST,
    output: str | Path = "scores.parquet",
    *,
    target_fpr: float | None = None,
    fdr: float | None = None,
    heatmaps: str | Path | None = None,
    masks: str | Path | None = None,
    report: str | Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    device: str = "auto",
    engine: str = LOCAL,
    ray_address: str | None = None,
    home: RunStore | None = None,
) -> ScoreResult:
    """Score every image of a folder, a text file of paths, or an address, and write a row for each.

    Args:
        folder: the folder, file or address
        model: the detector, as `load` takes it
        output: the file of the rows, Parquet, CSV or JSON lines, as it is called
        target_fpr: another false-alarm rate than the detector's, above 0 and below 1
        fdr: a false discovery rate, at which to look for the anomalies among all images together
        heatmaps: a folder for a picture of each anomalous image
        masks: another one for masks of its regions
        report: an HTML page
        resume: whether to go on with the job that writes to this output
        workers: processes that decode, by default one for each core; with the engine `ray` processes that score, by
            default one for each CPU of the cluster
        device: auto, cpu, cuda or mps
        engine: local or ray
        ray_address: of the cluster; None: this machine alone
        home: where runs are kept; None: ANOMALY_AE_MLRUNS, else MLFLOW_TRACKING_URI, else ./mlruns

    Raises:
        DataMissing: there is no image
        UsageError: outputs that cannot be, or another job than that which is resumed
        CalibrationError: a rate that the calibration cannot hold
        ModelNotFound: there is no such model
        ModelError: its training is not finished
        RunBusy: another process works on the same job
        StorageError: something cannot be written; where the scores were, it is said
        Interrupted: on Ctrl-C; all but the batch in work is kept, and resumed with `resume`

    Examples:
        >>> import anomaly_ae
        >>> import pandas
        >>> result = anomaly_ae.score("pictures", "latest", "scores.parquet")
        >>> result.images, result.errors
        (10, 0)
        >>> pandas.read_parquet("scores.parquet").query("is_anomaly").path.to_list()
        ['3.png', ...]
    """
    started = time.monotonic()
    scores_with = _engine(engine, ray_address, device)
    output = expand(output)
    overlays, covers, page = (None if path is None else expand(path) for path in (heatmaps, masks, report))
    home = home or RunStore.find()
    source = _open_source(folder, home)
    with stage("loading the detector"):
        detector, run = load_model(home, str(model), device)
    calibration = detector.calibration.as_asked(target_fpr)
    if fdr is not None:
        calibration.check_discoveries(fdr)
    loaded_by = run.record.id if run else str(expand(model).resolve())
    job = Job(detector, calibration, source, output, fdr, workers, loaded_by)
    _check_places(job, overlays, covers, page)
    scores = score_job(job, resume, scores_with, [page] if page else [])
    result = _result(job, scores, time.monotonic() - started, overlays, covers, page)
    with _scores_kept(output):
        if overlays:
            drawn = write_overlays(job, scores, overlays)
            result = dataclasses.replace(result, heatmaps_written=drawn.count, heatmaps_missing=drawn.missing)
        if covers:
            drawn = write_masks(job, scores, covers)
            result = dataclasses.replace(result, masks_written=drawn.count, masks_missing=drawn.missing)
        if page:
            facts = [*scored_folders.scored_rows(result), *scored_folders.unscored_rows(result)]
            write_report(job, scores, facts, page)
    return result


@contextmanager
def _scores_kept(output: Path) -> Iterator[None]:
    """Say of what cannot be written within it that the scores were."""
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{error}; the scores are in {output}") from error


def _open_source(folder: str | Path, home: RunStore) -> Source:
    """`open_source`, for people who may have named a run where a folder is asked for."""
    try:
        return open_source(folder)
    except DataMissing as error:
        try:
            run = home.find_run(str(folder))
        except AnomalyAEError:
            raise error from None
        again = home.command("score", "FOLDER", model=str(folder))
        raise DataMissing(f"{folder} is the run {run.record.id}; name a folder of images, too: {again}") from error


def _engine(name: str, ray_address: str | None, device: str) -> Engine:
    """The engine called so. Raises `UnknownName`, and `UsageError` for what does not go with it."""
    if name not in ENGINES:
        raise UnknownName("engine", name, ENGINES)
    if name == LOCAL and ray_address:
        raise UsageError(
            f"{setting('ray_address', ray_address)} goes with {setting('engine', RAY)}, and the engine is {LOCAL}"
        )
    if name == LOCAL:
        return score_locally
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"{setting('engine', RAY)} scores on CPUs, and {setting('device', device)} was given; leave one of "
            "them out"
        )
    from anomaly_ae.integrations.ray import ray_engine

    return ray_engine(ray_address)


def _check_places(job: Job, overlays: Path | None, covers: Path | None, page: Path | None) -> None:
    """Raise before any work what would be raised after it."""
    if page and (page.suffix.lower() not in (".html", ".htm") or page.is_dir()):
        raise UsageError(f"the report is a file that ends in .html, and {page} was named")
    for wish, place in (("heatmaps", overlays), ("masks", covers)):
        if place:
            check_overlays(job, place, wish)
    if overlays and covers and overlays.resolve() == covers.resolve():
        raise UsageError(f"{setting('heatmaps')} and {setting('masks')} name one folder, {covers}; name two")
    for folder in (page and page.parent, overlays, covers):
        if folder:
            require_writable(folder)


def _kinds(bad: list[tuple[int, str]]) -> dict[str, int]:
    """The most frequent reasons, and how many files there are with others."""
    kinds = Counter(reason for _, reason in bad)
    most = dict(kinds.most_common(REASONS))
    others = len(bad) - sum(most.values())
    return most | ({"other reasons": others} if others else {})


def _result(
    job: Job, scores: Scores, seconds: float, overlays: Path | None, covers: Path | None, page: Path | None
) -> ScoreResult:
    changes = scores.changes or Changes()
    one = torch.from_numpy(scores.values) if len(scores.values) == 1 and scores.good.all() else None
    return ScoreResult(
        detector=job.detector.name,
        seen=scores.seen,
        images=len(scores.listing),
        scored=scores.scored,
        anomalies=int(scores.anomalous.sum()),
        errors=len(scores.bad),
        skipped=scores.listing.skipped,
        seconds=round(seconds, 3),
        images_per_second=round(scores.scored / seconds, 1),
        output=str(job.output),
        threshold=job.calibration.threshold,
        target_fpr=job.calibration.target_fpr,
        guarantee=job.calibration.method,
        error_kinds=_kinds(scores.bad),
        first_errors=[shown(scores.listing.paths[i]) for i, _ in scores.bad[:ERRORS_NAMED]],
        left_out=scores.listing.left_out,
        unread_folders=first_unread(scores.listing),
        resumed=scores.changes is not None,
        new=changes.new,
        changed=changes.changed,
        gone=changes.gone,
        differences=scores.differences,
        drift=job.detector.drift(torch.from_numpy(scores.values[scores.good])),
        fdr=job.fdr,
        discoveries=None if scores.discovered is None else int(scores.discovered.sum()),
        fewest_discoveries=scores.fewest,
        discoveries_need=None if job.fdr is None else images_needed(job.fdr),
        heatmaps=None if overlays is None else str(overlays),
        heatmaps_written=0,
        heatmaps_missing=0,
        masks=None if covers is None else str(covers),
        masks_written=0,
        masks_missing=0,
        report=None if page is None else str(page),
        score=None if one is None else one.item(),
        p_value=None if one is None else job.calibration.p_values(one).item(),
    )
