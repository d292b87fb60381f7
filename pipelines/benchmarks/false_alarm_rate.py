"""Does the threshold hold the false-alarm rate it was asked for?

The weights of a trained detector stay as they are. The normal images it keeps for calibration, which neither its
network nor its scorer has seen, are divided at random into two halves, ten times: one half calibrates, the other is
fresh. The same rates are then measured on the test images recorded with the detector; where these are an official
test split by other writers, no guarantee is claimed for them.

    anomaly-ae train --normal 0,1,2 --dataset mnist
    python pipelines/benchmarks/false_alarm_rate.py [MODEL]
"""

import dataclasses
import sys

import torch

from anomaly_ae.calibration import Calibration
from anomaly_ae.data.images import ImageSet
from anomaly_ae.data.named import load_dataset
from anomaly_ae.detector import Detector
from anomaly_ae.evaluation import novelty
from anomaly_ae.pipeline import load

RATES, DIVISIONS = (0.01, 0.05, 0.1), 10


def fresh_rates(scores: torch.Tensor, target_fpr: float) -> tuple[list[float], float]:
    """The realised rates on the fresh halves, and the one expected, k / (n + 1)."""
    rates, expected = [], 0.0
    for division in range(DIVISIONS):
        order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(division))
        half, fresh = scores[order].tensor_split(2)
        calibration = Calibration(half, target_fpr)
        expected = calibration.expected_fpr
        rates.append(float((fresh > calibration.threshold).double().mean()))
    return rates, expected


def test_normals(detector: Detector, test: ImageSet) -> torch.Tensor:
    """The normal test images."""
    return test.images[torch.from_numpy(~novelty(detector, test))]


def main(model: str = "latest") -> None:
    """Print a table."""
    detector = load(model, device="cpu")
    dataset = load_dataset(detector.recipe.dataset)
    held_out = detector.score(detector.split.calibration.take(dataset).images)
    test = detector.score(test_normals(detector, detector.split.test.take(dataset)))
    print(f"{dataset.name} {','.join(detector.recipe.normal)}: {len(held_out):,} held-out normals, halved ten times")
    print("asked   expected   fresh: mean   (least to most)      test split")
    for rate in RATES:
        rates, expected = fresh_rates(held_out, rate)
        at = dataclasses.replace(detector, calibration=detector.calibration.at(target_fpr=rate))
        on_test = float((test > at.threshold).double().mean())
        spread = f"({min(rates):.4f} to {max(rates):.4f})"
        print(f"{rate:<8g}{expected:.4f}     {sum(rates) / DIVISIONS:.4f}        {spread:<20} {on_test:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
