"""A batch in parts that are learned from at the same time, each by a network of its own with the same weights."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from anomaly_ae.augmentation.corruption import Corrupted
from anomaly_ae.autoencoders.autoencoder import Autoencoder
from anomaly_ae.runtime.torch_state import Run

PARTS = 2  # of a batch
PART_IMAGES, PART_PIXELS = 32, 2**14  # of a part at least; fewer pixels are done with before another thread has begun
LossOf = Callable[[Autoencoder, Tensor, Corrupted], Tensor]


def part_count(network: Autoencoder, images: int, pixels: int) -> int:
    """Into how many parts a batch of so many images with so many pixels in all is divided. No machine changes it, so
    that none changes the weights; a GPU takes batches whole, and so does a network that draws by chance, for its
    numbers would fall to the parts in any order.
    """
    on_cpu = next(network.parameters()).device.type == "cpu"
    is_worth_it = images >= PARTS * PART_IMAGES and pixels >= PARTS * PART_PIXELS
    return PARTS if on_cpu and is_worth_it and not network.draws else 1


class Twins:
    """A network and copies of it that share its weights, each of which learns from its part of every batch.

    All of torch's threads on one operation wait for each other at its end, a hundred times a step, and longer still
    where the machine does something else, too; parts wait for each other once.
    """

    def __init__(self, network: Autoencoder, count: int) -> None:
        shared = {id(weights): weights for weights in network.parameters()}
        self.networks = [network, *(copy.deepcopy(network, dict(shared)) for _ in range(count - 1))]
        self.weights = [weights for weights in network.parameters() if weights.requires_grad]

    def backward(self, loss_of: LossOf, images: Tensor, spoiled: Corrupted, run: Run) -> Tensor:
        """Give the weights the gradients of the mean loss of a batch, float (N, C, H, W), and say what that is.

        loss_of: the mean loss of a network on images that it sees spoiled
        run: what does the parts, as `thread_map` has it
        """

        def learn(network: Autoencoder, part: Tensor, seen: Corrupted) -> list[Tensor | None]:
            loss = loss_of(network, part, seen) * (len(part) / len(images))
            return [loss.detach(), *torch.autograd.grad(loss, self.weights, allow_unused=True)]

        count = len(self.networks)
        sums, *others = run(learn, self.networks, images.tensor_split(count), spoiled.split(count))
        for values in others:
            for total, value in zip(sums, values, strict=True):
                if total is not None and value is not None:
                    total += value
        loss, *gradients = sums
        for weights, gradient in zip(self.weights, gradients, strict=True):
            weights.grad = gradient
        assert loss is not None  # as a gradient may be
        return loss

    def forget(self) -> None:
        """Leave no gradients, which the next step of another network that shares weights would take for its own."""
        for weights in self.weights:
            weights.grad = None

    @torch.no_grad()
    def join(self) -> None:
        """Let each have the mean of what they keep of their batches, as batch norm does.

        Statistics of parts of a batch: Hoffer, Hubara and Soudry 2017, https://arxiv.org/abs/1705.08741
        """
        for buffers in zip(*(network.buffers() for network in self.networks), strict=True):
            if len(buffers) > 1 and buffers[0].is_floating_point():
                mean = torch.stack(buffers).mean(dim=0)
                for buffer in buffers:
                    buffer.copy_(mean)
