"""Whether a training is worth computing in bfloat16 on this machine, found out by trying."""

import time
from collections.abc import Callable
from statistics import median

import torch

Step = Callable[[], float]  # of a training, and the loss before it
LOSS_TOLERANCE = 0.01  # relative difference of losses, at the most
WORTH = 1.5  # times as fast as float32, where bfloat16 is chosen
HOPELESS = 1.25  # where none of the first trials is any better, more are not made
LEAST_TRIALS, TRIAL_SECONDS = 3, 0.3


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 by itself; others imitate it, and are slower for it."""
    about: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not say
    return any(bool(has) for name, has in about.items() if name.endswith("bf16"))


def speedup(exact: Step, short: Step) -> float:
    """How many times as fast a step in bfloat16 is as one in float32, the median of steps taken in turn, of the first
    alone where none comes near what is worth it; 0 where their losses part. Measured is processor time, which other
    programs change little, so that the same machine finds the same.

    exact, short: such steps, of two networks that began alike
    """
    ratios = list[float]()
    exact(), short()  # the first prepare what later ones use again
    began = time.perf_counter()
    while len(ratios) < LEAST_TRIALS or (max(ratios) > HOPELESS and time.perf_counter() - began < TRIAL_SECONDS):
        started = time.process_time()
        loss = exact()
        between = time.process_time()
        if not abs(short() - loss) <= LOSS_TOLERANCE * abs(loss):
            return 0.0
        ratios.append((between - started) / max(time.process_time() - between, 1e-9))
    return median(ratios)
