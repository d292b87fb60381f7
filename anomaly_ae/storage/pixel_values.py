"""Images as they are kept, in bytes from 0 to 255, and as they are reckoned with, in floats from 0 to 1."""

import torch
from torch import Tensor


def as_float(images: Tensor) -> Tensor:
    """uint8 0 to 255, or float already in [0, 1], to float32 in [0, 1], on the device where it is."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def as_bytes(images: Tensor) -> Tensor:
    """float32 in [0, 1] to uint8 0 to 255: the bytes that `as_float` made it of."""
    return images.mul(255).round().to(torch.uint8)
