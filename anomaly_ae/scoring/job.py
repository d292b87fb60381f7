"""A scoring job: every file of a source scored once, shard by shard, and the rows written in one step."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.datasets.layout_texts import say_left_out_of
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import EngineError, Interrupted
from anomaly_ae.escaping import counted
from anomaly_ae.images.listing import Listing, Source
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import stage
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scoring.ledger import Changes, Ledger
from anomaly_ae.scoring.rows import (
    UNSCORED,
    Batch,
    Bools,
    find_differences,
    is_scored,
    make_table,
    read_batches,
    score_batch,
    seen_words,
    with_progress,
)
from anomaly_ae.scoring.writers import writer_for
from anomaly_ae.storage.atomic import remove_temporary, write_with

KEPT_EVERY = 10.0  # seconds of work that a kill may cost


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be scored by what, and where the rows go. Raises `UsageError` when that is no place for them.

    model: what to load the detector by again
    """

    detector: Detector
    calibration: Calibration
    source: Source
    output: Path
    fdr: float | None = None
    workers: int | None = None
    model: str = ""

    def __post_init__(self) -> None:
        writer_for(self.output)


# Fills the ledger where it lacks results of files in the list; how many files that were.
Engine = Callable[[Job, Ledger, Listing], int]


@dataclass(frozen=True, eq=False)
class Scores:
    """What came of a job.

    listing:     all files
    changes:     since the job that is resumed began, if it is
    scored:      how many files were worked on now
    values:      the scores, float32 (N,), NaN where there is an error
    anomalous:   which are above the threshold, (N,)
    discovered:  which are discoveries at the false discovery rate asked for, (N,); fewest: how many are possible
    differences: how the images look unlike those of the training, in words
    bad:         the files without a score: position and reason
    seen:        at what size the images are seen, and what size they have, in words; None without a score
    """

    listing: Listing
    changes: Changes | None
    scored: int
    values: npt.NDArray[np.float32]
    anomalous: Bools
    discovered: Bools | None
    fewest: int | None
    differences: list[str]
    bad: list[tuple[int, str]]
    seen: str | None

    @property
    def good(self) -> Bools:
        """Which files have a score, (N,)."""
        return np.isfinite(self.values)


def score_job(job: Job, resume: bool = False, engine: Engine | None = None, others: Sequence[Path] = ()) -> Scores:
    """Score all files of a job, or with `resume` those that are missing, and write the rows.

    engine: what scores them, by default `score_locally`; others: files that are written beside the rows
    Raises `DataMissing` when there is no image; `UsageError` when the job to resume is another; `RunBusy` when
    another process works on it; `Interrupted` on Ctrl-C, when all but the batch in work is kept.
    """
    ledger = Ledger.beside(job.output, job.detector)
    with stage(f"looking for images in {job.source.name}"):
        now = job.source.pictures()
    now = replace(now, skipped=now.skipped - ledger.files_in(job.source, job.output, *others))
    say_left_out_of(now)
    with ledger.locked():
        listing, changes = _list(job, ledger, now, resume)
        try:
            scored = (engine or score_locally)(job, ledger, listing)
            with stage(f"writing {job.output}"):
                scores = _read_scores(job, ledger, listing, changes, scored)
                remove_temporary(job.output)
                write_with(job.output, partial(_write_rows, job, ledger, scores))
        except KeyboardInterrupt:
            kept = len(listing) - sum(map(len, ledger.missing(listing)))
            raise Interrupted(
                f"interrupted; {kept:,} of {len(listing):,} files are scored, and the same command with "
                f"{setting('resume', True)} goes on"
            ) from None
        return scores


def score_locally(job: Job, ledger: Ledger, listing: Listing) -> int:
    """Score what has no result yet in this process, with decoders beside it: the engine of one machine."""
    with stage("looking for what has been scored before"):
        missing = list(ledger.missing(listing))
    wanted = np.concatenate([np.zeros(0, np.int64), *missing])
    with job.detector.preprocessing.decoders(job.source, job.workers) as decoders:
        done = len(listing) - len(wanted)
        alone = listing.paths == [os.fsencode(job.source.name)]  # one image that was named, and no folder
        batches = with_progress(read_batches(decoders, job.detector, listing, wanted, few=alone), len(listing), done)
        for positions in missing:  # of a shard; decoding does not wait where one ends
            _score_shard(job, ledger, listing, len(positions), ledger.around(int(positions[0]), listing), batches)
        next(batches, None)  # so that the display comes to its end
    return len(wanted)


def _score_shard(
    job: Job, ledger: Ledger, listing: Listing, missing: int, where: slice, batches: Iterator[Batch]
) -> None:
    """Score what is missing in a shard and keep it: at its end, whatever that is, and every few seconds before."""
    results, kept = ledger.read_shard(where, listing), time.monotonic()
    try:
        while missing:
            batch = next(batches)
            results[batch.positions - where.start] = score_batch(job.detector, listing, batch)
            missing -= len(batch.positions)
            if time.monotonic() - kept > KEPT_EVERY:
                ledger.write_shard(where, listing, results)
                kept = time.monotonic()
    finally:
        ledger.write_shard(where, listing, results)


def _list(job: Job, ledger: Ledger, now: Listing, resume: bool) -> tuple[Listing, Changes | None]:
    if resume and ledger.is_begun():
        return ledger.resume(job.source.identity, now)
    if (kept := ledger.kept()) and not job.output.exists():
        logger.info(
            f"starting over: {counted(kept, 'shard')} of an unfinished job given up, which {setting('resume', True)} "
            "would have kept"
        )
    if job.output.exists() and (before := ledger.source()) not in (None, job.source.identity):
        logger.info(
            f"replacing {job.output}, which holds the scores of {before}; {setting('output')} names another file"
        )
    return ledger.begin(job.source, now, job.model), None


def _read_scores(job: Job, ledger: Ledger, listing: Listing, changes: Changes | None, scored: int) -> Scores:
    """All scores, and what follows from them."""
    results = np.concatenate([ledger.read_shard(where, listing) for where in ledger.shards(listing)])
    if lost := int((results["bytes"] == UNSCORED).sum()):
        raise EngineError(
            f"{lost:,} files were not scored; the same command with {setting('resume', True)} scores them"
        )
    values, good, discovered, fewest = results["score"], is_scored(results), None, None
    if job.fdr is not None:
        discoveries = job.calibration.discoveries(torch.from_numpy(values[good]), job.fdr)
        discovered, fewest = np.zeros(len(values), bool), discoveries.possible
        discovered[good] = discoveries.found.numpy()
    bad = [(i, results["error"][i]) for i in np.flatnonzero(~good).tolist()]
    anomalous, differences = values > job.calibration.threshold, find_differences(job.detector, results)
    seen = seen_words(job.detector, results)
    return Scores(listing, changes, scored, values.copy(), anomalous, discovered, fewest, differences, bad, seen)


def _write_rows(job: Job, ledger: Ledger, scores: Scores, path: Path) -> None:
    """Write the rows of all shards."""
    with closing(writer_for(job.output)(path)) as writer:
        for where in ledger.shards(scores.listing):
            discovered = None if scores.discovered is None else scores.discovered[where]
            paths, results = scores.listing.paths[where], ledger.read_shard(where, scores.listing)
            writer.write(make_table(paths, results, job.calibration, discovered))
