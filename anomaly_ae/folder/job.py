"""A scoring job: every file of a source scored once, shard by shard, and the rows written in one step."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from anomaly_ae.calibration import Calibration, Discoveries
from anomaly_ae.data.decoders import Decoders
from anomaly_ae.data.sources import Listing, Source
from anomaly_ae.detector import Detector
from anomaly_ae.errors import Interrupted
from anomaly_ae.files import remove_temporary, write_with
from anomaly_ae.folder.ledger import Changes, Ledger
from anomaly_ae.folder.output import writer_for
from anomaly_ae.folder.reading import Looks, Positions, read_batches
from anomaly_ae.folder.rows import Bools, is_scored, make_table, score_batch
from anomaly_ae.progress import Display, display


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be scored by what, and where the rows go."""

    detector: Detector
    calibration: Calibration
    source: Source
    output: Path
    fdr: float | None = None
    workers: int | None = None


@dataclass(frozen=True, eq=False)
class Scores:
    """What came of a job.

    listing, scores: all files, and their scores, float32 (N,), NaN where there is an error
    bad:         the files without a score: position and reason
    anomalous:   which are above the threshold, (N,)
    discoveries: at the false discovery rate asked for, of the images that have a score
    scored:      files that were worked on now
    differences: how those look unlike the training
    """

    listing: Listing
    changes: Changes | None
    scores: npt.NDArray[np.float32]
    bad: list[tuple[int, str]]
    anomalous: Bools
    discoveries: Discoveries | None
    scored: int
    differences: list[str] = field(default_factory=list)


def score_job(job: Job, resume: bool = False) -> Scores:
    """Score all files of a job, or with `resume` those that are missing, and write the rows.

    Raises `DataMissing` when there is no image; `UsageError` when the output is none or the job to resume another;
    `RunBusy` when another process works on it; `Interrupted` on Ctrl-C, when all but the shard in work is kept.
    """
    writer_for(job.output)
    ledger = Ledger.beside(job.output, job.detector)
    now = job.source.list()
    with ledger.locked():
        listing, changes = _list(job, ledger, now, resume)
        with _said_how_to_go_on(ledger, listing):
            scored, looks = _score_missing(job, ledger, listing)
            return _write_rows(job, ledger, listing, changes, scored, looks.differences())


def _list(job: Job, ledger: Ledger, now: Listing, resume: bool) -> tuple[Listing, Changes | None]:
    known = job.detector.digest, job.source.identity
    return ledger.resume(*known, now) if resume and ledger.is_begun() else (ledger.begin(*known, now), None)


def _score_missing(job: Job, ledger: Ledger, listing: Listing) -> tuple[int, Looks]:
    """Score what has no result yet; how many files that were, and what they look like."""
    missing, looks = list(ledger.missing(listing)), Looks(job.detector)
    count = sum(map(len, missing))
    with (
        Decoders(job.source, job.detector.preprocessing.shape, job.workers) as decoders,
        display(len(listing), len(listing) - count) as progress,
    ):
        _score_shards(job, ledger, listing, missing, _Reading(decoders, looks, progress))
    return count, looks


@contextmanager
def _said_how_to_go_on(ledger: Ledger, listing: Listing) -> Iterator[None]:
    """Turn Ctrl-C inside into `Interrupted`, with what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        kept = len(listing) - sum(map(len, ledger.missing(listing)))
        raise Interrupted(
            f"interrupted; {kept:,} of {len(listing):,} files are scored: the same command with --resume goes on"
        ) from None


@dataclass(frozen=True)
class _Reading:
    decoders: Decoders
    looks: Looks
    progress: Display


def _score_shards(job: Job, ledger: Ledger, listing: Listing, missing: list[Positions], reading: _Reading) -> None:
    """Score the positions missing in each shard and keep the shard. Decoding does not wait where one ends."""
    wanted = np.concatenate([np.zeros(0, np.int64), *missing])
    batches, done = read_batches(reading.decoders, job.detector, listing, wanted), len(listing) - len(wanted)
    for positions in missing:
        start = int(positions[0]) // ledger.shard * ledger.shard
        where, left = slice(start, min(start + ledger.shard, len(listing))), len(positions)
        results = ledger.read_shard(where)
        while left:
            batch = next(batches)
            results[batch.positions - start] = score_batch(job.detector, listing, batch)
            reading.looks.see(batch)
            left, done = left - len(batch.positions), done + len(batch.positions)
            state = f"{done:,} of {len(listing):,} files"
            reading.progress.advance(len(batch.positions), state)
            reading.progress.line(f"scored {state}")
        ledger.write_shard(where, results)


def _write_rows(
    job: Job, ledger: Ledger, listing: Listing, changes: Changes | None, scored: int, differences: list[str]
) -> Scores:
    """Write the rows of all shards, after a first look at all scores, which discoveries need."""
    shards = list(ledger.shards(listing))
    scores = np.concatenate([ledger.read_shard(where)["score"] for where in shards])
    good = np.isfinite(scores)
    found, is_found = None, None
    if job.fdr is not None:
        found = job.calibration.discoveries(torch.from_numpy(scores[good]), job.fdr)
        is_found = np.zeros(len(scores), bool)
        is_found[good] = found.found.numpy()
    bad = list[tuple[int, str]]()

    def write(temporary: Path) -> None:
        with closing(writer_for(job.output)(temporary)) as writer:
            for where in shards:
                results = ledger.read_shard(where)
                bad.extend(
                    (where.start + i, results["error"][i]) for i in np.flatnonzero(~is_scored(results)).tolist()
                )
                discovered = None if is_found is None else is_found[where]
                writer.write(make_table(listing.paths[where], results, job.calibration, discovered))

    remove_temporary(job.output)
    write_with(job.output, write)
    anomalous = scores > job.calibration.threshold
    return Scores(listing, changes, scores, bad, anomalous, found, scored, differences)
