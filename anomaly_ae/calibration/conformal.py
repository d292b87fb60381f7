"""From score to p-value, the threshold that holds a false-alarm rate, and the discoveries in a batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.calibration.discoveries import Discoveries, find_discoveries
from anomaly_ae.calibration.group import Group, p_value_levels, proven_in_folds
from anomaly_ae.calibration.rates import SMALLEST_RATE, cross_bound, exact, require_enough
from anomaly_ae.calibration.single_precision import as_single, float32_below
from anomaly_ae.calibration.tail import FEWEST_IN_TAIL, Tail, tail_excesses
from anomaly_ae.config.run_config import CONDITIONAL, CROSS, GUARANTEES, MARGINAL, TAIL
from anomaly_ae.errors import CalibrationError, UnknownName, UsageError
from anomaly_ae.escaping import shown
from anomaly_ae.metrics.ranking import USUAL_CONFIDENCE
from anomaly_ae.runtime.spelling import setting

MANUAL, DETECT = "manual", "detect"
CHOSEN = {  # thresholds that no rate was asked for: how they came about
    MANUAL: "the threshold was given",
    DETECT: "the threshold was chosen by known anomalies",
}
LARGEST_RATE = 0.999  # nobody wants that many alarms


@dataclass(frozen=True)
class HeldRate:
    """The false-alarm rate that some threshold holds, by which guarantee, and what it is at most, and by which."""

    rate: float
    guarantee: str
    at_most: float
    by: str


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """One monotone map from score to p-value, made of the scores of n calibration normals; the threshold inverts it.

    Where they are of several groups, say of two cameras, p is the largest of those that each group makes by itself,
    and so the threshold the highest of theirs, at every rate. In Mondrian conformal prediction, by the book that is
    named below, a new image is compared with its own group, which has to be known. Here it need not be: a p-value is
    no smaller than that of the image's own group, so that the guarantee holds for each group by itself.

    scores:     float32 (n,), of normal images used for nothing else, ascending
    target_fpr: the false-alarm rate α asked for, in (0, 1)
    guarantee:  the method. With c the number of calibration scores ≥ s, so that ties count against an
        alarm, and for normal images exchangeable with the calibration ones,
        `marginal`     p(s) = (1 + c) / (n + 1): P(alarm) ≤ α on average over calibration sets. Vovk, Gammerman and
                       Shafer 2005, https://doi.org/10.1007/b106715
        `conditional`  p(s) = the upper Clopper-Pearson bound of c of n: with the stated confidence over the draw of
                       the calibration set, the share of normal images that alarm is at most α. Clopper and Pearson
                       1934, https://doi.org/10.1093/biomet/26.4.404; Vovk 2012, https://arxiv.org/abs/1209.2673
        `tail`         marginal up to the highest tenth, and from there a generalised Pareto law: an extrapolation,
                       with no guarantee, for rates that n images cannot reach
        `cross`        (1 + c) / (n + 1) with scores of images that were learned from, too: K detectors, each trained
                       without one fold of m = n / K images, score their own folds, and a new image has the lowest of
                       their K scores. P(alarm) ≤ (k + m - 1) / (n + m) with k = ⌊α(n + 1)⌋, which is α where each
                       image is a fold: jackknife-minmax, Barber et al. 2021, https://doi.org/10.1214/20-AOS1965,
                       Theorem 2; for folds see `cross_bound`
        `manual`       p is marginal, and the threshold was chosen without regard to a rate; `target_fpr` becomes the
                       rate that it holds, (1 + the scores above it) / (n + 1), in the group where that is most.
                       From the threshold down, p is at least one step above that, so that verdict and p-value agree
        `detect`       the same, with the threshold chosen by known anomalies
    confidence: of `conditional`, in (0, 1)
    tails:      for `tail`, the law of the highest scores of each group, fitted to them where they are not given
    names:      of the files that the scores are of, one for each, if there are any
    folds:      K of `cross`, and 0 otherwise
    chosen:     the threshold of `manual` and `detect`, which becomes the next float32 below
    groups:     of which group each score is, int64 (n,), which becomes 0, 1, 2 …; None for one group, and with folds

    The threshold is such that s > threshold exactly when p(s) ≤ α. Raises `CalibrationError` when a group is too
    small for α, or a score is not finite.
    """

    scores: Tensor
    target_fpr: float
    guarantee: str = MARGINAL
    confidence: float = USUAL_CONFIDENCE
    tails: tuple[Tail, ...] = ()
    names: tuple[bytes, ...] | None = None
    chosen: float | None = None
    folds: int = 0
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        check_guarantee(self.guarantee, self.confidence, (*GUARANTEES, *CHOSEN))
        scores, order = self.scores.float().cpu().sort(stable=True)
        if not bool(torch.isfinite(scores).all()):
            raise CalibrationError("some calibration scores are not finite numbers; train again, with a lower rate")
        object.__setattr__(self, "scores", scores)
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names[i] for i in order.tolist()))
        if self.groups is not None:
            different, numbers = np.unique(self.groups.cpu().numpy(), return_inverse=True)
            object.__setattr__(self, "groups", torch.from_numpy(numbers)[order] if len(different) > 1 else None)
        if self.guarantee not in CHOSEN and (self.guarantee == CROSS) != (self.folds > 0):
            raise CalibrationError(
                "the guarantee cross is that of a detector trained in folds, which this is not; train with "
                f"{setting('guarantee', CROSS)}"
            )
        if self.guarantee in CHOSEN:
            if self.chosen is None or not math.isfinite(self.chosen):
                raise CalibrationError(f"a threshold is a finite number, and {self.chosen} was given")
            given, threshold = self.chosen, float32_below(self.chosen)
            object.__setattr__(self, "chosen", threshold)
            counts = [(group.above(threshold), len(group)) for group in self.by_group]
            rate, above, n = max(((1 + above) / (n + 1), above, n) for above, n in counts)
            if rate > LARGEST_RATE:
                raise CalibrationError(
                    f"a threshold of {given:g} calls {above:,} of {n:,} normal calibration images anomalous; choose "
                    "a higher one"
                )
            object.__setattr__(self, "target_fpr", rate)
        require_enough(
            self.fewest, self.target_fpr, self.guarantee, self.confidence, groups=len(self.scores_by_group)
        )
        if self.guarantee == TAIL and not self.tails:
            fitted = tuple(Tail.fit(scores.double().numpy()) for scores in self.scores_by_group)
            object.__setattr__(self, "tails", fitted)

    @cached_property
    def scores_by_group(self) -> tuple[Tensor, ...]:
        """The scores of each group, (n,), ascending."""
        if self.groups is None:
            return (self.scores,)
        return tuple(self.scores[self.groups == number] for number in range(int(self.groups.max()) + 1))

    @cached_property
    def by_group(self) -> tuple[Group, ...]:
        """The map that each group makes by itself."""
        tails = self.tails or (None,) * len(self.scores_by_group)
        return tuple(
            Group(scores, p_value_levels(len(scores), self.guarantee, self.confidence), tail, self.chosen)
            for scores, tail in zip(self.scores_by_group, tails, strict=True)
        )

    @property
    def fewest(self) -> int:
        """How many images the smallest group has, by which it goes what rates are possible."""
        return min(map(len, self.scores_by_group))

    @cached_property
    def threshold(self) -> float:
        """The score above which an image is called anomalous."""
        if self.chosen is not None:
            return self.chosen
        highest = max(group.threshold(self.target_fpr) for group in self.by_group)
        return self._exact(highest) if self.tails else highest

    @property
    def expected_fpr(self) -> float:
        """The false-alarm rate to expect of new normal images, at most `target_fpr`: k / (n + 1) where the threshold
        is the k-th largest calibration score. Of groups, the one with the highest.
        """
        if self.chosen is not None:
            return self.target_fpr
        return max(group.expected_fpr(self.target_fpr) for group in self.by_group)

    @property
    def method(self) -> str:
        """The guarantee in words, as it is printed beside a p-value or a threshold."""
        return self._with_groups(self._method_of_one)

    @property
    def _method_of_one(self) -> str:
        if self.guarantee in CHOSEN:
            return f"{self.guarantee}: {CHOSEN[self.guarantee]}, and this is the rate it holds"
        if self.tails:
            shapes = " and ".join(f"{tail.shape:.2f}" for tail in self.tails)
            counts = " and ".join(f"{tail.count:,}" for tail in self.tails)
            return f"tail, an extrapolation: generalised Pareto with ξ = {shapes}, from the {counts} highest scores"
        if self.guarantee == CROSS:
            return f"cross, {self.folds} folds, at most {self.proven_fpr:.3g} proven"
        return f"conditional, with {self.confidence:.0%} confidence" if self.guarantee == CONDITIONAL else MARGINAL

    def _with_groups(self, method: str) -> str:
        """A guarantee in words, and which of the groups counts, where there are several."""
        *sizes, last = [f"{len(scores):,}" for scores in self.scores_by_group]
        if not sizes:
            return method
        higher = "the higher" if len(sizes) == 1 else "the highest"
        return f"{method}, {higher} of {len(sizes) + 1} groups of {', '.join(sizes)} and {last} images"

    @property
    def proven_fpr(self) -> float | None:
        """The false-alarm rate that is proven for normal images exchangeable with the calibration ones, or those of
        one group of them, on average over calibration sets; None where none is.
        """
        if self.guarantee == CROSS:
            return proven_in_folds(len(self.scores), self.folds, self.target_fpr)
        return self.target_fpr if self.guarantee in (MARGINAL, CONDITIONAL) else None

    def held_at(self, threshold: float) -> HeldRate:
        """What any threshold holds for new normal images, though it was not chosen to hold a rate."""
        counts = [(len(group), group.above(threshold)) for group in self.by_group]
        rate = max(float(p_value_levels(n)[above]) for n, above in counts)
        if self.folds:
            ((n, above),) = counts
            bound = min(1.0, cross_bound(n, self.folds, above + 1))
            return HeldRate(rate, f"{CROSS}, {self.folds} folds", bound, "proven")
        bound = max(float(p_value_levels(n, CONDITIONAL, self.confidence)[above]) for n, above in counts)
        return HeldRate(rate, self._with_groups(MARGINAL), bound, f"with {self.confidence:.0%} confidence")

    def p_values(self, scores: Tensor) -> Tensor:
        """p-values, float64 (N,), above 0 and up to 1, of scores (N,). Raises `DataError` for one that is NaN."""
        values = as_single(scores)
        return reduce(torch.maximum, [group.p_values(values) for group in self.by_group])

    def discoveries(self, scores: Tensor, fdr: float) -> Discoveries:
        """Which images of a batch with scores (N,) can be called anomalous together, see `find_discoveries`.

        Raises `CalibrationError` for a guarantee other than `marginal`, or an `fdr` outside (0, 1), and `DataError`
        for a score that is no number.
        """
        self.check_discoveries(fdr)
        values = as_single(scores)
        p = reduce(torch.maximum, [group.plain_p_values(values) for group in self.by_group])
        return find_discoveries(p, fdr, [len(group) for group in self.by_group])

    def check_discoveries(self, fdr: float) -> None:
        """Raise `CalibrationError` where `discoveries` would."""
        if self.guarantee in (CONDITIONAL, TAIL, CROSS):
            how = "calibrate with other normal images" if self.folds else "take the guarantee marginal"
            raise CalibrationError(f"discoveries need marginal p-values, and these are {self.guarantee}; {how}")
        if not SMALLEST_RATE <= fdr < 1:
            raise CalibrationError(f"a false discovery rate lies above 0 and below 1, and {fdr:g} does not")

    def as_asked(
        self, target_fpr: float | None = None, guarantee: str | None = None, confidence: float | None = None
    ) -> "Calibration":
        """This calibration, or another where what was asked is other than it is. Raises as `changes` and `at` do."""
        changes = self.changes(target_fpr, guarantee, confidence)
        return self.at(**changes) if changes else self

    def changes(
        self, target_fpr: float | None = None, guarantee: str | None = None, confidence: float | None = None
    ) -> dict[str, Any]:
        """What of that which was asked, None for nothing, is other than it is; to be given to `at`. Where the
        threshold was chosen, whatever is asked takes its place, with marginal p-values unless others are named.

        Raises `UnknownName`, and `UsageError` for a confidence that the guarantee has no use for.
        """
        requested = {"target_fpr": target_fpr, "guarantee": guarantee, "confidence": confidence}
        changes: dict[str, Any] = {
            key: value for key, value in requested.items() if value not in (None, getattr(self, key))
        }
        usual = self.guarantee if self.guarantee not in CHOSEN else CROSS if self.folds else MARGINAL
        check_guarantee(guarantee or usual, confidence or self.confidence)
        if "confidence" in changes and (guarantee or usual) != CONDITIONAL:
            raise UsageError("a confidence goes with the guarantee conditional; ask for that, or leave it out")
        if self.folds and guarantee not in (None, CROSS):
            raise CalibrationError(
                f"the scores of a detector trained in folds have the guarantee cross, and {guarantee} was asked; "
                f"calibrate with other normal images, or train with {setting('guarantee', guarantee)}"
            )
        if self.guarantee in CHOSEN and any(requested.values()):
            changes |= {"guarantee": guarantee or usual, "chosen": None}
        return changes

    def at(self, **changes: Any) -> "Calibration":
        """Another calibration, with other scores, which have no names and are of one group unless these are given,
        another rate, guarantee or confidence.
        """
        unnamed: dict[str, Any] = {"names": None} if "scores" in changes else {}
        if changes.get("scores", self.scores) is not self.scores:
            unnamed |= {"groups": None}
            if self.folds:
                unnamed |= {"folds": 0, "guarantee": MARGINAL}  # new images, which no detector has seen
        return replace(self, **{"tails": ()} | unnamed | changes)

    def at_threshold(self, threshold: float, guarantee: str = MANUAL) -> "Calibration":
        """Another calibration, with the threshold chosen, and the rate that this holds.

        Raises `CalibrationError` when it is no finite number, or lies below nearly all calibration scores.
        """
        return self.at(chosen=threshold, guarantee=guarantee)

    @property
    def can_have_tail(self) -> bool:
        """Whether the guarantee `tail` can be had of these scores: they are enough, and enough of them differ."""
        try:
            return self.fewest > FEWEST_IN_TAIL and all(
                bool(tail_excesses(scores.double().numpy())) for scores in self.scores_by_group
            )
        except CalibrationError:
            return False

    def by_file(self) -> list[dict[str, Any]]:
        """The files with their scores, the highest first; none where there are no files."""
        pairs = zip(self.names or (), self.scores.tolist(), strict=False)
        return [{"path": shown(name), "score": score} for name, score in pairs][::-1]

    def __repr__(self) -> str:
        about = f"threshold={self.threshold:.4f}, target_fpr={self.target_fpr:g}, {self.method}"
        return f"Calibration({len(self.scores):,} scores, {about})"

    def _exact(self, score: float) -> float:
        """The largest float32 whose p-value is above the rate, from one close to it."""

        def alarms(value: np.float32) -> bool:
            return float(self.p_values(torch.tensor([value]))) <= self.target_fpr

        if score >= float(np.finfo(np.float32).max):
            raise CalibrationError(
                f"the tail of the calibration scores is too heavy for a rate of {self.target_fpr:g}; ask for a "
                "higher one"
            )
        edge = np.float32(score)
        while alarms(edge):
            edge = np.nextafter(edge, np.float32(-np.inf))
        while not alarms(above := np.nextafter(edge, np.float32(np.inf))):
            edge = above
        return float(edge)


def threshold_that_finds(share: float, scores: Tensor) -> float:
    """The highest threshold that at least `share`, in (0, 1], of scores (M,) lie above. Raises `CalibrationError`."""
    if not 0 < share <= 1:
        raise CalibrationError(f"a share to detect lies above 0 and is at most 1, and {share:g} does not")
    count = math.ceil(exact(share) * len(scores))
    return float32_below(float(scores.sort(descending=True).values[count - 1]), strictly=True)


def check_guarantee(guarantee: str, confidence: float, guarantees: Sequence[str] = GUARANTEES) -> None:
    """Raise `UnknownName`, or `CalibrationError` when the confidence is none."""
    if guarantee not in guarantees:
        raise UnknownName("guarantee", guarantee, GUARANTEES)
    if not 0 < confidence < 1:
        raise CalibrationError(f"a confidence lies above 0 and below 1, and {confidence:g} does not")
