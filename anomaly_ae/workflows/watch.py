"""A resident detector: every file that comes into a folder gets its row, once."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType

import numpy as np
import torch

from anomaly_ae.autoencoders.inference import batch_size
from anomaly_ae.calibration.drift import Drift, RollingDrift
from anomaly_ae.datasets.layout_texts import say_left_out_of
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import StorageError, UnknownName, UsageError, one_line
from anomaly_ae.escaping import counted, printable, shown
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.listing import Listing
from anomaly_ae.images.sources import Folder, open_source
from anomaly_ae.integrations.webhook import Outbox, check_webhook, has_messages
from anomaly_ae.reporting.folder_report import OVERLAY_SIDE, check_overlays, save_overlay
from anomaly_ae.reporting.text.phrases import moved
from anomaly_ae.runs.store import LATEST, RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import stage
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scoring.arrivals import Arrivals, File, Waiting
from anomaly_ae.scoring.job import Job
from anomaly_ae.scoring.previews import look_at, looking
from anomaly_ae.scoring.row_log import CURRENT, Row, RowLog
from anomaly_ae.scoring.rows import Positions, Results, is_scored, read_batches, score_batch
from anomaly_ae.scoring.scoring_results import WatchResult
from anomaly_ae.storage.atomic import expand, sha256
from anomaly_ae.workflows.find_model import load_model

SENT_FOR = ANOMALIES, ALL_ROWS = "anomalies", "all"
HEATMAPS = "heatmaps"  # a folder of the output
BATCHES = 4  # whole ones that are taken at a time
TICK = 0.2  # seconds between looks at whether to end, at the most
HEARTBEAT = 60.0  # seconds
LATENCIES = 1_000  # the last ones
ONCE_WAITS = 10.0  # seconds for files that are being written
SENDS_AT_END = 10.0  # seconds


def watch(
    folder: str | Path,
    output: str | Path,
    model: str | Path = LATEST,
    *,
    heatmaps: bool = False,
    webhook: str | None = None,
    webhook_for: str = ANOMALIES,
    once: bool = False,
    poll: float | None = None,
    device: str = "auto",
    home: RunStore | None = None,
) -> WatchResult:
    """Score every image that is in a folder or comes into it, once, until Ctrl-C or SIGTERM.

    output: a folder for the rows: `rows.jsonl`, and `shards/*.parquet` of the hours before; and, with `heatmaps`,
    for a picture of each anomalous image. webhook: an address that anomalies, or all rows, are sent to. once: end
    when all that is there has a row. poll: seconds between listings of the folder, where no events come of new files.
    Raises what `RowLog.opened`, `check_webhook` and `find_model` raise, `DataMissing` when there is no such folder,
    `StorageError` when no row can be written any more; the same call goes on where it ended.
    """
    if webhook_for not in SENT_FOR:
        raise UnknownName(setting("webhook_for"), webhook_for, SENT_FOR)
    if webhook:
        check_webhook(webhook)
    if poll is not None and not 0.1 <= poll <= 86_400:
        raise UsageError(f"{setting('poll')} is seconds between listings, from 0.1 to a day, and {poll:g} was given")
    source, output = open_source(folder), expand(output)
    if not isinstance(source, Folder):
        raise UsageError(f"a folder on this machine can be watched, and {folder} was named")
    with stage("loading the detector"):
        detector, _ = load_model(home or RunStore.find(), str(model), device)
    if heatmaps:
        check_overlays(Job(detector, detector.calibration, source, output / CURRENT), output / HEATMAPS)
    with ExitStack() as stack:
        rows = stack.enter_context(RowLog.opened(output, detector, source))
        decoders = stack.enter_context(detector.preprocessing.decoders(source))
        previews = stack.enter_context(looking(detector, source, OVERLAY_SIDE, 1)) if heatmaps else None
        outbox = Outbox(output, webhook) if webhook else None
        if not outbox and has_messages(output):
            logger.info(f"messages of before wait in {output}; {setting('webhook')} sends them")
        watcher = _Watcher(source, detector, rows, decoders, previews, outbox, webhook_for == ALL_ROWS)
        with _ending(watcher):
            return watcher.run(once, poll)


@contextmanager
def _ending(watcher: "_Watcher") -> Iterator[None]:
    """Within it, SIGTERM and Ctrl-C end the work in order; a second one at once."""

    def end(*_: int | FrameType | None) -> None:
        if watcher.stopping:
            raise KeyboardInterrupt
        watcher.stopping = True

    numbers = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = [(number, signal.signal(number, end)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@dataclass(eq=False)
class _Watcher:
    """The loop, and what it counts; all that lasts is in `rows` and `outbox`.

    previews: decoders for heat maps, where they are wanted
    send_all: whether all rows are sent, not those of anomalies alone
    stopping: set by whoever wants it to end
    """

    source: Folder
    detector: Detector
    rows: RowLog
    decoders: Decoders
    previews: tuple[Decoders, Decoders] | None
    outbox: Outbox | None
    send_all: bool
    stopping: bool = False
    files: int = 0
    anomalies: int = 0
    errors: int = 0
    heatmaps_missing: int = 0

    def __post_init__(self) -> None:
        self.waiting = Waiting(self.source)
        self.drift = RollingDrift(self.detector.calibration.scores_by_group)
        self.latencies = deque[float](maxlen=LATENCIES)
        self.most = BATCHES * batch_size(*self.detector.preprocessing.shape[1:])

    def run(self, once: bool, poll: float | None) -> WatchResult:
        began, arrivals = time.monotonic(), Arrivals(self.source, self.rows.known, poll)
        self._warm_up()
        with closing(arrivals):
            if self.outbox:
                self.outbox.start()
            say_left_out_of(arrivals.look() if once else arrivals.start())
            if not once:
                logger.info(f"watching {self.source.name}; Ctrl-C ends it")
            self._work(arrivals, once)
        unsent = self.outbox.close(SENDS_AT_END) if self.outbox else 0
        return self._result(time.monotonic() - began, unsent)

    def _warm_up(self) -> None:
        """Do once what is done for a file, with one that cannot be read, so that the first one need not wait."""
        listing = Listing.of([(b".", 0, 0)])
        for batch in read_batches(self.decoders, self.detector, listing, few=True):
            self.rows.rows(listing, score_batch(self.detector, listing, batch))
        if self.previews:
            import_module("anomaly_ae.reporting.figures.image_grids")  # which is slow to load

    def _work(self, arrivals: Arrivals, once: bool) -> None:
        beat = waited_since = time.monotonic()
        while not self.stopping:
            now = time.monotonic()
            for file in arrivals.take(self.most - self.waiting.untried()):
                self.waiting.add(file, now)
            if ready := self.waiting.due(now, self.most):
                done = self.files
                self._score(ready)
                ended = time.monotonic()
                waited_since = ended if self.files > done else waited_since + ended - now  # work is no waiting
            elif once and (not len(self.waiting) or now - waited_since > ONCE_WAITS):
                return
            else:
                arrivals.wait(min(TICK, max(0.0, self.waiting.next_due() - now)))
            self.rows.finish_segment()
            if now - beat >= HEARTBEAT:
                beat = now
                logger.info(self._state())

    def _score(self, files: list[File]) -> None:
        """Score files, and write the rows of those that are still as they were."""
        paths, sizes, times = zip(*files, strict=True)
        listing = Listing(list(paths), np.array(sizes, np.int64), np.array(times, np.int64))
        for batch in read_batches(self.decoders, self.detector, listing, few=True):
            results = score_batch(self.detector, listing, batch)
            scored = is_scored(results)
            places = batch.positions.tolist()
            keep = [self._counts(files[i], good) for i, good in zip(places, scored.tolist(), strict=True)]
            if any(keep):
                self._keep(listing.take(batch.positions[keep]), results[keep])
            if self.stopping:
                return

    def _counts(self, file: File, scored: bool) -> bool:
        """Whether a result is a row; an error is when there was one before, and not of what is being ended."""
        now = time.monotonic()
        return self.waiting.is_same(file, now) and (scored or (self.waiting.fail(file[0], now) and not self.stopping))

    def _keep(self, listing: Listing, results: Results) -> None:
        """Write rows, after all else: what a kill cuts short is done again then, under the same names."""
        rows, good = self.rows.rows(listing, results), is_scored(results)
        anomalous = results["score"] > self.detector.threshold
        if self.previews:
            self._draw(self.previews, listing, anomalous.nonzero()[0])
        if self.outbox and (chosen := [row for row in rows if self.send_all or row["is_anomaly"]]):
            self.outbox.add([self._message(row) for row in chosen])
        self.rows.append(rows)
        now = time.monotonic()
        self.latencies.extend(now - self.waiting.finish(path) for path in listing.paths)
        self.files += len(rows)
        self.anomalies += int(anomalous.sum())
        self.errors += int((~good).sum())
        if drift := self.drift.add(torch.from_numpy(results["score"][good])):
            self._say_drift(drift)

    def _draw(self, decoders: tuple[Decoders, Decoders], listing: Listing, positions: Positions) -> None:
        missing, folder = len(positions), self.rows.folder / HEATMAPS
        for preview in look_at(self.detector, decoders, listing, positions):
            try:
                save_overlay(self.detector, preview, listing.paths[preview.position], folder)
                missing -= 1
            except StorageError as error:
                logger.warning(one_line(error))
        self.heatmaps_missing += missing

    def _message(self, row: Row) -> Row:
        """What is sent about a row; the same file has the same id, also when it is sent again."""
        parts = f"{row['bytes']} {row['time']} {row['path_bytes']} {row['path']}".encode()
        about = {"id": sha256(self.detector.digest.encode(), parts)[:32], "detector": printable(self.detector.name)}
        return about | {"folder": shown(os.fsencode(self.source.name))} | row

    def _say_drift(self, drift: Drift) -> None:
        if self.drift.moved:
            logger.warning(f"drift: {moved(drift)} one of the last images scores above a calibration image")
        else:
            logger.info("drift: the scores of the last images are like those of the calibration again")

    def _p95(self) -> float | None:
        """Milliseconds from when a file is seen to its row, of 95 % of the last ones at the most."""
        return round(1_000 * float(np.quantile(self.latencies, 0.95)), 1) if self.latencies else None

    def _state(self) -> str:
        late, unsent = self._p95(), self.outbox.waiting if self.outbox else 0
        return (
            f"{counted(self.files, 'file')} scored, {self.anomalies:,} anomalous, {self.errors:,} bad, "
            f"{len(self.waiting):,} waiting"
            + (f"; {counted(unsent, 'message')} to be sent" if unsent else "")
            + (f"; 95 % have their row {late:,.0f} ms after they are seen" if late is not None else "")
        )

    def _result(self, seconds: float, unsent: int) -> WatchResult:
        return WatchResult(
            detector=self.detector.name,
            files=self.files,
            anomalies=self.anomalies,
            errors=self.errors,
            gone=self.waiting.gone,
            waiting=len(self.waiting),
            threshold=self.detector.threshold,
            target_fpr=self.detector.calibration.target_fpr,
            guarantee=self.detector.calibration.method,
            drifted=self.drift.moved,
            p95_ms=self._p95(),
            seconds=round(seconds, 3),
            output=str(self.rows.folder),
            heatmaps=str(self.rows.folder / HEATMAPS) if self.previews else None,
            heatmaps_missing=self.heatmaps_missing,
            unsent=unsent,
            interrupted=self.stopping,
        )
