"""How many images a second each scorer scores, beside the network alone, and the default one with heat maps.

    python benchmarks/scoring.py                # 28×28 gray and 32×32 in colour; a minute on two quiet cores
    python benchmarks/scoring.py mse pixel-knn  # these scorers

Digits that are bundled, enlarged and shifted, in colour with a tint; a memory of 15,000; a network of one epoch. Each
figure is the median of five rounds, in each of which all take their turn; beside it the slowest and the fastest.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_ae.autoencoders.inference import map_images
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import prepare, run_training
from anomaly_ae.detector.fit_scorer import fit_scorer
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.runtime.tables import plain_table
from anomaly_ae.scorers import build_scorer
from anomaly_ae.scorers.fold_scorer import map_part

SCORERS = ("aligned-knn", "relative+latent-knn", "relative", "latent-knn", "feature-knn", "pixel-knn", "mse")
REMEMBERED, SCORED, ROUNDS = 15_000, 1_024, 5


def images(count: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Digits in places of their own, uint8 (count, C, H, W)."""
    channels, *size = shape
    draw = torch.Generator().manual_seed(seed)
    digits = load_dataset("digits").files["train"].images
    chosen = digits[torch.randint(len(digits), (count,), generator=draw)].float()
    large = functional.interpolate(chosen, (size[0] - 4, size[1] - 4), mode="bilinear")
    placed = torch.zeros(count, 1, *size)
    for i, (down, right) in enumerate(torch.randint(0, 5, (count, 2), generator=draw).tolist()):
        placed[i, :, down : down + size[0] - 4, right : right + size[1] - 4] = large[i]
    tint = 0.5 + 0.5 * torch.rand(count, channels, 1, 1, generator=draw)
    return (placed * tint).to(torch.uint8)


def works(shape: tuple[int, int, int], names: Sequence[str]) -> dict[str, Callable[[], object]]:
    """What is measured, by name: each takes `SCORED` images."""
    config = RunConfig(normal="0", epochs=1)
    experiment = Experiment.build(config, Preprocessing(*shape), ("normal",), ("normal",))
    fit, validation, queries = images(REMEMBERED, shape, 0), images(200, shape, 1), images(SCORED, shape, 2)
    network = run_training(experiment, prepare(experiment, fit[:1_000], validation)).finished_network()
    scorers = {name: fit_scorer(build_scorer(name), network, fit, validation, experiment.config) for name in names}
    measured: dict[str, Callable[[], object]] = {
        "network alone": partial(map_images, network, queries, lambda _, outputs: outputs.latent[:, 0]),
        **{name: partial(scorer.score_all, network, queries) for name, scorer in scorers.items()},
    }
    if "aligned-knn" in scorers:
        mapping = map_part(scorers["aligned-knn"])
        assert mapping is not None
        measured["aligned-knn, heat maps"] = partial(mapping.map_all, network, queries)
    return measured


def rows(names: Sequence[str]) -> list[dict[str, object]]:
    """Images a second of each scorer, for both kinds of images."""
    found: list[dict[str, object]] = []
    for shape in ((1, 28, 28), (3, 32, 32)):
        measured = works(shape, names)
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(1 + ROUNDS):
            for name, work in measured.items():
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
        for name, taken in seconds.items():
            rates = [SCORED / each for each in taken[1:]]  # the first round warms up
            spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
            found.append(
                {"images": "×".join(map(str, shape)), "scorer": name, "per second": median(rates), "": spread}
            )
    return found


def main() -> None:
    """Print a table."""
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print("\n".join(plain_table(rows(sys.argv[1:] or SCORERS))))


if __name__ == "__main__":
    main()
