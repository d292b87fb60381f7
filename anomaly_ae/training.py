"""The one loop that trains every autoencoder, and its checkpoints."""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor

from anomaly_ae.augmentation.corruption import Corrupted, Corruption
from anomaly_ae.augmentation.transforms import Augment
from anomaly_ae.autoencoders import Autoencoder, Outputs
from anomaly_ae.autoencoders.adamw import AdamW
from anomaly_ae.autoencoders.feature_conv import PAINTED, SMALL
from anomaly_ae.autoencoders.inference import batch_size
from anomaly_ae.autoencoders.precision import WORTH, Step, has_bfloat16, speedup
from anomaly_ae.autoencoders.repair import PLANTED
from anomaly_ae.autoencoders.tiling import random_crops
from anomaly_ae.autoencoders.twins import Twins, part_count
from anomaly_ae.config.presets import AUTO
from anomaly_ae.config.run_config import BFLOAT16, CONSTANT, FLOAT32, RunConfig
from anomaly_ae.errors import ModelError, TrainingError
from anomaly_ae.objectives import Objective
from anomaly_ae.objectives.ssim import ENERGY_FLOOR
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.runtime.torch_state import Run, one_by_one, seed, thread_map, threads_for
from anomaly_ae.storage.atomic import sha256, write_bytes
from anomaly_ae.storage.pixel_values import as_float

STEPS = 1_500  # optimiser steps of a training whose number of epochs was not said
MOST_EPOCHS = 200  # and its limit, for small data sets
WARM_UP = 0.1  # share of the steps in which the learning rate rises
UNKNOWN = "0" * 64  # stands for a checkpoint's digest where that is taken
SHOW_EVERY = 20  # batches between updates of the display


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: losses by the objective, and images trained on per second."""

    epoch: int
    train_loss: float
    validation_loss: float
    learning_rate: float
    images_per_second: float
    seconds: float


@dataclass
class Training:
    """A training under way: everything that is needed to go on with it.

    precision: what it computes in, float32 or bfloat16; "" until that is found out, where it was left open
    """

    network: Autoencoder
    config: RunConfig
    objective: Objective
    augment: Augment
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)  # the weights of the best epoch
    best_number: int = 0
    precision: str = ""

    def __post_init__(self) -> None:
        self.precision = "" if self.config.precision == AUTO else self.config.precision
        self.network.to(memory_format=torch.channels_last)  # faster for strided convolutions
        self.optimizer = AdamW(self.network, self.config.weight_decay)

    @property
    def peak(self) -> float:
        """The learning rate asked for, else the network's own."""
        return self.config.learning_rate or self.network.learning_rate

    @property
    def best_epoch(self) -> Epoch:
        """The epoch with the lowest validation loss, the first of several."""
        return self.history[self.best_number - 1]

    def stops_early(self, total: int) -> bool:
        """Whether the last `patience` epochs after the warm-up of `total` epochs brought nothing better."""
        warm = round(WARM_UP * total)
        patience = self.config.patience or total
        return bool(self.history) and len(self.history) - max(self.best_epoch.epoch, warm) >= patience

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate at a step: the same always, or one cycle, a linear rise to the peak in the first tenth and
        half a cosine down to zero.

        Smith and Topin 2017, https://arxiv.org/abs/1708.07120
        """
        rise = max(1, round(WARM_UP * steps))
        if self.config.schedule == CONSTANT:
            return self.peak
        if step < rise:
            return self.peak * (step + 1) / rise
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    def finished_network(self) -> Autoencoder:
        """The network with the weights of the best epoch, laid out as one that was loaded from a file, so that it
        scores alike to the last bit.
        """
        self.network.load_state_dict(self.best)
        return self.network.to(memory_format=torch.contiguous_format).eval()

    def snapshot(self) -> "Snapshot":
        """All that is needed to go on from here."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}
        copied = {
            name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
        }
        return Snapshot(copied, tuple(self.history), self.precision)

    def load(self, path: Path) -> bool:
        """Go on from a file that `save` wrote, or from the one before where it is damaged, which is said; whether
        there is one of them. Raises `ModelError` if it is of another network.
        """
        device = next(self.network.parameters()).device
        for each in (path, earlier(path)):
            try:
                found = _read(each)
                break
            except FileNotFoundError:
                continue
            except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
                logger.warning(f"the checkpoint {each} is damaged, and is not gone on from")
        else:
            return False
        tensors = {name: value.to(device) for name, value in found.tensors.items()}
        try:
            self.network.load_state_dict(_under("network.", tensors))
            for name, value in self.optimizer.state().items():
                value.copy_(tensors[f"optimizer.{name}"])
        except (RuntimeError, KeyError) as error:
            raise ModelError(
                f"the checkpoint {each} is of another run, or of an earlier anomaly-ae; train anew"
            ) from error
        self.history, self.best = [*found.history], _under("best.", tensors)
        self.best_number = min(range(len(self.history)), key=lambda i: self.history[i].validation_loss) + 1
        self.precision = self.precision or found.precision
        return True


@dataclass(frozen=True)
class Snapshot:
    """A training as it was after an epoch."""

    tensors: dict[str, Tensor]
    history: tuple[Epoch, ...]
    precision: str

    def save(self, path: Path) -> None:
        """Write network, best weights, optimiser and history, with their digest, as one safetensors file in one step.
        The file that was there is kept as `earlier(path)`.
        """
        history = json.dumps([dataclasses.asdict(epoch) for epoch in self.history])
        content = save(self.tensors, {"history": history, "precision": self.precision, "sha256": UNKNOWN})
        if path.exists():
            path.replace(earlier(path))
        write_bytes(path, content.replace(UNKNOWN.encode(), sha256(content).encode(), 1))


def earlier(checkpoint: Path) -> Path:
    """Where the checkpoint before is kept."""
    return checkpoint.with_stem(f"{checkpoint.stem}.earlier")


def _read(checkpoint: Path) -> Snapshot:
    """What a checkpoint holds. Raises errors of many kinds when it is not as it was written."""
    content = checkpoint.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    about = json.loads(content[8:end])["__metadata__"]
    at = content.index(about["sha256"].encode(), 0, end)
    if sha256(content[:at], UNKNOWN.encode(), memoryview(content)[at + len(UNKNOWN) :]) != about["sha256"]:
        raise ValueError("it was changed after it was written")
    history = tuple(Epoch(**epoch) for epoch in json.loads(about["history"]))
    return Snapshot(load_tensors(content), history, about.get("precision", FLOAT32))


def train_epochs(
    training: Training, fit: Tensor, validation: Tensor, advance: Callable[[int, str], None] | None = None
) -> Iterator[Epoch]:
    """Train until the last epoch or until stopped early.

    fit, validation: normal images, uint8 or float in [0, 1], (N, C, H, W). Every epoch draws its random numbers from
    (seed, epoch) alone, so a training that goes on from a checkpoint ends as one that was never interrupted.
    advance: told now and then of how many images were trained on since, and how it goes in a few words
    Raises `TrainingError` when the loss is no longer finite.
    """
    config, device = training.config, next(training.network.parameters()).device
    fit, validation = _near(fit, device), _near(validation, device)  # moved once, as they are
    trained_on = [len(own) for _, own in training.network.learners(len(fit))]
    total = epoch_count(config, trained_on[0])
    pixels = min(config.batch_size or len(fit), len(fit)) * math.prod(config.tile_size or fit.shape[-2:])
    pixels *= max(1, fit.shape[1] // 3)  # what is trained on may be features, with many channels
    if not training.precision:
        with threads_for(pixels):
            training.precision = _find_precision(training, fit, pixels)
    while len(training.history) < total and not training.stops_early(total):
        number = len(training.history) + 1
        seed(config.seed * 1_000_003 + number, device)
        started = time.perf_counter()
        with threads_for(pixels):
            train_loss = _train(training, fit, pixels, number, total, advance)
            seconds = time.perf_counter() - started
            validation_loss = _validate(training, validation)
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            raise TrainingError(
                f"the loss is no longer a finite number in epoch {number}; "
                f"try a {setting('learning_rate')} below {training.peak:g}"
            )
        steps = batch_count(config, trained_on[0])
        rate = training.rate_at(number * steps - 1, total * steps)
        epoch = Epoch(number, train_loss, validation_loss, rate, sum(trained_on) / seconds, seconds)
        is_best = number == 1 or validation_loss < training.best_epoch.validation_loss
        training.history.append(epoch)
        if is_best:
            training.best_number = number
            training.best = {name: value.clone() for name, value in training.network.state_dict().items()}
        yield epoch


def _train(
    training: Training,
    images: Tensor,
    pixels: int,
    number: int,
    total: int,
    advance: Callable[[int, str], None] | None,
) -> float:
    """One epoch over all images in random order, in batches of so many pixels; the mean loss."""
    network, optimizer, config = training.network, training.optimizer, training.config
    device = next(network.parameters()).device
    corrupt = Corruption(config.defects or 0.0, config.noise, config.masked)
    learners = network.learners(len(images))
    batches = batch_count(config, len(learners[0][1]))
    loss_sum, shown = torch.zeros((), device=device), 0
    trimmed = (
        config.trim_training if number > max(1, round(WARM_UP * total)) else 0.0
    )  # first it must see what is usual
    loss_of = partial(_loss, training, trimmed)
    network.train()
    side_by_side = network.cheap_folds and len(learners) > 1 and not network.draws and device.type == "cpu"
    parts = [1 if side_by_side else part_count(learner, len(own) // batches, pixels) for learner, own in learners]
    twins = [Twins(learner, count) for (learner, _), count in zip(learners, parts, strict=True)]
    orders = [own[torch.randperm(len(own))].to(images.device).tensor_split(batches) for _, own in learners]
    with thread_map(len(twins) if side_by_side else max(parts)) as run:
        across, within = (run, one_by_one) if side_by_side else (one_by_one, run)
        for i, chosen in enumerate(zip(*orders, strict=True)):
            seen = [training.augment(_seen(images[indices].to(device), config)) for indices in chosen]
            given = [(batch, corrupt(batch)) for batch in seen]  # (B, C, h, w) each
            losses = across(lambda learner, each: learner.backward(loss_of, *each, within), twins, given)
            loss_sum += torch.stack([*losses]).mean()
            optimizer.step(training.rate_at((number - 1) * batches + i, total * batches))
            for learner in twins:
                learner.forget()
            shown += sum(len(indices) for indices in chosen)
            if (i + 1) % SHOW_EVERY == 0 or i + 1 == batches:
                if advance:
                    advance(shown, f"epoch {number}/{total} · loss {loss_sum.item() / (i + 1):.5f}")
                shown = 0
    for learner in twins:
        learner.join()
    return loss_sum.item() / batches


def _find_precision(training: Training, images: Tensor, pixels: int) -> str:
    """bfloat16 where steps on the first images, by copies of the network, show that it is as good and much faster;
    else float32. Batches are taken by parts where bfloat16 is: torch's threads would wait for each other far longer
    than in float32.
    """
    learner, own = training.network.learners(len(images))[0]
    first = own[: len(own) // batch_count(training.config, len(own))].to(images.device)
    parts = part_count(learner, len(first), pixels)
    if parts == 1 or not has_bfloat16():
        return FLOAT32
    batch = training.augment(_seen(images[first], training.config))
    with thread_map(parts) as run:
        steps = (_steps(training, learner, precision, batch, parts, run) for precision in (FLOAT32, BFLOAT16))
        times = speedup(*steps)
    if times < WORTH:
        return FLOAT32
    logger.info(
        f"computing in bfloat16, which is {times:.1f} times as fast as float32 here, and as good in the first steps; "
        f"{setting('precision', FLOAT32)} turns it off"
    )
    return BFLOAT16


def _steps(training: Training, learner: Autoencoder, precision: str, batch: Tensor, parts: int, run: Run) -> Step:
    """What makes a step of a training with a network of its own that begins as `learner`, and gives the loss."""
    config = dataclasses.replace(training.config, precision=precision)
    own = Training(copy.deepcopy(learner).train(), config, training.objective, training.augment)
    twins, loss_of, rate = Twins(own.network, parts), partial(_loss, own, 0.0), WARM_UP * own.peak
    spoiled = Corruption(config.defects or 0.0, config.noise, config.masked)(batch)

    def step() -> float:
        loss = twins.backward(loss_of, batch, spoiled, run)
        own.optimizer.step(rate)
        return loss.item()

    return step


def _loss(training: Training, trimmed: float, network: Autoencoder, images: Tensor, spoiled: Corrupted) -> Tensor:
    """The mean loss of a network on images that it sees spoiled, without the share `trimmed` that fits worst."""
    outputs = _forward(network, spoiled, training.precision)
    return training.objective(*best_fitting(images, outputs, trimmed))


def best_fitting(images: Tensor, outputs: Outputs, trimmed: float) -> tuple[Tensor, Outputs]:
    """The images of a batch, with their outputs, without the share `trimmed` whose error is largest for its energy.

    The trimmed loss of Shen and Sanghavi 2019, https://arxiv.org/abs/1810.11874
    """
    if count := round(trimmed * len(images)):
        seen, given_back = (
            outputs.heads.get(SMALL, images),
            outputs.heads.get(PAINTED, outputs.reconstruction),
        )
        error = (seen - given_back.detach()).square().mean(dim=(1, 2, 3))
        errors = error / (seen.square().mean(dim=(1, 2, 3)) + ENERGY_FLOOR)
        kept = errors.topk(len(images) - count, largest=False).indices
        return images[kept], outputs.map_tensors(lambda tensor: tensor[kept])
    return images, outputs


@torch.no_grad()
def _validate(training: Training, images: Tensor) -> float:
    """Mean loss over the validation images in float32; uncorrupted, but for defects, always the same ones, and in
    tiles of them, where it works on tiles.
    """
    network, device = training.network, next(training.network.parameters()).device
    network.eval()
    planting = Corruption(defects=training.config.defects or 0.0)
    losses = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed(training.config.seed, device)
        for part in torch.split(images, batch_size(*images.shape[-2:])):
            batch = as_float(_seen(part.to(device), training.config))
            planted, learners = planting(batch), network.learners(0)
            each = [training.objective(batch, _forward(learner, planted, FLOAT32)) for learner, _ in learners]
            losses.append(torch.stack(each).mean() * len(part))
    return float(torch.stack(losses).sum()) / len(images)


def _forward(network: Autoencoder, seen: Corrupted, precision: str) -> Outputs:
    """The network's outputs in float32, computed in `precision`, with a head that says where defects were planted."""
    with torch.autocast(seen.images.device.type, torch.bfloat16, enabled=precision == BFLOAT16):
        outputs: Outputs = network(seen.images)
    planted = {} if seen.planted is None else {PLANTED: seen.planted}
    return outputs._replace(heads={**outputs.heads, **planted}).float()


def _seen(images: Tensor, config: RunConfig) -> Tensor:
    """What a network is shown of images (N, C, H, W) in training: of each a random tile, (N, C, h, w), where it works
    on tiles.
    """
    return random_crops(images, config.tile_size) if config.tile_size else images


def _near(images: Tensor, device: torch.device) -> Tensor:
    """Images on the device, or where they are if they would fill more than half of its memory."""
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return images
    return images.to(device)


def batch_count(config: RunConfig, images: int) -> int:
    """Batches in an epoch, as even as can be and together all images."""
    return max(1, round(images / (config.batch_size or images)))


def epoch_count(config: RunConfig, images: int) -> int:
    """The epochs asked for, else as many as come nearest to the steps asked for, or to `STEPS`, then `MOST_EPOCHS` at
    most.
    """
    epochs = max(1, round((config.steps or STEPS) / batch_count(config, images)))
    return config.epochs or (epochs if config.steps else min(MOST_EPOCHS, epochs))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
