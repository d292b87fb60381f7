"""Does the guarantee cross hold with few normal images, and what does it find?

Two hundred times n images of one class are drawn, the classes in turn, and detectors made of them: `cross`, from all
but a tenth, which is there to stop by, and `marginal`, which sets up to half of them aside. Each is asked for a rate,
and counts alarms on normal images not drawn and on images of the other classes. Beside them stands `cv+`, the
cross-conformal p-values of Vovk 2015, https://doi.org/10.1007/s10472-013-9368-4, on the same networks: of the
calibration scores, c are at least what the detector of *their* fold gives the new image, p = (1 + c) / (n + 1),
proven to hold about 2α (Barber et al. 2021, https://doi.org/10.1214/20-AOS1965, Theorem 4). `memory` is the distance
to the nearest training image, `autoencoder` the error of the autoencoder conv after 30 steps. Larger images are made
14×14 pixels first.

    python pipelines/benchmarks/few_normals.py digits|mnist memory|autoencoder [DRAWS]
"""

import sys
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anomaly_ae.autoencoders.folds import fold_count
from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.group import alarms_allowed, p_value_levels
from anomaly_ae.calibration.rates import cross_bound, smallest_rate
from anomaly_ae.config.run_config import CROSS, MARGINAL, RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.datasets.splitting import split_rows
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import held_out, prepare, run_training
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.preprocessing import Preprocessing

COUNTS, RATES, MOST_TEST, SIDE = (10, 20, 30, 60), (0.05, 0.1), 300, 14
KINDS = {
    "memory": RunConfig(scorer="pixel-knn", epochs=1, device="cpu"),
    "autoencoder": RunConfig(scorer="mse", steps=30, batch_size=16, device="cpu"),
}


@dataclass(frozen=True)
class Draw:
    """Images of one class to make a detector of, others of that class, and images of other classes."""

    images: Tensor
    normal: Tensor
    novel: Tensor


@dataclass(frozen=True)
class Trial:
    """What a detector has to say: scores that calibrate, and scores of normal and novel images; for `cv+` those by
    the detector of each calibration score's fold, (N, n).
    """

    calibration: Tensor
    normal: Tensor
    novel: Tensor
    folds: int = 0


def draw(data: ImageSet, count: int, number: int) -> Draw:
    """The images of a draw."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(number))
    is_normal = data.labels[order] == number % 10
    normal, novel = order[is_normal], order[~is_normal][:MOST_TEST]
    return Draw(data.images[normal[:count]], data.images[normal[count : count + MOST_TEST]], data.images[novel])


def experiment(config: RunConfig, images: Tensor) -> Experiment:
    """The experiment of a detector for such images."""
    channels, height, width = images.shape[1:]
    return Experiment.build(config, Preprocessing(channels, height, width), ("normal",), ("normal",))


def marginal(config: RunConfig, drawn: Draw, rate: float, seed: int) -> Trial:
    """A detector that sets images aside."""
    parts = split_rows(len(drawn.images), seed, round(1 / rate) - 1)
    fit, validation, aside = (drawn.images[part] for part in parts)
    made = experiment(replace(config, seed=seed), fit)
    network = run_training(made, prepare(made, fit, validation)).finished_network()
    scorer = fit_scorer(made.scorer, network, fit, validation, made.config)
    return Trial(*(scorer.score_all(network, each) for each in (aside, drawn.normal, drawn.novel)))


def cross(config: RunConfig, drawn: Draw, seed: int) -> tuple[Trial, Trial]:
    """A detector of folds, and `cv+` by the same networks."""
    stop = max(1, len(drawn.images) // 10)
    validation, images = drawn.images[:stop], drawn.images[stop:]
    folds = fold_count(len(images))
    made = experiment(replace(config, seed=seed, folds=folds, guarantee=CROSS), images)
    network = run_training(made, prepare(made, images, validation)).finished_network()
    scorer = fit_scorer(made.scorer, network, images, validation, made.config)
    calibrating = ImageSet(images, torch.zeros(len(images), dtype=torch.int64))
    judged = held_out(network, scorer, calibrating)
    scores = torch.cat([judge.score_all(own, part.images) for own, judge, part in judged])
    lowest, each = list[Tensor](), list[Tensor]()
    for test in (drawn.normal, drawn.novel):
        by_fold = torch.stack([judge.score_all(own, test) for own, judge, _ in judged], dim=1)  # (N, K)
        lowest.append(by_fold.amin(dim=1))
        each.append(by_fold.repeat_interleave(len(scores) // folds, dim=1))  # (N, n)
    return Trial(scores, lowest[0], lowest[1], folds), Trial(scores, each[0], each[1], folds)


def alarms(trial: Trial, rate: float) -> tuple[float, float]:
    """The shares of normal and of novel images that alarm at a rate; none where it cannot be held."""
    if rate < smallest_rate(len(trial.calibration)):
        return 0.0, 0.0
    if trial.normal.ndim == 2:
        allowed = alarms_allowed(p_value_levels(len(trial.calibration)), rate)
        reached = [(trial.calibration >= each).sum(dim=1) for each in (trial.normal, trial.novel)]
        return float((reached[0] < allowed).float().mean()), float((reached[1] < allowed).float().mean())
    guarantee = CROSS if trial.folds else MARGINAL
    threshold = Calibration(trial.calibration, rate, guarantee, folds=trial.folds).threshold
    return float((trial.normal > threshold).float().mean()), float((trial.novel > threshold).float().mean())


def main(dataset: str, kind: str, draws: str = "200") -> None:
    """Print a table."""
    files = load_dataset(dataset).files
    data, config = files["train"], KINDS[kind]
    if data.images.shape[-1] > SIDE:
        data = replace(data, images=Preprocessing(1, SIDE, SIDE).prepare(data.images))
    print(f"{dataset}, {kind} ({config.scorer}), {draws} draws: mean realised rate ± s.e., and detection rate")
    print("n   asked  guarantee  calibrate  proven  realised           detected")
    for count in COUNTS:
        results: dict[tuple[float, str], list[tuple[float, float]]] = {}
        sizes: dict[tuple[float, str], Trial] = {}
        for number in range(int(draws)):
            drawn = draw(data, count, number)
            crossed = cross(config, drawn, number)
            for rate in RATES:
                trials = (crossed[0], crossed[1], marginal(config, drawn, rate, number))
                for name, trial in zip((CROSS, "cv+", MARGINAL), trials, strict=True):
                    results.setdefault((rate, name), []).append(alarms(trial, rate))
                    sizes[rate, name] = trial
        for (rate, name), rates in sorted(results.items()):
            realised, detected = torch.tensor(rates, dtype=torch.float64).T
            print(line(count, rate, name, sizes[rate, name], realised, detected), flush=True)


def line(count: int, rate: float, name: str, trial: Trial, realised: Tensor, detected: Tensor) -> str:
    """A line of the table."""
    n, folds = len(trial.calibration), trial.folds
    start = f"{count:<4}{rate:<7g}{name:<11}{n:<11}"
    if rate < smallest_rate(n):
        return f"{start}impossible, from {smallest_rate(n):g}"
    allowed = alarms_allowed(p_value_levels(n), rate)
    size = n // folds if folds else 0
    loose = min(2 * (1 - 1 / folds) / (size + 1), (1 - folds / n) / (folds + 1)) if folds else 0.0
    proven = {CROSS: cross_bound(n, folds, allowed) if folds else 0, "cv+": 2 * rate + loose, MARGINAL: rate}[name]
    error = float(realised.std() / len(realised) ** 0.5)
    return f"{start}{proven:<8.3f}{realised.mean():.4f} ± {error:.4f}    {detected.mean():.1%}"


if __name__ == "__main__":
    main(*sys.argv[1:])
