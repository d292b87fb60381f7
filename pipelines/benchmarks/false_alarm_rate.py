"""Does the threshold hold the false-alarm rate it was asked for?

The weights of a trained detector stay as they are. The normal images it keeps for calibration, which neither its
network nor its scorer has seen, are divided at random into two halves, 200 times: one half calibrates, the other is
fresh. `marginal` promises a mean rate at or below the one asked; `conditional` that the rate is at or below it in 95
of 100 calibrations, which 200 fresh halves can show but roughly, since they scatter too. The same rates are then
measured on the test images recorded with the detector; where these are an official test split by other writers, no
guarantee is claimed for them.

    anomaly-ae train --normal 0,1,2 --dataset mnist
    python pipelines/benchmarks/false_alarm_rate.py [MODEL] [FIGURE.png]
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from anomaly_ae.calibration.conformal import CONDITIONAL, MARGINAL, Calibration
from anomaly_ae.calibration.drift import measure_drift
from anomaly_ae.calibration.rates import smallest_rate
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.measuring import novelty
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.storage.atomic import write_with
from anomaly_ae.workflows.find_model import load

RATES, DIVISIONS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2), 200


@dataclass(frozen=True)
class Realised:
    """The rates on the fresh halves, (DIVISIONS,), the one expected, and the one on the test split."""

    asked: float
    guarantee: str
    fresh: np.ndarray
    expected: float
    test: float

    @property
    def error(self) -> float:
        """Standard error of the mean over divisions of one set of images."""
        return float(self.fresh.std(ddof=1) / len(self.fresh) ** 0.5)


def realised(held_out: torch.Tensor, test: torch.Tensor, asked: float, guarantee: str) -> Realised:
    """Calibrate on one half, count alarms on the other, again and again."""
    rates = []
    for division in range(DIVISIONS):
        order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(division))
        half, fresh = held_out[order].tensor_split(2)
        calibration = Calibration(half, asked, guarantee)
        rates.append(float((fresh > calibration.threshold).double().mean()))
    on_test = float((test > Calibration(held_out, asked, guarantee).threshold).double().mean())
    return Realised(asked, guarantee, np.array(rates), calibration.expected_fpr, on_test)


def test_normals(detector: Detector, test: ImageSet) -> torch.Tensor:
    """The normal test images."""
    return test.images[torch.from_numpy(~novelty(detector, test))]


def drift_alarms(held_out: torch.Tensor) -> int:
    """How many of the fresh halves are said to have moved as a whole; none should be."""
    alarms = 0
    for division in range(DIVISIONS):
        order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(division))
        half, fresh = held_out[order].tensor_split(2)
        drift = measure_drift(fresh, [half])
        alarms += drift is not None and drift.moved
    return alarms


def draw(results: list[Realised]) -> Figure:
    """Realised against asked rates, with the middle 90 % of the divisions."""
    figure = Figure(figsize=(10, 4.6), layout="constrained", facecolor="white")
    for axes, guarantee in zip(figure.subplots(1, 2, sharey=True), (MARGINAL, CONDITIONAL), strict=True):
        chosen = [each for each in results if each.guarantee == guarantee]
        asked = [each.asked for each in chosen]
        low, high = (np.array([np.quantile(each.fresh, q) for each in chosen]) for q in (0.05, 0.95))
        means = np.array([each.fresh.mean() for each in chosen])
        axes.plot([RATES[0], RATES[-1]], [RATES[0], RATES[-1]], ":", color="0.5", label="as asked")
        axes.fill_between(asked, low, high, alpha=0.25, color="#4477aa", label="middle 90 % of 200 divisions")
        axes.plot(asked, means, "o-", color="#4477aa", label="fresh normals, mean")
        axes.plot(asked, [each.test for each in chosen], "x", color="#ee6677", label="official test split (no claim)")
        axes.set(xscale="log", yscale="log", xlabel="false-alarm rate asked", title=guarantee)
        axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
        axes.set_yticks(RATES, [f"{rate:g}" for rate in RATES])
        axes.minorticks_off()
        axes.grid(alpha=0.4)
    figure.axes[0].set_ylabel("false-alarm rate realised")
    figure.axes[0].legend()
    return figure


def main(model: str = "latest", picture: str | None = None) -> None:
    """Print a table, and draw it."""
    detector = load(model, device="cpu")
    dataset = load_dataset(detector.config.dataset)
    held_out = detector.score(detector.split.calibration.take(dataset).images)
    test = detector.score(test_normals(detector, detector.split.test.take(dataset)))
    print(f"{dataset.name} {','.join(detector.normal)}, scorer {detector.config.scorer}:", end=" ")
    print(f"{len(held_out):,} held-out normals, halved {DIVISIONS} times")
    print("guarantee    asked   expected  fresh: mean ± s.e.   above asked in  test split")
    results = [
        realised(held_out, test, rate, guarantee)
        for guarantee in (MARGINAL, CONDITIONAL)
        for rate in RATES
        if rate >= smallest_rate(len(held_out) // 2, guarantee)
    ]
    for each in results:
        above = float((each.fresh > each.asked).mean())
        fresh = f"{each.fresh.mean():.4f} ± {each.error:.4f}"
        print(
            f"{each.guarantee:<13}{each.asked:<8g}{each.expected:.4f}    {fresh:<20} {above:<15.1%} {each.test:.4f}"
        )
    print(f"drift alarms on {DIVISIONS} normal halves: {drift_alarms(held_out)}")
    moved = measure_drift(test, [held_out])
    print(f"drift of the official test split: effect {moved.effect:.3f}, moved: {moved.moved}" if moved else "")
    if picture:
        write_with(Path(picture), partial(draw(results).savefig, dpi=130, format="png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
