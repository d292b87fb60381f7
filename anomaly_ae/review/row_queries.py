"""Which rows of a scored folder are listed, and in which order, as far as paths and scores say it."""

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from anomaly_ae.escaping import shown
from anomaly_ae.review.review_results import Axis, Shown, SortedBy
from anomaly_ae.scoring.rows import Bools, Positions
from anomaly_ae.scoring.scored_rows import ScoredRows


@dataclass(frozen=True, eq=False)
class RowQueries:
    """What can be asked of N rows; answers are masks, bool (N,), and positions. axis: along which scores are near."""

    rows: ScoredRows
    axis: Axis

    @cached_property
    def folders(self) -> npt.NDArray[np.bytes_]:
        """The folder of each file, (N,)."""
        return np.array([os.path.dirname(path) for path in self.rows.paths], np.object_)  # noqa: PTH120 (bytes)

    def by_score(self, kind: str, threshold: float) -> Bools | None:
        """Which files are of a kind that scores tell; None for one that marks do."""
        above = self.rows.scores > threshold
        kinds: dict[str, Bools] = {
            Shown.ALL: np.ones(len(above), bool),
            Shown.ERRORS: ~self.rows.scored,
            Shown.ANOMALOUS: above,
            Shown.NORMAL: self.rows.scored & ~above,
        }
        return kinds.get(kind)

    def below(self, folder: str) -> Bools:
        """Which files lie in a folder or below it; all of them below one without a name."""
        if not folder:
            return np.ones(len(self.folders), bool)
        names = {name for name in set(self.folders.tolist()) if f"{shown(name)}/".startswith(f"{folder}/")}
        return np.array([name in names for name in self.folders], bool)

    def in_order(self, there: Bools, sort: str, threshold: float) -> Positions:
        """The files that are there, as one of `SortedBy` has them; what has no score comes last."""
        chosen = np.flatnonzero(there)
        if sort == SortedBy.PATH:
            return chosen[self._by_path[chosen].argsort(kind="stable")]
        if sort == SortedBy.RANDOM:
            return chosen[np.random.default_rng(0).permutation(len(there))[chosen].argsort()]
        scores = self.rows.scores[chosen].astype(np.float64)
        if sort == SortedBy.SCORE:
            return chosen[np.argsort(-scores, kind="stable")]
        return chosen[np.argsort(np.abs(self.axis.along(scores) - self.axis.along(threshold)), kind="stable")]

    @cached_property
    def _by_path(self) -> Positions:
        """The rank of each file by its path, (N,)."""
        ranks = np.empty(len(self.rows.paths), np.int64)
        ranks[sorted(range(len(ranks)), key=self.rows.paths.__getitem__)] = np.arange(len(ranks))
        return ranks
