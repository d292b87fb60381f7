"""What is reviewed: the rows of a scored folder with their marks, asked for by whatever page shows them."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anomaly_ae.calibration.single_precision import float32_below
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.regions import read_regions
from anomaly_ae.errors import DataChanged, DataMissing, UsageError
from anomaly_ae.escaping import printable, shown
from anomaly_ae.images.listing import NOT_KNOWN, Source
from anomaly_ae.images.preprocessing import Preprocessed
from anomaly_ae.images.sources import open_source
from anomaly_ae.review.review_results import (
    About,
    AtThreshold,
    Axis,
    Floats,
    Item,
    Kept,
    MarkedShare,
    Query,
    Shown,
    Window,
)
from anomaly_ae.review.row_queries import RowQueries
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import from_here, setting
from anomaly_ae.scoring.ledger import ScoredBy
from anomaly_ae.scoring.marks import BAD, GOOD, NONE, Mark, MarkFile, contradicting, stat_of, state_of
from anomaly_ae.scoring.rows import Bools
from anomaly_ae.scoring.scored_rows import ScoredRows
from anomaly_ae.workflows import calibrate
from anomaly_ae.workflows.find_model import load_model

MOST_ITEMS = 500  # at a time
MOST_FOLDERS = 1_000  # to choose from
BINS = 80  # of the histogram
SCORED_AGAIN = 4  # images by which it is told whether a detector made the scores,
ALIKE = 1e-3  # and how alike those are
LOOKED_AT_EVERY = 60.0  # seconds: marked files that no file system is asked about


@dataclass(eq=False)
class Session:
    """A scored output under review: by which detector it is looked at, and the marks beside it.

    model: what the detector is loaded by
    """

    output: Path
    rows: ScoredRows
    detector: Detector
    model: str
    source: Source
    marks: MarkFile
    home: RunStore
    threshold: float
    version: int = 0
    _checked: dict[bytes, tuple[Any, bool]] = field(default_factory=dict)

    @classmethod
    def open(cls, output: Path, model: str | None, home: RunStore, folder: str | None = None) -> "Session":
        """The review of an output, by the detector that scored it unless another one is named.

        Raises what `ScoredRows.read` and `find_model` raise, and `UsageError` where the pictures or the detector are
        not those that were scored.
        """
        rows, by = ScoredRows.read(output), ScoredBy.read(output)
        source = _source(output, by, folder)
        if not (name := model or by.model):
            raise UsageError(f"it is not known what scored {output}; name the detector with {setting('model')}")
        detector, run = load_model(home, name)
        session = cls(
            *(output, rows, detector, run.record.id if run else name, source, MarkFile.beside(output), home),
            detector.threshold if model or rows.threshold is None else rows.threshold,
        )
        if detector.digest != by.detector:
            session._require_same_scores()
        session.refresh()
        if session.marks.damaged:
            logger.warning(f"{session.marks.path}: lines that are no marks, left out: {session.marks.damaged:,}")
        return session

    @cached_property
    def written(self) -> float:
        """When the rows were."""
        return self.output.stat().st_mtime

    @cached_property
    def axis(self) -> Axis:
        calibration = self.detector.calibration.scores.numpy()
        return Axis.of(np.concatenate([self.rows.scores[self.rows.scored], calibration]).astype(np.float64))

    @cached_property
    def p_values(self) -> Floats:
        """Of all files, NaN without a score, (N,)."""
        scores, there = self.rows.scores, self.rows.scored
        values = np.full(len(scores), np.nan)
        values[there] = self.detector.calibration.p_values(torch.tensor(scores[there])).numpy()
        return values

    @cached_property
    def queries(self) -> RowQueries:
        return RowQueries(self.rows, self.axis)

    @cached_property
    def positions(self) -> dict[bytes, int]:
        """Of each path."""
        return {path: i for i, path in enumerate(self.rows.paths)}

    def about(self) -> About:
        counts = Counter(self.queries.folders.tolist())
        calibration = self.detector.calibration.scores.numpy()
        return About(
            output=printable(str(self.output)),
            source=printable(from_here(self.source.name)),
            detector=self.detector.name,
            model=printable(self.model),
            images=len(self.rows.paths),
            errors=int((~self.rows.scored).sum()),
            threshold=self.threshold,
            axis=self.axis,
            folder_bins=self._histogram(self.rows.scores[self.rows.scored]),
            calibration_bins=self._histogram(calibration),
            calibration_images=len(calibration),
            has_maps=self.detector.map_scorer is not None,
            folders={shown(name): number for name, number in sorted(counts.items())[:MOST_FOLDERS] if name},
        )

    def at(self, threshold: float) -> AtThreshold:
        """What a threshold comes to. Raises `UsageError` where it is no finite number."""
        if not abs(threshold) < float(np.finfo(np.float32).max):
            raise UsageError(f"a threshold is a finite number, and {threshold} was given")
        edge = float32_below(threshold)
        anomalous = int((self.rows.scores[self.rows.scored] > edge).sum())
        marks, scores = self._holding(), self.rows.scores.astype(np.float64)
        against = contradicting(marks.values())
        telling = {i: mark for i, mark in marks.items() if mark.mark in (GOOD, BAD) and mark not in against}
        changed = {i for i, mark in telling.items() if self._has_changed(mark.file)}
        counting = {i: mark.mark for i, mark in telling.items() if i not in changed and self.rows.scored[i]}
        good, bad = (
            np.array([scores[i] for i, mark in counting.items() if mark == kind], np.float64) for kind in (GOOD, BAD)
        )
        lost = len(list(self._ours())) - len(marks)
        left_out = {"lost": lost, "contradicting": len(against), "changed": len(changed)}
        return AtThreshold(
            threshold=edge,
            anomalous=anomalous,
            normal=int(self.rows.scored.sum()) - anomalous,
            held=self.detector.calibration.held_at(edge),
            detected=MarkedShare.of(bad, edge),
            false_alarms=MarkedShare.of(good, edge),
            marks=dict(Counter(mark.mark for mark in marks.values())) | left_out,
            version=self.version,
        )

    def window(self, query: Query, start: int, count: int) -> Window:
        """So many of the items that a query asks for, from `start` on."""
        there = self.queries.by_score(query.filter, query.threshold)
        there = self._of_mark(query.filter) if there is None else there
        order = self.queries.in_order(there & self.queries.below(query.folder), query.sort, query.threshold)
        return Window(len(order), [self.item(int(i)) for i in order[start : start + min(count, MOST_ITEMS)]])

    def item(self, index: int) -> Item:
        """Raises `DataMissing` where there is no such row."""
        path, there = self.path(index), bool(self.rows.scored[index])
        mark = self.marks.marks.get((self.source.identity, path))
        return Item(
            index=index,
            path=printable(shown(path)),
            score=float(self.rows.scores[index]) if there else None,
            p_value=float(self.p_values[index]) if there else None,
            mark=mark.mark if mark else NONE,
            lost=bool(mark and mark.mark != NONE and not self._holds(mark)),
            changed=self._has_changed(path),
            state=state_of(self.source, path),
            error=self.rows.errors.get(index),
            regions=read_regions(self.rows.regions[index]),
        )

    def path(self, index: int) -> bytes:
        """Of a row. Raises `DataMissing` where there is no such row."""
        if not 0 <= index < len(self.rows.paths):
            raise DataMissing(f"there is no row {index}")
        return self.rows.paths[index]

    def mark(self, index: int, mark: str, seen: str | None = None) -> Item:
        """Mark a file; the mark is on the disk when this returns.

        seen: the state that the file was shown in, as its item has it; None where nobody was shown it
        Raises `DataChanged` where it is another one by now, `DataMissing` where the file is gone.
        """
        path = self.path(index)
        made = Mark.of(self.source, path, mark)
        if mark != NONE and seen not in (None, state_of(self.source, path)):  # asked after the file has been read
            raise DataChanged(f"{shown(path)} has changed since it was shown, and is not marked; look again")
        self.marks.append(made)
        self.version += 1
        return self.item(index)

    def keep(self, threshold: float) -> Kept:
        """Calibrate the detector at a threshold, in a run of its own. Raises what `calibrate` does."""
        run_id = calibrate.calibrate(self.model, threshold=threshold, home=self.home).run_id
        return Kept(run_id, self.home.command("score", self.source.name, model=run_id))

    def refresh(self) -> None:
        """Take notice of what others have marked."""
        if self.marks.refresh():
            self.version += 1

    def _ours(self) -> Iterator[tuple[int, Mark]]:
        """The marks on files of these rows, each with its position."""
        for mark in self.marks:
            if mark.source == self.source.identity and (position := self.positions.get(mark.file)) is not None:
                yield position, mark

    def _holding(self) -> dict[int, Mark]:
        """Those on files that are still what was marked, by position."""
        return {i: mark for i, mark in self._ours() if self._holds(mark)}

    def _holds(self, mark: Mark) -> bool:
        """Whether a mark counts, found out anew only where the file has been touched since this was last asked; where
        no file system tells of that, every minute.
        """
        key = mark, state_of(self.source, mark.file) or int(time.monotonic() // LOOKED_AT_EVERY)
        known = self._checked.get(mark.file)
        if known is None or known[0] != key:
            self._checked[mark.file] = known = key, mark.holds(self.source)
            self.version += 1
        return known[1]

    def _has_changed(self, path: bytes) -> bool:
        """Whether a file is known to have changed since the rows were written, so that its score is another one's."""
        about = stat_of(self.source, path)
        return about is not None and about.st_mtime > self.written

    def _of_mark(self, kind: str) -> Bools:
        """Which files are of a kind that marks tell, (N,)."""
        holding, marked = self._holding(), np.zeros(len(self.rows.paths), bool)
        if kind == Shown.LOST:
            chosen = [i for i, _ in self._ours() if i not in holding]
        elif kind == Shown.CONTRADICTING:
            against = contradicting(holding.values())
            chosen = [i for i, mark in holding.items() if mark in against]
        else:
            chosen = [i for i, mark in holding.items() if kind in (Shown.MARKED, Shown.UNMARKED, mark.mark)]
        marked[chosen] = True
        return ~marked if kind == Shown.UNMARKED else marked

    def _histogram(self, scores: npt.NDArray[np.float32]) -> list[float]:
        counts, _ = np.histogram(self.axis.along(scores), BINS, (0, 1))
        return [float(count) / max(1, len(scores)) for count in counts]

    def _require_same_scores(self) -> None:
        """Raise `UsageError` unless the detector gives some of the images the scores that they have."""
        there = (i for i in np.flatnonzero(self.rows.scored).tolist() if not self._has_changed(self.rows.paths[i]))
        some = list(itertools.islice(there, SCORED_AGAIN))
        with self.detector.preprocessing.decoders(self.source, 1) as decoders:
            records = decoders.decode([self.rows.paths[i] for i in some], np.full(len(some), NOT_KNOWN))
        good = records["error"] == b""
        scores = self.detector.score(Preprocessed(torch.from_numpy(records["pixels"][good].copy()))).numpy()
        before = self.rows.scores[some][good]
        if len(before) and np.allclose(scores, before, rtol=ALIKE, atol=ALIKE * float(np.abs(before).max())):
            return
        what = "are not those of" if len(before) else "cannot be compared, for the pictures are gone or changed, with"
        raise UsageError(
            f"the scores in {self.output} {what} the detector {self.model}; name the one that scored the folder with "
            f"{setting('model')}, or score it again"
        )


def _source(output: Path, by: ScoredBy, folder: str | None) -> Source:
    """Where the pictures are. Raises `UsageError` where that is not known, `DataMissing` where they are gone."""
    if folder is None and not by.place:
        raise UsageError(
            f"it is not known which pictures the scores in {output} are of, for the folder {output.name} was scored "
            f"with left nothing beside it; name them with {setting('folder')}"
        )
    source = open_source(folder or by.place)
    if folder is None and source.identity != by.source:
        raise UsageError(f"the scores in {output} are of {by.source}; go there, for its paths are relative")
    return source
